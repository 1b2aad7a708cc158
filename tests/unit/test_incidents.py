"""One incident per scope: opened once, told again when it grows, over when none of its rules says anything any more."""

from typing import Any

import pytest

from tests.alert_events import alert, event, later
from tests.unit.test_notify_dispatcher import HOUR, T, deliver, new_dispatcher, take
from tollmeter.streams.notify.incidents import incidents

USD = 10**9


def test_what_other_rules_say_of_the_same_key_is_the_same_incident() -> None:
    dispatcher = new_dispatcher()
    kinds = ("spend_spike", "fan_out", "same_body", "new_network", "dominance")
    taken = [take(dispatcher, alert(kind, number=n, at=later(n)), T + n) for n, kind in enumerate(kinds)]
    assert [notice.held for notice in taken] == ["", *["incident"] * 4]
    assert deliver(dispatcher, T + 9) == [("a", taken[0].id, "opened")]
    assert take(dispatcher, alert("fan_out", number=9, name="another"), T + 9).held == ""
    assert take(dispatcher, alert("unpriced", number=10), T + 9).held == ""


def test_a_graver_rule_is_told_and_the_end_once() -> None:
    dispatcher = new_dispatcher(quiet="3h")
    first = take(dispatcher, alert("new_model", number=1, severity="info"), T)
    grave = take(dispatcher, alert("new_model", number=2, severity="critical", at=later(60)), T + 60)
    last = take(dispatcher, alert("spend_spike", number=3, at=later(2 * HOUR)), T + 2 * HOUR)
    assert (first.held, grave.held, last.held) == ("", "", "incident")
    deliver(dispatcher, T + 2 * HOUR)
    assert dispatcher.sweep(T + 4 * HOUR) == []  # each was seen longer ago, but the key was not quiet
    assert {notice.state for notice in dispatcher.sweep(T + 5 * HOUR)} == {"resolved"}
    told = deliver(dispatcher, T + 5 * HOUR)
    assert {about for *_, about in told} == {"resolved"}
    assert len({notice_id for _, notice_id, _ in told}) == 1


@pytest.mark.parametrize(
    ("cost", "minutes", "held"),
    [(2 * USD, 14, "incident"), (2 * USD, 15, ""), (2 * USD - 1, 15, "incident")],
)
def test_it_is_told_again_when_it_is_twice_as_dear(cost: int, minutes: int, held: str) -> None:
    dispatcher = new_dispatcher()
    take(dispatcher, alert("spend_spike", number=1, cost_nano=USD), T)
    at = 60 * minutes
    assert take(dispatcher, alert("same_body", number=2, at=later(at), cost_nano=cost), T + at).held == held


def test_the_list_groups_by_scope_dearest_first_and_names_what_agrees() -> None:
    def one(
        number: int, kind: str, name: str, usd: int, state: str = "open", **facts: Any
    ) -> tuple[dict[str, Any], str]:
        return event(alert(kind, number=number, name=name, cost_nano=usd * USD, at=later(number), **facts)), state

    found = incidents(
        [
            one(1, "spend_spike", "k1", 2),
            one(2, "fan_out", "k1", 3, severity="critical", text="the worst"),
            one(3, "spend_spike", "k2", 9),
            one(4, "spend_spike", "k3", 50, "resolved"),
            one(5, "budget", "k1", 100),
            one(6, "ingest_loop", "k4", 0),
            ({"data": None}, "open"),
        ]
    )
    assert [(i["name"], i["state"], i["cost_nano"] and i["cost_nano"] // USD) for i in found] == [
        ("k2", "open", 9),
        ("k1", "open", 3),
        ("k4", "open", None),
        ("k3", "resolved", 50),
    ]
    assert found[1]["kinds"] == ["fan_out", "spend_spike"]
    assert (found[1]["severity"], found[1]["text"], len(found[1]["alerts"])) == ("critical", "the worst", 2)
    assert found[1]["since"] < found[1]["last"]
