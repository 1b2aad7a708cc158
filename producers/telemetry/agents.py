"""Coding agents tell their calls in log records: each becomes an event with its developer, repository and session.

Names and counts are those of the agents' own telemetry, read on 2026-11-29. Claude Code: input leaves out what was read
from and written to the cache, as Anthropic's API does (https://code.claude.com/docs/en/monitoring-usage). Codex CLI:
input holds cached input (codex-rs/otel). Gemini CLI: thoughts and the input of tools stand beside output and input
(docs/cli/telemetry.md). Their metrics tell the same calls again and are not read.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tollmeter.producers.telemetry.facts import (
    SUBSCRIBED,
    Tokens,
    cost_of,
    id_of,
    is_subscription,
    micros_of,
    subscribed,
    text_of,
)
from tollmeter.producers.telemetry.names import MEANINGS, Slot
from tollmeter.producers.telemetry.reading import Damaged, Found, LogRecord, Reading, RefusedError, Scalar

_SHARED = ("service", "environment", "repository")
_LOG_MEANINGS: dict[str, tuple[str, ...]] = {
    **{name: MEANINGS[name] for name in _SHARED},
    "subscription": ("subscription.type", "tollmeter.subscription"),  # ours, by OTEL_RESOURCE_ATTRIBUTES
    "event_name": ("event.name",),
    "event_kind": ("event.kind",),
    "sequence": ("event.sequence",),
    "at": ("event.timestamp",),
    "session_id": ("session.id", "conversation.id", "session_id"),
    "user_id": ("user.email", "user.account_uuid", "user.account_id", "user.id"),
    "group_id": ("team.id", "team", "department"),
    "agent_version": ("app.version",),
    "model": ("model",),
    "duration_ms": ("duration_ms",),
    "ttft_ms": ("ttft_ms",),
    "cost_usd": ("cost_usd",),
    "http_status": ("status_code", "http.response.status_code"),
    "error_type": ("error_type", "error.type"),
    "request_id": ("request_id",),
    "prompt_id": ("prompt.id", "prompt_id"),
    "speed": ("speed",),
    "source": ("query_source",),
    "auth": ("auth_mode", "auth_type"),
    "input_tokens": ("input_tokens", "input_token_count"),
    "output_tokens": ("output_tokens", "output_token_count"),
    "cache_read_tokens": ("cache_read_tokens", "cached_token_count", "cached_content_token_count"),
    "cache_write_tokens": ("cache_creation_tokens", "cache_write_token_count"),
    "reasoning_tokens": ("reasoning_token_count", "thoughts_token_count"),
    "tool_tokens": ("tool_token_count",),
}
SLOTS: dict[str, Slot] = {
    name: Slot(meaning, rank) for meaning, names in _LOG_MEANINGS.items() for rank, name in enumerate(names)
}


class Agent(NamedTuple):
    """How one agent tells a call."""

    name: str
    provider: str
    calls: frozenset[str]
    """Names of the records that are calls."""
    failures: frozenset[str]
    cache_beside_input: bool = False
    reasoning_beside_output: bool = False
    subscriptions: frozenset[str] = frozenset()
    """Ways to sign in that a subscription pays for, in lower case."""
    kinds: Mapping[str, bool] | None = None
    """Where a record's kind says more: the kinds that are calls, and whether they failed."""


AGENTS = (
    Agent(
        "claude-code",
        "anthropic",
        frozenset(("claude_code.api_request", "api_request")),
        frozenset(("claude_code.api_error", "api_error")),
        cache_beside_input=True,
    ),
    Agent(
        "codex",
        "openai",
        frozenset(("codex.sse_event", "codex.websocket_event")),
        frozenset(),
        subscriptions=frozenset(("chatgpt", "chatgptauthtokens")),
        kinds={"response.completed": False, "response.failed": True},
    ),
    Agent(
        "gemini-cli",
        "google",
        frozenset(("gemini_cli.api_response",)),
        frozenset(("gemini_cli.api_error",)),
        reasoning_beside_output=True,
        subscriptions=frozenset(("oauth-personal", "cloud-shell")),
    ),
)
_BY_NAME = {name: agent for agent in AGENTS for name in agent.calls | agent.failures}


def agent_of(record: LogRecord) -> tuple[Agent, bool] | None:
    """Return whose call a record is, and whether it failed; None for what is no call."""
    agent = _BY_NAME.get(record.name)
    if agent is None or ("." not in record.name and record.facts.get("service") != agent.name):
        return None
    if agent.kinds is None:
        return agent, record.name in agent.failures
    failed = agent.kinds.get(text_of(record.facts, "event_kind"))
    return None if failed is None else (agent, failed)


def fields_of(record: LogRecord, agent: Agent, *, failed: bool) -> dict[str, Any]:
    """Return the fields of a record's event. Raises `RefusedError` naming what is missing or wrong."""
    facts = record.facts
    model = text_of(facts, "model").removeprefix("models/")
    if not model:
        raise RefusedError("model: missing")
    tokens = Tokens(facts)
    counted = {} if failed else _counters(tokens, agent)
    told = (text_of(facts, name) for name in ("session_id", "sequence", "at", "prompt_id", "request_id"))
    tier = _tier(facts, agent)
    fields: dict[str, Any] = {
        "event_id": id_of("\x1f".join((record.name, str(record.at_ns), model, *told, *map(str, counted.values())))),
        "occurred_at": micros_of(record.at_ns, "timeUnixNano"),
        "producer": f"{agent.name}/{text_of(facts, 'agent_version')}".rstrip("/"),
        "agent": agent.name,
        "provider": agent.provider,
        "model_sent": model,
        "model_used": model,
        "status": "ERROR" if failed else "OK",
        "service_tier": tier,
        **counted,
        **_numbers(facts),
        **{name: text_of(facts, name) for name in _TEXTS if name in facts},
    }
    cost = None if failed else cost_of(facts)
    if cost is not None:  # a price list's amount: of a subscription it is what the call would have cost
        fields["est_cost_nano" if tier.startswith(SUBSCRIBED) else "reported_cost_nano"] = cost
    tokens.judge(fields, _tags(facts))
    return fields


_TEXTS = ("session_id", "user_id", "group_id", "service", "environment", "error_type", "request_id")


def _counters(tokens: Tokens, agent: Agent) -> dict[str, int]:
    read, write = tokens.take("cache_read_tokens"), tokens.take("cache_write_tokens")
    reasoning, tool = tokens.take("reasoning_tokens"), 0
    total, output = tokens.take("input_tokens"), tokens.take("output_tokens")
    if agent.reasoning_beside_output:
        tool, output = tokens.take("tool_tokens"), output + reasoning
    total += read + write if agent.cache_beside_input else tool
    return {
        "input_tokens": tokens.whole(total, read + write),
        "cache_read_tokens": read,
        "cache_write_tokens": write,
        "output_tokens": tokens.whole(output, reasoning),
        "reasoning_tokens": reasoning,
    }


def _tier(facts: Mapping[str, Scalar], agent: Agent) -> str:
    speed = text_of(facts, "speed").lower()
    tier = speed if speed not in ("", "standard", "normal", "default") else ""
    signed_in = text_of(facts, "auth").replace("_", "-").lower()
    paid = is_subscription(text_of(facts, "subscription")) or signed_in in agent.subscriptions
    return subscribed(tier) if paid else tier


def _numbers(facts: Mapping[str, Scalar]) -> dict[str, int]:
    numbers = {}
    for name, field in (("duration_ms", "latency_ms"), ("ttft_ms", "ttft_ms"), ("http_status", "http_status")):
        value = facts.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
            value = int(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**31:
            numbers[field] = round(value)
    return numbers


def _tags(facts: Mapping[str, Scalar]) -> dict[str, str]:
    names = ("repository", "subscription", "source")
    return {name: text_of(facts, name) for name in names if name in facts}


def read_records(records: Iterable[LogRecord | Damaged]) -> Reading:
    """Return what these records are."""
    reading = Reading()
    for record in records:
        if isinstance(record, Damaged):
            reading.refused.append(record)
            continue
        found = agent_of(record)
        if found is None:
            reading.ignored["no_call"] += 1
            continue
        agent, failed = found
        try:
            reading.calls.append(Found(record.place, fields_of(record, agent, failed=failed)))
        except RefusedError as refused:
            reading.refused.append(Damaged(record.place, str(refused)))
    return reading
