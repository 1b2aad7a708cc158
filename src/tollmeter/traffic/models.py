"""The models that the made-up company calls: today's names, as the price book knows them, and a few it does not."""

from typing import NamedTuple

LEAK_CHOICES = ("none", "new", "old", "both")
"""Which keys leak on request: none, those without a past, those with one, both."""


class Model(NamedTuple):
    """A model and how it is reached. `share` is its weight among the calls of the workloads that may use it."""

    provider: str
    host: str
    sent: str
    used: str
    share: float
    operation: str = "chat"
    cache: str = ""
    """ "" = never reports cached input; "read" = cached input; "write" = also tokens written to the cache."""
    reasoning: bool = False
    tiers: tuple[str, ...] = ()
    images: bool = False


_OPENAI, _ANTHROPIC, _GOOGLE = "api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com"
_DEEPSEEK, _MISTRAL, _LOCAL = "api.deepseek.com", "api.mistral.ai", "127.0.0.1:11434"

MODELS: tuple[Model, ...] = (
    Model("openai", _OPENAI, "gpt-5-nano", "gpt-5-nano-2025-08-07", 16, cache="read", reasoning=True, tiers=("flex",)),
    Model("openai", _OPENAI, "gpt-4.1-nano", "gpt-4.1-nano-2025-04-14", 14, cache="read", tiers=("priority",)),
    Model("openai", _OPENAI, "gpt-4o-mini", "gpt-4o-mini-2024-07-18", 12, cache="read", tiers=("priority",)),
    Model("openai", _OPENAI, "gpt-5-mini", "gpt-5-mini-2025-08-07", 4, cache="read", reasoning=True, tiers=("flex",)),
    Model("openai", _OPENAI, "gpt-4o", "gpt-4o-2024-08-06", 0.4, operation="responses", cache="read"),
    Model("openai", _OPENAI, "text-embedding-3-small", "text-embedding-3-small", 8, operation="embeddings"),
    Model("openai", _OPENAI, "dall-e-3", "dall-e-3", 0.05, operation="image", images=True),
    Model("anthropic", _ANTHROPIC, "claude-haiku-5-5", "claude-haiku-5-5", 10, cache="write"),
    Model("anthropic", _ANTHROPIC, "claude-haiku-4-5", "claude-haiku-4-5-20251001", 1, cache="write"),
    Model("anthropic", _ANTHROPIC, "claude-sonnet-5-5", "claude-sonnet-5-5", 0.3, cache="write", reasoning=True),
    Model("google", _GOOGLE, "gemini-2.5-flash-lite", "gemini-2.5-flash-lite", 12, cache="read"),
    Model("google", _GOOGLE, "gemini-3.5-flash-lite", "gemini-3.5-flash-lite", 5, cache="read", reasoning=True),
    Model("deepseek", _DEEPSEEK, "deepseek-v4-flash", "deepseek-v4-flash", 6, cache="read"),
    Model("mistral", _MISTRAL, "ministral-8b-2512", "ministral-8b-2512", 5),
    Model("mistral", _MISTRAL, "mistral-small-2603", "mistral-small-2603", 3),
    Model("ollama", _LOCAL, "llama3.2", "llama3.2", 3),
    # Unknown to the price book: a few calls of any caller.
    Model("openai", _OPENAI, "gpt-nightly-canary", "gpt-nightly-canary", 0),
    Model("mistral", _MISTRAL, "inhouse-distill-7b", "inhouse-distill-7b", 0),
    # Dear ones: no ordinary caller uses them, leaks do.
    Model("openai", _OPENAI, "gpt-5-pro", "gpt-5-pro-2025-10-06", 0, operation="responses", reasoning=True),
    Model("anthropic", _ANTHROPIC, "claude-opus-5-5", "claude-opus-5-5", 0, reasoning=True),
)

UNKNOWN = tuple(i for i, m in enumerate(MODELS) if m.sent in ("gpt-nightly-canary", "inhouse-distill-7b"))
UNKNOWN_SHARE = 0.003
BURST_MODEL = next(i for i, model in enumerate(MODELS) if model.sent == "gpt-5-pro")
LOOP_MODEL = next(i for i, model in enumerate(MODELS) if model.sent == "gpt-4.1-nano")
BUDGET_MODEL = next(i for i, model in enumerate(MODELS) if model.sent == "claude-opus-5-5")


def models_of(operation: str) -> list[int]:
    """Return the indexes of the models that a workload may call: embeddings and images keep to their own."""
    if operation in ("embeddings", "image"):
        return [i for i, model in enumerate(MODELS) if model.operation == operation]
    return [i for i, m in enumerate(MODELS) if m.share > 0 and m.operation not in ("embeddings", "image")]
