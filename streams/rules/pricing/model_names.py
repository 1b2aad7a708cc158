"""Model names as services write them, brought to the form that price books know; never from one family to another."""

import re
from collections.abc import Iterable
from typing import NamedTuple

STANDARD_TIERS = frozenset(
    ("", "default", "standard", "auto", "on_demand", "on-demand", "standard_only", "none", "unspecified", "realtime")
)
"""Tier names that providers use for the ordinary price."""

SUBSCRIPTION = "subscription"
"""Tier of a call that a subscription pays; "subscription+fast" is one that was served fast."""

TIER_AT_MOST_PCT = {
    **dict.fromkeys(("batch", "flex", "provisioned", "reserved", "scale"), 100),
    "priority": 200,
    "fast": 600,
}
OTHER_AT_MOST_PCT = 200
"""The most that a tier without a price costs, in percent of the standard rate: the dearest that anybody lists."""

_SEPARATORS = re.compile(r"[-_:/@ ]+")
_KIND = re.compile(
    r"\.(?:chat|completions?|responses|messages|embeddings?|image|speech|transcription|realtime|generative-ai)$"
)
"""What the AI SDK puts behind a provider: openai.responses, google.vertex.chat."""
_BETWEEN = re.compile(r"[\s._/-]+")
_PATHS = re.compile(r"^(?:projects/[^/]+/locations/[^/]+/)?(?:publishers/[^/]+/)?(?:tuned)?models/")


class Names(NamedTuple):
    """What an event says about who was called, how and for what: the key under which plans are remembered."""

    provider: str
    model_used: str
    model_sent: str
    deployment: str
    api_host: str
    region: str
    operation: str
    service_tier: str
    processing: str


def provider_word(name: str) -> str:
    """Return a provider's name as it is looked up: "Azure OpenAI", azure_openai and azure-openai.chat are one word."""
    return _BETWEEN.sub("-", _KIND.sub("", name.strip().lower())).strip("-")


def spellings(name: str, provider: str) -> list[str]:
    """Return the forms of a model name to look up, the plainest change first."""
    plain = name.strip().lower()
    forms = [plain, _PATHS.sub("", plain), plain.removeprefix(f"{provider}/")]
    return [form for form in dict.fromkeys(forms) if form]


def words(name: str) -> tuple[str, ...]:
    """Return the words of a model name; models of a family begin with the same ones."""
    plain = _PATHS.sub("", name.strip().lower()).removeprefix("ft:")
    return tuple(word for word in _SEPARATORS.split(plain) if word)


def by_subscription(service_tier: str) -> bool:
    """Say whether a subscription pays a call of this tier, so that it costs nothing more."""
    head, _, _ = service_tier.strip().lower().partition("+")
    return head == SUBSCRIPTION


def at_most_pct(without_price: Iterable[str], pct: int = 100) -> int:
    """Return what these tiers make of a price at most that is `pct` percent of the standard one."""
    for tier in without_price:
        pct = pct * TIER_AT_MOST_PCT.get(tier, OTHER_AT_MOST_PCT) // 100
    return pct


def tiers(service_tier: str, processing: str) -> tuple[str, ...]:
    """Return the tiers that may change the price: batch first, then the tier that the provider says it served."""
    tier = service_tier.strip().lower().removeprefix("service_tier_")
    if by_subscription(tier):
        tier = tier[len(SUBSCRIPTION) + 1 :]
    wanted = ["batch"] if processing == "BATCH" else []
    if tier not in STANDARD_TIERS and tier not in wanted:
        wanted.append(tier)
    return tuple(wanted)
