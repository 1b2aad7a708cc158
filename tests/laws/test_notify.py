"""Whatever order alerts, replays, refusals, kills and restarts come in: each is told once, singly or in one digest.

The oracle knows nothing of desks: it is the set of distinct alerts, and what the receivers wrote down.
"""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.alert_events import AT, alert, budget, event
from tests.effort import examples
from tollmeter.schemas.alert import Alert
from tollmeter.schemas.policy import Policy
from tollmeter.streams.notify import texts
from tollmeter.streams.notify.causes import span
from tollmeter.streams.notify.dispatcher import Dispatcher
from tollmeter.streams.notify.evidence import Causes
from tollmeter.streams.notify.notice import Notice
from tollmeter.streams.notify.outcome import Outcome
from tollmeter.streams.notify.routes import Routes
from tollmeter.streams.notify.self_alerts import digest_notice
from tollmeter.streams.notify.stage import readable

T = AT.timestamp()
PCTS = (20, 50, 80, 100)


class KilledError(Exception):
    """The process ends here."""


class Line:
    """Notify without its shell: a log with a committed offset, a journal, receivers that write down what they take."""

    def __init__(self, log: list[dict[str, Any]], **limits: Any) -> None:
        self.routes = Routes.model_validate(
            {
                "consumers": {"a": {"type": "log"}, "b": {"type": "log"}},
                "routes": [{"to": "a"}, {"match": {"severity": "critical"}, "to": "b"}],
                "limits": limits,
            }
        )
        self.log, self.committed, self.now = log, 0, T
        self.journal: dict[str, Notice] = {}
        self.accepted: list[tuple[str, str]] = []
        self.repeats = 0
        self.start()

    def start(self) -> None:
        self.dispatcher = Dispatcher(self.routes, old_s=48 * 3_600)
        self.dispatcher.load(self.journal.values(), self.now)

    def keep(self, notices: Iterable[Notice]) -> None:
        self.journal.update({notice.id: notice for notice in notices})

    def take(self, kill: int) -> None:
        if self.committed >= len(self.log):
            return
        notice = self.dispatcher.take(self.log[self.committed], self.now)
        if kill == 1:
            raise KilledError
        if notice is not None:
            self.keep([notice])
            if kill == 2:
                raise KilledError
            self.dispatcher.add(notice)
        self.committed += 1

    def deliver(self, outcome: Outcome, kill: int) -> None:
        for consumer, notice, delivery in self.dispatcher.due(self.now):
            if kill == 1:
                raise KilledError
            if not outcome.error:
                self.accepted.append((consumer, notice.id + delivery.about))
            if kill == 2:
                self.repeats += not outcome.error
                raise KilledError
            self.keep([self.dispatcher.settle(notice.id, delivery, outcome, self.now)])

    def sweep(self, kill: int) -> None:
        self.keep(self.dispatcher.sweep(self.now))
        for consumer, members in list(self.dispatcher.digests(self.now)):
            made = digest_notice(consumer, members, self.now)
            self.keep([made])
            if kill:
                raise KilledError
            self.dispatcher.add(made)
            self.keep(self.dispatcher.digested(consumer, members))

    def act(self, step: tuple[str, int]) -> None:
        name, number = step
        try:
            if name == "take":
                self.take(number)
            elif name == "deliver":
                self.deliver(Outcome(), number)
            elif name == "fail":
                self.deliver(Outcome("no", away=number % 2 == 0), 0)
            elif name == "sweep":
                self.sweep(number)
            elif name == "wait":
                self.now += (1, 30, 300, 700)[number]
        except KilledError:
            self.start()

    def finish(self) -> None:
        """The faults are over: everything comes to rest within a day."""
        while self.committed < len(self.log):
            self.take(0)
        for _ in range(10):
            self.now += 700
            self.sweep(0)
            while self.dispatcher.due(self.now):
                self.deliver(Outcome(), 0)


ACTS = ("take", "take", "take", "deliver", "deliver", "fail", "sweep", "wait")
STEPS = st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 3)), max_size=60)


def wanted(log: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Who is to hear of what: independent of the code above and below."""
    return {
        (consumer, entry["id"])
        for entry in log
        for consumer in (("a", "b") if entry["data"]["severity"] == "critical" else ("a",))
    }


@st.composite
def budgets(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Thresholds of two limits of a day, in any order, each any number of times: replays of WATCH."""
    every = [event(budget(pct, limit_micro=limit)) for limit in (10_000_000, 20_000_000) for pct in PCTS]
    return [every[number] for number in draw(st.lists(st.integers(0, len(every) - 1), max_size=25))]


@settings(max_examples=examples(120), deadline=None)
@given(budgets(), STEPS)
def test_each_threshold_is_told_once_per_limit_and_period(
    log: list[dict[str, Any]], steps: list[tuple[str, int]]
) -> None:
    line = Line(log, storm_per_minute=999, per_hour=999, per_scope_per_hour=999)
    for step in steps:
        line.act(step)
    line.finish()
    got = Counter((consumer, key.removesuffix("opened")) for consumer, key in line.accepted if key.endswith("opened"))
    assert set(got) == wanted(log)
    assert sum(got.values()) - len(got) <= line.repeats, "a repeat needs a kill between the answer and its record"
    assert not [key for _, key in line.accepted if key.endswith("resolved")]


@settings(max_examples=examples(120), deadline=None)
@given(st.lists(st.integers(0, 40), max_size=60), STEPS)
def test_in_a_storm_each_alert_is_told_once_singly_or_in_one_digest(
    numbers: list[int], steps: list[tuple[str, int]]
) -> None:
    def made(number: int) -> Alert:
        return alert(name=f"key-{number}", severity="critical" if number % 3 == 0 else "warning")

    log = [event(made(number)) for number in numbers]
    line = Line(log, storm_per_minute=8, per_hour=12, per_scope_per_hour=3, digest="2m", quiet="2d")
    for step in steps:
        line.act(step)
    line.finish()
    told: Counter[tuple[str, str]] = Counter()
    for consumer, key in set(line.accepted):
        notice = line.journal[key.removesuffix("opened")]
        told.update((consumer, member) for member in notice.covers or [notice.id])
    assert set(told) == wanted(log)
    assert set(told.values()) <= {1}


POLICY_ID = "acme/user/ann/pool/USD"
LIMITS = (None, 10_000_000, 20_000_000)
TURNS = st.lists(st.tuples(st.sampled_from(("policy", "take", "deliver", "restart")), st.integers(0, 2)), max_size=30)


@settings(max_examples=examples(200), deadline=None)
@given(TURNS)
def test_a_crossed_limit_is_open_whenever_it_is_in_force_and_each_opening_is_told_once(
    turns: list[tuple[str, int]],
) -> None:
    """The oracle counts how often the limit came into force with its step crossed, as notify saw it."""
    line = Line([event(budget(100))] * 20, storm_per_minute=999, per_hour=999, per_scope_per_hour=999)
    limit: int | None = LIMITS[1]
    openings, live = 0, False
    for name, number in [*turns, ("take", 0), ("policy", 1)]:
        line.now += 1
        if name == "policy":
            limit = LIMITS[number]
        if name == "take" and not line.dispatcher.notices:
            openings, live = 1, True
        if name == "restart":
            line.start()
        if name in ("policy", "restart"):
            policy = limit and Policy(org_id="acme", scope="user", name="ann", daily_limit_micro=limit)
            changes = {POLICY_ID: policy or None}
            if number == 2:  # the process ends before what it found is durable, and the next one finds it again
                line.dispatcher.policies(changes, line.now)
                line.start()
            line.keep(line.dispatcher.policies(changes, line.now))
            openings += bool(openings and not live and limit == LIMITS[1])
            live = bool(openings) and limit == LIMITS[1]
        line.act((name, 0) if name in ("take", "deliver") else ("none", 0))
        states = [notice.state for notice in line.dispatcher.notices.values()]
        assert (states.count("open"), len(states)) == (int(live), openings)
    line.finish()
    told = Counter(key.removesuffix("opened") for who, key in line.accepted if who == "a" and key.endswith("opened"))
    assert told == Counter(line.journal.keys())


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FACTS = (
    "kind",
    "severity",
    "org_id",
    "scope",
    "name",
    "period",
    "text",
    "window",
    "timezone",
    "ends_s",
    "policy_id",
    "threshold_pct",
    "limit_nano",
    "spent_nano",
    "unit",
    "currency",
    "cost_nano",
    "past_peak_nano",
    "input_tokens",
)
WORDS = st.sampled_from(
    ["budget", "remaining", "late_spend", "spend_spike", "ingest_loop", "unpriced", "day", "month", "USD"]
)
DATA = st.dictionaries(st.sampled_from(FACTS), WORDS | ANYTHING, max_size=12)
TIMES = st.sampled_from(["2026-11-20T10:00:00Z", "0001-01-01", "9999-12-31T23:59:59Z", "never", None, 7])


@settings(max_examples=examples(400), deadline=None)
@given(
    st.dictionaries(st.sampled_from(["id", "data", "time"]), ANYTHING)
    | st.fixed_dictionaries({"id": st.just("x"), "data": DATA, "time": TIMES})
)
def test_no_alert_ends_notify(anything: dict[str, Any]) -> None:
    """Whoever may write to the topic can send anything: it is refused with a `ValueError`, or told in some words."""
    line = Line([], quiet="2h")
    value = json.dumps(anything).encode(errors="replace")
    try:
        taken = line.dispatcher.take(readable(value), T)
    except ValueError:
        return
    assert taken is not None
    span(taken)
    title, body = texts.opened(taken, Causes())
    line.dispatcher.add(taken.model_copy(update={"title": title, "body": body}))
    line.dispatcher.policies({str(taken.facts.get("policy_id")): None}, T)
    for step in range(3):
        line.now += step * 32 * 86_400
        line.sweep(0)
        line.deliver(Outcome(), 0)
    assert "\n" not in title
    assert all(Notice.model_validate_json(notice.model_dump_json()) for notice in line.dispatcher.notices.values())


def test_hostile_sizes_are_refused() -> None:
    for value in (
        None,
        b"",
        b"[" * 100_000,
        b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
        b'"x"',
        b"\xff",
        b'{"id":"' + b"x" * 300_000,
    ):
        try:
            readable(value)
        except ValueError:
            continue
        raise AssertionError(f"taken: {value!r:.40}")
