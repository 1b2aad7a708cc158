"""Anthropic's Messages: the three inputs exclude each other, and what other models did stands in the iterations.

Where its documentation puts usage (https://platform.claude.com/docs/en/api/messages and the anthropic SDK 2.12, read
2026-11-29). Streams state cumulative counts: https://platform.claude.com/docs/en/build-with-claude/streaming.
"""

from dataclasses import replace

from tollmeter.producers.extract.totals import usage_of
from tollmeter.producers.extract.usage import Counts, Part, Usage, get, items, text

USAGE = {
    "input": ("input_tokens",),
    "output": ("output_tokens",),
    "cache_read": ("cache_read_input_tokens",),
    "cache_write": ("cache_creation_input_tokens",),
    "write_5m": ("cache_creation.ephemeral_5m_input_tokens",),
    "write_1h": ("cache_creation.ephemeral_1h_input_tokens",),
    "reasoning": ("output_tokens_details.thinking_tokens",),
    "searches": ("server_tool_use.web_search_requests",),  # 10 USD per 1,000; fetches cost nothing (pricing page)
}
INSIDE = ("message", "fallback_message", "")
"""Iterations of these types are in the top level, a fallback's (anthropic SDK 2.14, 2026-11-30) as any other; those of
other types are not: compaction is billed beside it (https://platform.claude.com/docs/en/build-with-claude/compaction),
and so is the advisor, at its own model's price
(https://platform.claude.com/docs/en/agents-and-tools/tool-use/advisor-tool, both read 2026-11-29)."""
SPAN = "model_usage"
"""Of a request of a managed agent's session (BetaManagedAgentsSpanModelRequestEndEvent, anthropic SDK 2.14)."""

_Totals = dict[str, int]


def is_anthropic(body: object) -> bool:
    stated = get(
        body,
        "usage.cache_read_input_tokens",
        "usage.cache_creation_input_tokens",
        "usage.cache_creation",
        "usage.server_tool_use",
        "usage.iterations",
    )
    return get(body, "usage.input_tokens", "usage.output_tokens") is not None and (
        stated is not None or get(body, "type") == "message"
    )


def is_span(body: object) -> bool:
    return get(body, f"{SPAN}.input_tokens", f"{SPAN}.output_tokens") is not None


def span(body: object, _provider: str) -> Usage:
    """One request of a managed agent's session; the session's runtime is billed beside it."""
    counts = Counts(get(body, SPAN))
    return _usage(counts, _read(counts), "chat")


def messages(body: object, _provider: str) -> Usage:
    """The answer of a message, whole or merged from its stream."""
    counts = Counts(get(body, "usage"))
    own = _read(counts)
    model = text(get(body, "model"))
    within = dict.fromkeys(own, 0)
    others: list[Part] = []
    for step in items(counts.block, "iterations"):
        block = Counts(step)
        totals, named = _read(block), text(get(step, "model"))
        counts.problem = counts.problem or block.problem
        inside = text(get(step, "type")) in INSIDE
        if named and named != model:
            others.append(Part(named, _usage(block, totals, "chat")))
            if inside:  # its share is in the top level, at the price of another model
                own = {name: max(value - totals[name], 0) for name, value in own.items()}
        elif inside:
            within = {name: value + totals[name] for name, value in within.items()}
        elif text(get(step, "type")) == "compaction":
            own = {name: value + totals[name] for name, value in own.items()}
        else:
            others.append(Part("", _usage(block, totals, "chat")))
    own = {name: max(value, within[name]) for name, value in own.items()}
    usage = _usage(counts, own, "chat")
    extra = {**usage.extra_units, **_beside(body)}
    return replace(usage, extra_units=extra, others=tuple(others))


def _beside(body: object) -> dict[str, float]:
    """Return what is billed beside tokens and has no price here, so that the cost says PARTIAL.

    A container is billed by the hour beyond a free allowance
    (https://platform.claude.com/docs/en/agents-and-tools/tool-use/code-execution-tool, 2026-11-30). A redeemed credit
    bills a retry as if the conversation had been on its model all along (BetaFallbackCreditUsage, anthropic SDK 2.14).
    """
    found = {}
    if text(get(body, "container.id")):
        found["container_sessions"] = 1.0
    if text(get(body, "usage.fallback_credit.status.type")) == "redeemed":
        found["fallback_credits"] = 1.0
    return found


def _read(counts: Counts) -> _Totals:
    hour = counts.take(*USAGE["write_1h"])
    split = hour + counts.take(*USAGE["write_5m"])
    return {
        "input": counts.take(*USAGE["input"]),
        "read": counts.take(*USAGE["cache_read"]),
        "write": max(counts.take(*USAGE["cache_write"]), split),
        "hour": hour,
        "output": counts.take(*USAGE["output"]),
        "reasoning": counts.take(*USAGE["reasoning"]),
        "searches": counts.take(*USAGE["searches"]),
    }


def _usage(counts: Counts, totals: _Totals, operation: str) -> Usage:
    return usage_of(
        counts,
        {"web_searches": float(totals["searches"])},
        input_tokens=totals["input"] + totals["read"] + totals["write"],
        cache_read_tokens=totals["read"],
        cache_write_tokens=totals["write"],
        cache_write_1h_tokens=totals["hour"],
        output_tokens=totals["output"],
        reasoning_tokens=totals["reasoning"],
        operation=operation,
    )
