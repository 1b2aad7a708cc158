"""What an incident rests on, in plain words: since when, how much more than usual, which rules agree, who else. Pure.

The same lines stand in mail, chat, JSON and on the page. Names come from outside and cannot begin a line of their own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tollmeter.schemas.escapes import one_line
from tollmeter.schemas.money import used_text
from tollmeter.streams.notify.incidents import Standing, nano
from tollmeter.streams.notify.notice import Notice, Scope

Facts = Mapping[str, Any]
MOST = 1_000
"""Characters of a text from outside that people are shown."""
MOST_BESIDE = 3
_SPANS = {"minute": "a minute", "ten_minutes": "ten minutes", "hour": "an hour"}
_KINDS = {"api_key": "key", "client_ip": "address", "org": "organisation"}


@dataclass(frozen=True, slots=True)
class Cause:
    """A share of the money that an alert is about."""

    share_pct: int
    what: str
    """For example "gpt-5 input from 10.1.2.3"."""


@dataclass(frozen=True, slots=True)
class Call:
    """One of the dearest calls. `cost_nano`: nano-USD; `at_most`: its price is not known, it may cost so much."""

    at: datetime
    cost_nano: int
    model: str
    address: str
    request_id: str
    at_most: bool = False


@dataclass(frozen=True, slots=True)
class Causes:
    """What ClickHouse says about an alert. `usual_nano`: a mean hour of the week before, of those with calls."""

    top: tuple[Cause, ...] = ()
    usual_nano: int | None = None
    calls: tuple[Call, ...] = ()
    others: tuple[tuple[str, int | None], ...] = ()
    """Other keys from the addresses of this one, with what they spent there (nano-USD), None where nobody knows."""


def money(nano: int, currency: str = "USD") -> str:
    """Show money with two decimals, small amounts with as many as they need: 4.10 USD, 0.0032 USD."""
    return f"{used_text(nano)} {currency}"


def times(value: int, base: int) -> str:
    """Return value / base for people: 1.4, 12."""
    ratio = Decimal(value) / base
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:,.0f}"


def shown(text: object) -> str:
    """Return text that cannot begin a line of its own: names come from outside."""
    return one_line(text, MOST)


def whom(facts: Facts) -> str:
    """Name the scope of an alert: "key …3f2a of acme", "organisation acme"."""
    scope, name, org = (shown(facts.get(part, "")) for part in ("scope", "name", "org_id"))
    if scope == "org" or not name:
        return f"organisation {org}" if org else "this line"
    short = f"{_KINDS.get(scope, scope)} {_short(scope, str(facts['name']), name)}"
    return f"{short} of {org}" if org else short


def _short(scope: str, name: str, otherwise: str) -> str:
    return f"…{shown(name[-4:])}" if scope == "api_key" and len(name) > 8 else otherwise


def grounds(notice: Notice, standing: Standing, causes: Causes) -> Iterator[str]:
    """Yield what an incident rests on, line by line."""
    again = f", open for the {_ordinal(notice.turn)} time" if notice.turn > 1 else ""
    yield f"since: {_at(standing.since_s, '%Y-%m-%d %H:%M')} UTC{again}"
    if causes.usual_nano:
        yield f"usual: {money(causes.usual_nano)} in a mean hour with calls of the week before{_more(notice, causes)}"
    if standing.signals:
        spoke = (f"{shown(one.kind)} ({one.severity}, {_at(one.raised_s, '%H:%M')})" for one in standing.signals)
        yield f"signals: {', '.join(spoke)}"
    if causes.calls:
        yield "dearest calls:"
        yield from (f"  {_call(one)}" for one in causes.calls)
    if causes.others:
        keys = (f"key {_short('api_key', name, shown(name))} ({_known(cost)})" for name, cost in causes.others)
        yield f"from the same addresses: {', '.join(keys)}"
    if standing.beside:
        yield f"also open: {_beside(standing.beside)}"


def _more(notice: Notice, causes: Causes) -> str:
    """Say how much more than that an alert names; nothing where it names less, or no span of time that is known."""
    cost, usual, span = nano(notice), causes.usual_nano or 0, _SPANS.get(str(notice.facts.get("window")))
    return f", {times(cost, usual)} × that within {span} now" if span and cost >= usual > 0 else ""


def _known(cost: int | None) -> str:
    return "cost not known" if cost is None else money(cost)


def _call(call: Call) -> str:
    source = f" from {shown(call.address)}" if call.address else ""
    request = f", request {shown(call.request_id)}" if call.request_id else ""
    upto = "at most " if call.at_most else ""
    return f"{call.at:%H:%M:%S} {upto}{money(call.cost_nano)} {shown(call.model)}{source}{request}"


def _beside(scopes: Sequence[Scope]) -> str:
    named = [whom({"org_id": org, "scope": scope, "name": name}) for org, scope, name in scopes[:MOST_BESIDE]]
    more = len(scopes) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _at(seconds: float, form: str) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime(form)
    except (ValueError, OverflowError, OSError):  # a time that nobody can have meant
        return "?"


def _ordinal(number: int) -> str:
    ending = "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
