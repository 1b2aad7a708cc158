"""One table: what an attribute of a span means for an event, which spans are calls, and what providers are called.

Of several attributes with one meaning the first in its row wins; what the span says wins over its resource. Sources:
S = https://github.com/open-telemetry/semantic-conventions-genai (docs/gen-ai, commit 002c8a6), opentelemetry-util-genai
1.3b0; D = its deprecated names, opentelemetry-semantic-conventions 0.66b2; I = openinference-semantic-conventions
0.1.42; T = opentelemetry-semantic-conventions-ai 0.5.1 (Traceloop, OpenLLMetry); V = Vercel AI SDK, ai 7.0 and
@ai-sdk/otel 1.0; A = anthropic 2.14, whose SDK traces by itself; P = pydantic-ai 2.68; L = litellm 1.110;
F = langfuse 4; N = Sentry. All read on 2026-11-29.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple, TypeVar

from tollmeter.producers.telemetry.reading import Scalar

Value = TypeVar("Value")

OWN = "tollmeter."
"""Prefix of attributes and baggage that name a field of the event itself."""
ASSOCIATION = "traceloop.association.properties."  # T

MEANINGS: dict[str, tuple[str, ...]] = {
    # what kind of span it is
    "operation": ("gen_ai.operation.name",),  # S
    "ai_operation": ("ai.operationId",),  # V up to 6
    "span_kind": ("openinference.span.kind", "traceloop.span.kind"),  # I, T
    "request_type": ("llm.request.type",),  # T
    "cache_hit": ("litellm.cache_hit",),  # L: its own cache answered, no provider
    # who answered
    "provider": (
        "gen_ai.provider.name",
        "gen_ai.system",
        "llm.provider",
        "llm.system",
        "ai.model.provider",
    ),  # S D I I V
    "api_host": ("server.address",),  # S
    "api_port": ("server.port",),  # S
    "model_sent": (
        "gen_ai.request.model",
        "llm.request.model_name",
        "llm.model_name",
        "embedding.model_name",
        "ai.model.id",
    ),
    "model_used": ("gen_ai.response.model", "llm.response.model_name", "ai.response.model"),  # S T V
    "provider_request_id": ("gen_ai.response.id", "ai.response.id", "llm.response.id"),  # S V T
    "service_tier": (
        "openai.response.service_tier",
        "gen_ai.openai.response.service_tier",
        "anthropic.response.service_tier",
    ),
    "stream": ("gen_ai.request.stream", "gen_ai.is_streaming", "llm.is_streaming"),  # S T T
    "error_type": ("error.type", "exception.type"),  # S
    "http_status": ("http.response.status_code", "http.status_code"),  # S
    "ttft_s": ("gen_ai.response.time_to_first_chunk", "gen_ai.client.operation.time_to_first_chunk"),  # S, P
    "ttft_ms": ("ai.response.msToFirstChunk",),  # V
    # what was used: input contains all parts of it
    "input_tokens": (
        *("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),  # S D I
        *("ai.usage.inputTokens", "ai.usage.promptTokens", "ai.usage.tokens", "llm.usage.prompt_tokens"),  # V T
    ),
    "output_tokens": (
        *("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion"),  # S D I
        *("ai.usage.outputTokens", "ai.usage.completionTokens", "llm.usage.completion_tokens"),  # V T
    ),
    "cache_read_tokens": (
        *("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens"),  # S, T
        *("gen_ai.usage.input_tokens.cached", "gen_ai.usage.details.cache_read_input_tokens"),  # N, P
        *("llm.token_count.prompt_details.cache_read", "llm.token_count.prompt_details.cache_input"),  # I
        "ai.usage.cachedInputTokens",  # V
    ),
    "cache_write_tokens": (
        *("gen_ai.usage.cache_creation.input_tokens", "gen_ai.usage.cache_write.input_tokens"),  # S: both in the wild
        *("gen_ai.usage.cache_creation_input_tokens", "gen_ai.usage.input_tokens.cache_write"),  # T, N
        "llm.token_count.prompt_details.cache_write",  # I
    ),
    "cache_write_1h_tokens": ("anthropic.usage.cache_creation.ephemeral_1h_input_tokens",),  # A
    "reasoning_tokens": (
        *("gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens"),  # S, T
        *("gen_ai.usage.output_tokens.reasoning", "llm.token_count.completion_details.reasoning"),  # N, I
        *("gen_ai.usage.details.reasoning_tokens", "ai.usage.reasoningTokens"),  # P, V
    ),
    "input_audio_tokens": ("gen_ai.usage.audio.input_tokens", "llm.token_count.prompt_details.audio"),  # S I
    "output_audio_tokens": ("gen_ai.usage.audio.output_tokens", "llm.token_count.completion_details.audio"),  # S I
    "input_image_tokens": ("gen_ai.usage.image.input_tokens",),  # S
    "output_image_tokens": ("gen_ai.usage.image.output_tokens",),  # S
    "input_video_tokens": ("gen_ai.usage.video.input_tokens",),  # S
    "cache_audio_read_tokens": ("gen_ai.usage.audio.cache_read.input_tokens",),  # S
    "cost_usd": (
        "llm.cost.total",
        "gen_ai.usage.cost",
        "gen_ai.usage.total_cost",
        "gen_ai.cost.total_cost",
        "operation.cost",
    ),
    # who asked
    "service": ("service.name",),  # S, a resource's
    "environment": ("deployment.environment.name", "deployment.environment"),  # S D
    "agent": ("gen_ai.agent.name", "gen_ai.agent.id", "agent.name"),  # S I
    "session_id": (
        "gen_ai.conversation.id",
        "session.id",
        "langfuse.session.id",
        f"{ASSOCIATION}session_id",
    ),  # S I F T
    "user_id": ("user.id", "enduser.id", "langfuse.user.id", f"{ASSOCIATION}user_id", "user.email"),  # S S F T S
    "feature": ("ai.telemetry.functionId",),  # V
    "repository": (
        "vcs.repository.name",
        "vcs.repository.url.full",
        "repository",
        "repo",
    ),  # S; OTEL_RESOURCE_ATTRIBUTES
}


class Slot(NamedTuple):
    meaning: str
    rank: int


MOST_OWN = 64
"""Facts of one span, beyond which no more of ours are read: nobody fills the memory with names."""


def own_slot(key: str) -> Slot:
    """Return the slot of an attribute that begins with our prefix."""
    return Slot(f"own.{key[len(OWN) :]}", 0)


SLOTS: dict[str, Slot] = {
    name: Slot(meaning, rank) for meaning, names in MEANINGS.items() for rank, name in enumerate(names)
}
"""What each attribute means, and its place in its row."""


def facts_of(
    attributes: Iterable[tuple[str, Value]],
    slots: Mapping[str, Slot],
    above: Mapping[str, Scalar],
    scalar: Callable[[Value], Scalar | None],
) -> dict[str, Scalar]:
    """Return the attributes that a table names, by their meaning, over what is known from above.

    `scalar` says what the value of one is, None or "" when that is nothing; it is asked of those that matter alone. Of
    several with one meaning the first in its row wins.
    """
    facts = dict(above)
    ranks: dict[str, int] = {}
    for key, value in attributes:
        slot = slots.get(key)
        if slot is None:
            if not key.startswith(OWN) or len(facts) > MOST_OWN:
                continue
            slot = own_slot(key)
            facts[OWN] = True
        meaning, rank = slot
        if rank and ranks.get(meaning, rank) < rank:
            continue
        found = scalar(value)
        if found is not None and found != "":
            facts[meaning], ranks[meaning] = found, rank
    return facts


UNITS = frozenset(
    (
        *("input_audio_tokens", "output_audio_tokens", "input_image_tokens", "output_image_tokens"),
        *("input_video_tokens", "cache_audio_read_tokens"),
    )
)
"""Parts of input and output that may have prices of their own."""

CALLS: dict[str, str] = {
    **dict.fromkeys(("chat", "text_completion", "generate_content", "responses"), "chat"),  # S
    **dict.fromkeys(("embeddings", "embedding", "aembedding"), "embeddings"),  # S, L
    **dict.fromkeys(
        ("completion", "acompletion", "atext_completion", "aresponses", "anthropic_messages"), "chat"
    ),  # T, L
    **dict.fromkeys(("image_generation", "aimage_generation", "generate_image", "image"), "image"),  # L, S
    **dict.fromkeys(("speech", "aspeech", "text_to_speech"), "speech"),
    **dict.fromkeys(("transcription", "atranscription", "speech_to_text"), "transcription"),
    **dict.fromkeys(("rerank", "arerank"), "rerank"),
}
"""Operations that are one call to a model, and the event's name for each."""
WRAPPERS = frozenset(
    (
        *(
            "invoke_agent",
            "invoke_workflow",
            "create_agent",
            "execute_tool",
            "agent_step",
            "retrieval",
            "plan",
            "handoff",
        ),  # S
        *("workflow", "task", "agent", "tool"),  # T
        *("chain", "retriever", "guardrail", "evaluator", "prompt", "unknown"),  # I
    )
)
"""Operations that contain calls, whose usage they repeat, or that are none."""
SPAN_KINDS = {"llm": "chat", "embedding": "embeddings", "reranker": "rerank"}  # I

PROVIDERS: dict[str, str] = {
    # S and D
    **dict.fromkeys(("gcp.gemini", "gcp.vertex_ai", "gcp.gen_ai", "vertex_ai", "gemini", "vertexai"), "google"),
    **dict.fromkeys(("google-gla", "google-vertex"), "google"),  # P
    **dict.fromkeys(("azure.ai.openai", "azure.ai.inference", "az.ai.openai", "az.ai.inference"), "azure"),
    **dict.fromkeys(("aws.bedrock", "aws_bedrock", "bedrock", "amazon"), "aws"),
    **dict.fromkeys(("x_ai", "xai"), "x-ai"),
    **dict.fromkeys(("mistral_ai", "mistralai"), "mistral"),
    **dict.fromkeys(("moonshot_ai", "moonshot"), "moonshotai"),
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    # V: a provider and the kind of its model behind a dot
    **dict.fromkeys(("google.generative-ai", "google.vertex", "vertex"), "google"),
    "amazon-bedrock": "aws",
    "azure-openai": "azure",
}


@lru_cache(maxsize=1_024)
def provider_named(said: str) -> str:
    """Return our name of a provider; what no table knows is kept in lower case, "openai.chat" as "openai"."""
    name = said.strip().lower()
    known = PROVIDERS.get(name)
    if known is None and "." in name:
        name = name.partition(".")[0]
        known = PROVIDERS.get(name)
    return known or name
