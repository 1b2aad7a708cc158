"""Amazon Bedrock: Converse, and InvokeModel, whose bodies are each vendor's own with the metrics beside them.

Where its documentation puts usage (https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html
and /userguide/model-parameters.html, read 2026-11-29). Inputs exclude each other, as with Anthropic.
"""

from tollmeter.producers.extract.grown import plain
from tollmeter.producers.extract.totals import usage_of
from tollmeter.producers.extract.usage import Counts, Usage, count, get, items, text

METRICS = "amazon-bedrock-invocationMetrics"
"""On the last chunk of InvokeModelWithResponseStream (API_runtime_InvokeModelWithResponseStream, 2026-11-29)."""
HEADERS = "ResponseMetadata.HTTPHeaders"
USAGE = {
    "input": ("inputTokens", "inputTokenCount", "input_tokens", "x-amzn-bedrock-input-token-count"),
    "output": ("outputTokens", "outputTokenCount", "output_tokens", "x-amzn-bedrock-output-token-count"),
    "cache_read": (
        "cacheReadInputTokens",  # Converse
        "cacheReadInputTokenCount",  # metrics of InvokeModel, and Nova's own body
        "cache_read_input_tokens",
        "x-amzn-bedrock-cache-read-input-token-count",
    ),
    "cache_write": (
        "cacheWriteInputTokens",
        "cacheWriteInputTokenCount",
        "cache_creation_input_tokens",
        "x-amzn-bedrock-cache-write-input-token-count",
    ),
}
LLAMA = ("prompt_token_count", "generation_token_count")
TITAN = "inputTextTokenCount"


def is_converse(body: object) -> bool:
    return get(body, "usage.inputTokens", "usage.outputTokens", METRICS) is not None


def converse(body: object, _provider: str) -> Usage:
    """Converse, Nova, and any body with the metrics: the block of usage and the metrics say the same counts."""
    usage, metrics = Counts(get(body, "usage")), Counts(get(body, METRICS))
    totals = {name: max(usage.take(*places), metrics.take(*places)) for name, places in USAGE.items()}
    hour = sum(
        Counts(item).take("inputTokens", "input_tokens")
        for item in items(usage.block, "cacheDetails", "cache_details")
        if text(get(item, "ttl")) == "1h"
    )
    hour = max(hour, usage.take("cache_creation.ephemeral_1h_input_tokens"))
    usage.found, usage.problem = usage.found or metrics.found, usage.problem or metrics.problem
    return _made(usage, totals, hour, {"guardrail_units": _guarded(body)})


def _guarded(body: object) -> float:
    """Return the text units that guardrails assessed, of all policies: billed beside the model.

    https://aws.amazon.com/bedrock/pricing (guardrails) and API_runtime_GuardrailUsage, 2026-11-30.
    """
    trace = plain(get(body, "trace.guardrail"))
    found = [trace.get("inputAssessment")] if isinstance(trace, dict) else []
    outputs = trace.get("outputAssessments") if isinstance(trace, dict) else None
    found += list(outputs.values()) if isinstance(outputs, dict) else []
    blocks = [one for part in found for one in (part.values() if isinstance(part, dict) else part or ())]
    blocks = [one for part in blocks for one in (part if isinstance(part, list) else [part])]
    units = [plain(get(block, "invocationMetrics.usage")) for block in blocks]
    return float(sum(count(value) or 0 for usage in units if isinstance(usage, dict) for value in usage.values()))


def _made(counts: Counts, totals: dict[str, int], hour: int = 0, extra: dict[str, float] | None = None) -> Usage:
    return usage_of(
        counts,
        extra,
        input_tokens=totals["input"] + totals["cache_read"] + totals["cache_write"],
        cache_read_tokens=totals["cache_read"],
        cache_write_tokens=totals["cache_write"],
        cache_write_1h_tokens=hour,
        output_tokens=totals["output"],
    )


def is_sonic(body: object) -> bool:
    return get(body, "usageEvent", "event.usageEvent") is not None


def sonic(body: object, _provider: str) -> Usage:
    """Nova Sonic: the totals of a session so far, speech and text (userguide/nova speech events, 2026-11-29)."""
    counts = Counts(get(body, "usageEvent", "event.usageEvent"))
    return usage_of(
        counts,
        {
            "input_audio_tokens": float(counts.take("details.total.input.speechTokens")),
            "output_audio_tokens": float(counts.take("details.total.output.speechTokens")),
        },
        input_tokens=counts.take("totalInputTokens"),
        output_tokens=counts.take("totalOutputTokens"),
    )


def is_native(body: object) -> bool:
    return get(body, *LLAMA, TITAN) is not None


def native(body: object, _provider: str) -> Usage:
    """Llama's and Titan's own bodies."""
    counts = Counts(body)
    results = items(body, "results")
    output = counts.take(LLAMA[1])
    for result in results:
        part = Counts(result)
        output += part.take("tokenCount")
        counts.problem = counts.problem or part.problem
    embedded = get(body, "embedding", "embeddingsByType") is not None
    return usage_of(
        counts,
        input_tokens=counts.take(LLAMA[0], TITAN),
        output_tokens=output,
        operation="embeddings" if embedded else "chat",
    )


def is_in_headers(body: object) -> bool:
    return get(get(body, HEADERS), USAGE["input"][-1], USAGE["output"][-1]) is not None


def in_headers(body: object, _provider: str) -> Usage:
    """Models whose body says nothing (Mistral, Cohere): the headers of the answer do."""
    counts = Counts(get(body, HEADERS))
    return _made(counts, {name: counts.take(places[-1]) for name, places in USAGE.items()})
