"""A rule of the published price book as a guard holds it: when, for which size, at what integer rates. Pure."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, NamedTuple

from tollmeter.schemas.money import round_half_even
from tollmeter.streams.rules.pricing.rates import DAY_SECONDS, EVERY_DAY, FIRST_DAY, LAST_DAY, day_number


class Rule(NamedTuple):
    """One rule of the book that may hold at some time for some size."""

    rates: Mapping[str, int]
    """Marginal pico-USD per reported unit."""
    priced: frozenset[str]
    days: tuple[int, int]
    seconds: tuple[int, int]
    weekdays: int
    above_input: int
    without_tokens: bool
    free: bool
    override: bool
    always: bool
    """No condition on time or size."""
    rule_id: str
    input_pico: int
    output_pico: int
    call_pico: int
    """Per request, and per image where nothing is priced by the token."""
    at_most_pct: int = 100
    """What a PARTIAL price may be at most, in percent."""

    @property
    def status(self) -> str:
        """How good its prices are."""
        return "OVERRIDE" if self.override else "PRICED"


def read_rule(entry: dict[str, Any]) -> Rule:
    first, last = days_of(entry)
    seconds = int(entry.get("from_second", 0)), int(entry.get("to_second", DAY_SECONDS))
    weekdays, above = int(entry.get("weekdays", EVERY_DAY)), int(entry.get("above_input", -1))
    without = bool(entry.get("without_tokens"))
    rates, priced = entry["rate_pico"], frozenset(entry["priced"])
    image = 0 if priced & {"input_tokens", "output_tokens"} else rates.get("images", 0)
    whole_day = seconds == (0, DAY_SECONDS) and weekdays == EVERY_DAY
    return Rule(
        rates=rates,
        priced=priced,
        days=(first, last),
        seconds=seconds,
        weekdays=weekdays,
        above_input=above,
        without_tokens=without,
        free=bool(entry.get("free")),
        override=str(entry["rule_id"]).startswith("override:") and not entry.get("listed"),
        always=whole_day and (first, last) == (FIRST_DAY, LAST_DAY) and above < 0 and not without,
        rule_id=str(entry["rule_id"]),
        input_pico=rates.get("input_tokens", 0),
        output_pico=rates.get("output_tokens", 0),
        call_pico=rates.get("requests", 0) + image,
        at_most_pct=int(entry.get("at_most_pct", 100)),
    )


def days_of(entry: dict[str, Any]) -> tuple[int, int]:
    first, last = (
        date.fromisoformat(text) if (text := entry.get(name)) else None for name in ("valid_from", "valid_to")
    )
    return day_number(first, FIRST_DAY), day_number(last, LAST_DAY)


def rule_at(rules: tuple[Rule, ...], at_s: int, input_tokens: int, has_tokens: bool) -> Rule | None:
    """Return the last rule that holds at this time for this size."""
    day, second = divmod(at_s, DAY_SECONDS)
    for rule in reversed(rules):
        if rule.always or (
            rule.days[0] <= day < rule.days[1]
            and rule.seconds[0] <= second < rule.seconds[1]
            and rule.weekdays & 1 << (day + 3) % 7
            and input_tokens > rule.above_input
            and not (rule.without_tokens and has_tokens)
        ):
            return rule
    return None


class Worst(NamedTuple):
    """What a rule charges a call that is estimated by its tokens: pico-USD per input and output token, and per call."""

    input_pico: int
    output_pico: int
    call_pico: int
    above_input: int

    def covers(self, other: "Worst") -> bool:
        """Say whether this is never cheaper than the other, wherever that holds."""
        return (
            self.input_pico >= other.input_pico
            and self.output_pico >= other.output_pico
            and self.call_pico >= other.call_pico
            and self.above_input <= other.above_input
        )


def worst_of(rules: Iterable[Rule]) -> tuple[Worst, ...]:
    """Return the few rates of which the dearest for any number of tokens is also the dearest of all rules."""
    every = {
        Worst(
            rule.rates.get("input_tokens", 0),
            rule.rates.get("output_tokens", 0),
            rule.rates.get("requests", 0),
            rule.above_input,
        )
        for rule in rules
    }
    kept: list[Worst] = []
    for one in sorted(every, key=lambda worst: (*worst[:3], -worst.above_input), reverse=True):
        if not any(other.covers(one) for other in kept):
            kept.append(one)
    return tuple(kept)


def tiers_at_most(standard: Iterable[Rule], listed: Mapping[str, Iterable[Rule]]) -> dict[str, int]:
    """Return what each listed tier of a model costs at most, in percent of its standard price."""
    usual, found = tuple(standard), {}
    for tier, rules in listed.items():
        pairs = [
            pair
            for rule in rules
            for one in usual
            if one.above_input == rule.above_input
            for pair in ((rule.input_pico, one.input_pico), (rule.output_pico, one.output_pico))
        ]
        most = [-(-own * 100 // base) for own, base in pairs if base]
        if most:
            found[tier] = max(most)
    return found


def cost_nano(rates: Mapping[str, int], counts: Mapping[str, int]) -> int:
    pico = rates.get("requests", 0)
    for unit, count in counts.items():
        pico += count * rates.get(unit, 0)
    return round_half_even(pico, 1_000)
