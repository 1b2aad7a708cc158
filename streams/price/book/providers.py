"""Who is called: the host settles it, then the name given, then the model's maker; one id per provider, the book's."""

import re

from genai_prices.data_snapshot import find_provider_by_id
from genai_prices.types import Provider

from tollmeter.streams.price.book.compile import PROVIDERS
from tollmeter.streams.price.book.coverage import PROVIDER_OF
from tollmeter.streams.rules.pricing.model_names import Names, spellings

PROVIDER_NAMES = {
    **PROVIDER_OF,
    "gcp.vertex_ai": "google",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "aws.bedrock": "aws",
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "azure_openai": "azure",
    "mistral_ai": "mistral",
    "x_ai": "x-ai",
}
"""Other words for a provider: those of OpenTelemetry, of public price maps, and common ones."""

MODELS = {provider.id: provider for provider in PROVIDERS}


def provider_of(names: Names) -> str:
    """Return the provider's id in the book; the lower-case name given where the book has none; "" if nobody knows."""
    stated = _book_name(names.provider)
    if stated in ("", "litellm"):
        prefix = _book_name((names.model_sent or names.model_used).partition("/")[0])
        stated = prefix if prefix in MODELS else ""
    host = names.api_host.strip().lower()
    given = find_provider_by_id(list(PROVIDERS), stated) if stated else None
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
    plain = stated.strip().lower()
    return PROVIDER_NAMES.get(plain, plain)


def _serves(provider: Provider, host: str) -> bool:
    plain = host.removeprefix("https://").removeprefix("http://")
    return re.match(provider.api_pattern, f"https://{plain}") is not None
