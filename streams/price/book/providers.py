"""Who is called: the host settles it, then the name given, then the model's maker; one id per provider, the book's.

A name is known or it is not: one that only looks like a provider's is somebody else, whose prices nobody told us.
"""

import re

from genai_prices.types import Provider

from tollmeter.streams.price.book.compile import PROVIDERS
from tollmeter.streams.price.book.coverage import PROVIDER_OF
from tollmeter.streams.rules.pricing.model_names import Names, provider_word, spellings

MODELS = {provider.id: provider for provider in PROVIDERS}
_WORDS = {
    "anthropic": ("claude",),
    "aws": ("amazon", "amazon bedrock", "aws bedrock", "bedrock", "bedrock runtime", "bedrock converse"),
    "azure": ("azure openai", "azure ai openai", "az ai openai", "azure ai inference", "az ai inference", "azure ai"),
    "cloudflare": ("cloudflare workers ai", "workers ai"),
    "cohere": ("cohere chat", "cohere ai"),
    "deepseek": ("deepseek ai",),
    "elevenlabs": ("eleven labs",),
    "fireworks": ("fireworks ai", "fireworksai"),
    "github-copilot": ("copilot",),
    "google": (
        *(
            "gemini",
            "google gemini",
            "google gla",
            "google genai",
            "google generativeai",
            "google ai studio",
            "google ai",
        ),
        *(
            "vertex",
            "vertexai",
            "vertex ai",
            "google vertex",
            "google vertexai",
            "google vertex ai",
            "vertex anthropic",
        ),
        *(
            "gcp gemini",
            "gcp vertex ai",
            "gcp gen ai",
            "google vertex anthropic",
            "google anthropic vertex",
            "googleai",
        ),
    ),
    "meta": ("meta ai", "llama api"),
    "minimax": ("minimax ai",),
    "mistral": ("mistralai", "mistral ai", "codestral"),
    "moonshotai": ("moonshot", "moonshot ai"),
    "novita": ("novita ai",),
    "openai": ("open ai", "text completion openai"),
    "perplexity": ("perplexity ai",),
    "together": ("together ai", "togetherai"),
    "vercel_ai_gateway": ("vercel", "vercel ai gateway", "vercel gateway"),
    "voyageai": ("voyage", "voyage ai"),
    "x-ai": ("xai",),
    "zai": ("z ai",),
    "zhipuai": ("zhipu", "zhipu ai"),
}
"""Other words for a provider: those of OpenTelemetry, of SDKs, and common ones."""
PROVIDER_NAMES = {
    **{provider_word(word): provider for word, provider in PROVIDER_OF.items()},
    **{provider_word(word): provider for provider, words in _WORDS.items() for word in words},
    **{provider_word(provider): provider for provider in MODELS},
}
"""The book's id of a provider by its word, as `provider_word` makes it."""


def provider_of(names: Names) -> str:
    """Return the provider's id in the book; the lower-case name given where the book has none; "" if nobody knows."""
    stated = _book_name(names.provider)
    if stated in ("", "litellm"):
        prefix = _book_name((names.model_sent or names.model_used).partition("/")[0])
        stated = prefix if prefix in MODELS else ""
    host = names.api_host.strip().lower()
    given = MODELS.get(stated)
    if host and not (given and _serves(given, host)):
        called = next((provider for provider in PROVIDERS if _serves(provider, host)), None)
        if called is not None:
            return called.id
    if given is not None:
        return given.id
    return stated or maker_of(names.model_used or names.model_sent)


def maker_of(model: str) -> str:
    """Return the provider that makes models of such a name; "" if nobody knows."""
    name = (spellings(model, "") or [""])[-1]
    makers = (p.id for p in PROVIDERS if p.model_match is not None and p.model_match.is_match(name))
    return next(makers, "")


def _book_name(stated: str) -> str:
    return PROVIDER_NAMES.get(provider_word(stated), stated.strip().lower())


def _serves(provider: Provider, host: str) -> bool:
    plain = host.removeprefix("https://").removeprefix("http://")
    return re.match(provider.api_pattern, f"https://{plain}") is not None
