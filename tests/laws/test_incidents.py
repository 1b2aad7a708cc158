"""Whatever order alerts, kills and restarts come in: each incident is told when it begins, and its end once.

The oracle reads the journal alone: when each alert came and was over decides what belongs together.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.alert_events import AT, alert, event, later
from tests.effort import examples
from tests.laws.test_notify import STEPS, Line
from tollmeter.streams.notify.notice import Notice

T = AT.timestamp()
SIX_HOURS = 6 * 3_600
KINDS = ("spend_spike", "fan_out", "same_body")
GRAVITY = ("info", "warning", "critical")
ALERT = [("take", 0), ("deliver", 0)]
QUIET = [[*[("wait", 3)] * times, ("sweep", 0), ("deliver", 0)] for times in (4, 11, 32)]
"""Almost an hour, more than two and more than six: below and above when an incident is over, and over for good."""
LONG = st.lists(st.sampled_from([ALERT, ALERT, ALERT, *QUIET]) | STEPS.map(lambda steps: steps[:6]), max_size=14).map(
    lambda parts: [step for part in parts for step in part]
)


@st.composite
def logs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Anomalies of two keys and the organisation, each perhaps twice: replays of WATCH."""
    made = [
        event(
            alert(
                draw(st.sampled_from(KINDS)),
                number=number,
                name=draw(st.sampled_from(("k1", "k2"))),
                severity=draw(st.sampled_from(GRAVITY)),  # type: ignore[arg-type]
                cost_nano=draw(st.integers(0, 9)) * 10**9,
                window="hour",
                at=later(number),
            )
        )
        for number in range(draw(st.integers(1, 12)))
    ]
    return [made[at] for at in draw(st.lists(st.integers(0, len(made) - 1), min_size=1, max_size=20))]


def turns(notices: Iterable[Notice]) -> list[list[Notice]]:
    """Return what belongs together: what began while something of the scope was open."""
    found: list[list[Notice]] = []
    for one in sorted(notices, key=lambda notice: (notice.opened_s, notice.turn)):
        last = found[-1] if found else []
        until = max((float(member.resolved_s or 0) for member in last), default=-1.0)
        if last and (one.opened_s < until or (one.turn == last[-1].turn and one.incident == last[-1].incident)):
            last.append(one)
        else:
            found.append([one])
    return found


@settings(max_examples=examples(150), deadline=None)
@given(logs(), LONG)
def test_each_incident_is_told_when_it_begins_and_its_end_once(
    log: list[dict[str, Any]], steps: list[tuple[str, int]]
) -> None:
    line = Line(log, storm_per_minute=999, per_hour=999, per_scope_per_hour=999, quiet="2h")
    for step in steps:
        line.act(step)
    line.finish()
    line.now += 3 * 3_600
    line.sweep(0)
    line.finish()
    told = {key for _, key in line.accepted}
    ends = Counter(key for who, key in set(line.accepted) if key.endswith("resolved") and who == "a")
    for name in ("k1", "k2"):
        own = [notice for notice in line.journal.values() if notice.scope[2] == name]
        parts = turns(own)
        for part in parts:
            assert len({(one.incident, one.turn) for one in part}) == 1, "one turn of one incident"
            assert any(f"{one.id}opened" in told for one in part), "whoever is to know, knows"
            assert sum(ends[f"{one.id}resolved"] for one in part) == 1, "its end is told once"
        for before, after in pairwise(parts):
            pause = min(one.opened_s for one in after) - max(float(one.resolved_s or 0) for one in before)
            again = (after[0].incident, after[0].turn) == (before[0].incident, before[0].turn + 1)
            assert again == (pause <= SIX_HOURS), "the same incident again, within six hours"
            assert again or (after[0].turn, after[0].incident != before[0].incident) == (1, True)


@settings(max_examples=examples(80), deadline=None)
@given(logs(), LONG, STEPS)
def test_a_replay_of_the_log_changes_nothing(
    log: list[dict[str, Any]], steps: list[tuple[str, int]], more: list[tuple[str, int]]
) -> None:
    line = Line(log, storm_per_minute=999, per_hour=999, per_scope_per_hour=999, quiet="2h")
    for step in steps:
        line.act(step)
    line.finish()
    before = {notice.id: (notice.incident, notice.turn, notice.held) for notice in line.journal.values()}
    told = Counter(line.accepted)
    line.committed = 0
    line.start()
    for step in more:
        line.act(step)
    line.finish()
    assert {notice.id: (notice.incident, notice.turn, notice.held) for notice in line.journal.values()} == before
    repeated = Counter({key: count for key, count in Counter(line.accepted).items() if key[1].endswith("opened")})
    assert sum((repeated - told).values()) <= line.repeats
