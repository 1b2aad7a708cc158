"""What all telemetry shares on its way to an event: ids that come out the same again, times, and counts."""

from collections.abc import Mapping
from hashlib import sha1
from typing import Any
from uuid import UUID

from tollmeter.producers.extract.usage import count, usd_to_nano, why_no_count
from tollmeter.producers.telemetry.reading import RefusedError, Scalar
from tollmeter.schemas.event import MAX_TOKENS
from tollmeter.schemas.texts import clean_text

_NAMESPACE = UUID("7f4f6b0e-5d0b-5b52-9d0a-3f0c2f1f7a11").bytes
FIRST_NS = 946_684_800 * 10**9  # 2000-01-01: earlier than that is a clock that was never set
END_NS = 4_102_444_800 * 10**9  # 2100-01-01
SUSPECT = "usage_suspect"
"""Tag of an event: its parts exceeded their whole, so they were taken as beside it."""
PROBLEM = "usage_problem"
SUBSCRIBED = "subscription"
"""The tier of a call that a subscription pays."""
_VARIANT = "89ab" * 4


def id_of(text: str) -> str:
    """Return the event id made from a text (UUID version 5, RFC 9562 5.5): the same for the same telemetry."""
    digest = sha1(_NAMESPACE + text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()
    variant = _VARIANT[int(digest[16], 16)]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"


def micros_of(ns: int, name: str) -> int:
    """Return a time of telemetry in microseconds since 1970. Raises `RefusedError` for none."""
    if not FIRST_NS <= ns < END_NS:
        raise RefusedError(f"{name}: {'not between 2000 and 2100' if ns else 'missing'}")
    return ns // 1_000


def text_of(facts: Mapping[str, Scalar], name: str) -> str:
    """Return a fact as text, "" when it is absent. Whoever makes the event cuts and cleans it."""
    value = facts.get(name, "")
    return value if type(value) is str else clean_text(value)


class Tokens:
    """Counts of one call; remembers whether any was said, and what was none."""

    __slots__ = ("facts", "problem", "said", "suspect")

    def __init__(self, facts: Mapping[str, Scalar]) -> None:
        self.facts = facts
        self.said = False
        self.problem = ""
        self.suspect = False

    def take(self, name: str) -> int:
        """Return the count of a fact, 0 when it is absent or no count."""
        value = self.facts.get(name)
        if value is None:
            return 0
        number = value if type(value) is int and 0 <= value <= MAX_TOKENS else count(value)
        if number is None:
            self.problem = self.problem or f"{name}: {why_no_count(value)}"
            return 0
        self.said = True
        return number

    def whole(self, total: int, parts: int) -> int:
        """Return a total that holds its parts: where it cannot, the sender keeps them beside it, which is noted."""
        if parts <= total:
            return total
        self.suspect = True
        return total + parts

    def judge(self, fields: dict[str, Any], tags: dict[str, str]) -> None:
        """Say in the fields where the counts come from; what is no count leaves the event without usage, and a tag."""
        if max(fields.get("input_tokens", 0), fields.get("output_tokens", 0)) > MAX_TOKENS:
            self.problem = self.problem or "input or output: too large"
        if self.problem:
            for name in [name for name in fields if name.endswith("_tokens") or name == "extra_units"]:
                del fields[name]
            tags[PROBLEM] = self.problem
        elif self.suspect:
            tags[SUSPECT] = "parts exceed their whole: taken as beside it"
        fields["usage_source"] = "PROVIDER" if self.said and not self.problem else "NONE"
        if tags:
            fields["tags"] = tags


def cost_of(facts: Mapping[str, Scalar]) -> int | None:
    """Return the cost that the sender states, nano-USD; None when it states none."""
    value = facts.get("cost_usd")
    return None if value is None else usd_to_nano(value)


def is_subscription(plan: str) -> bool:
    """Say whether the name of a plan, as somebody has set it, means that a subscription pays."""
    return plan.strip().lower() not in ("", "none", "no", "false", "0", "api", "payg", "pay-as-you-go")


def subscribed(tier: str) -> str:
    """Return the tier of a call that a subscription pays; what else it is stays behind a plus sign."""
    return f"{SUBSCRIBED}+{tier}" if tier else SUBSCRIBED
