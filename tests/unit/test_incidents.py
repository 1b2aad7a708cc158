"""One incident per scope: opened once, told again when it grows, over when none of its rules says anything any more."""

import json
from typing import Any

import pytest

from tests.alert_events import alert, event, later
from tests.unit.test_notify_dispatcher import HOUR, T, deliver, new_dispatcher, take
from tollmeter.schemas.alert import Alert, Severity
from tollmeter.streams.notify.evidence import Call, Causes
from tollmeter.streams.notify.feedback import judged
from tollmeter.streams.notify.incident_list import incidents
from tollmeter.streams.notify.texts import opened

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


def test_what_was_told_to_be_over_is_told_when_it_is_back_and_keeps_its_id_for_six_hours() -> None:
    dispatcher = new_dispatcher(quiet="2h")
    first = take(dispatcher, alert(number=1), T)
    deliver(dispatcher, T)
    dispatcher.sweep(T + 2 * HOUR)
    assert deliver(dispatcher, T + 2 * HOUR) == [("a", first.id, "resolved")]
    back = take(dispatcher, alert("fan_out", number=2, at=later(8 * HOUR)), T + 8 * HOUR)
    assert (back.held, back.incident, back.turn, back.change) == ("", first.incident, 2, "reopened")
    assert take(dispatcher, alert(number=3, at=later(8 * HOUR)), T + 8 * HOUR).held == "incident"
    dispatcher.sweep(T + 10 * HOUR)
    new = take(dispatcher, alert(number=4, at=later(16 * HOUR + 1)), T + 16 * HOUR + 1)
    assert (new.turn, new.change, new.incident != first.incident) == (1, "opened", True)


def test_incidents_are_the_same_after_a_restart() -> None:
    dispatcher = new_dispatcher(quiet="2h")
    first = take(dispatcher, alert(number=1), T)
    deliver(dispatcher, T)
    dispatcher.sweep(T + 2 * HOUR)
    deliver(dispatcher, T + 2 * HOUR)
    again = new_dispatcher(quiet="2h")
    again.load(dispatcher.notices.values(), T + 3 * HOUR)
    made = alert(number=2, at=later(3 * HOUR))
    before, after = (take(one, made, T + 3 * HOUR) for one in (dispatcher, again))
    assert before == after
    assert (after.incident, after.turn, after.held) == (first.incident, 2, "")


@pytest.mark.parametrize(
    ("severity", "usd", "window", "held"),
    [
        pytest.param("warning", 59, "hour", "organisation", id="less than 60 % of it"),
        pytest.param("warning", 60, "hour", "", id="60 % of it"),
        pytest.param("critical", 1, "hour", "", id="graver than it"),
        pytest.param("warning", 1, "ten_minutes", "", id="money of another span says nothing"),
        pytest.param("warning", 0, "hour", "", id="no money named says nothing"),
    ],
)
def test_an_incident_of_the_organisation_stands_for_its_keys(
    severity: Severity, usd: int, window: str, held: str
) -> None:
    dispatcher = new_dispatcher()
    whole = take(
        dispatcher, alert("unusual_use", scope="org", name="", number=1, cost_nano=100 * USD, window="hour"), T
    )
    assert whole.held == ""
    key = alert(number=2, severity=severity, cost_nano=usd * USD, window=window)
    assert take(dispatcher, key, T + 60).held == held
    assert take(dispatcher, alert(number=3, org="other", cost_nano=USD, window="hour"), T + 60).held == ""


def test_what_is_expected_is_quiet_while_it_is_as_it_was() -> None:
    dispatcher = new_dispatcher(cooldown="1m", quiet="1h")
    first = take(dispatcher, alert(number=1, cost_nano=10 * USD), T)
    said = judged([first], "expected", T + 9 * HOUR, "ann", "the nightly batch", T + 60)
    (taken_care_of,) = dispatcher.judge(said)
    assert (taken_care_of.state, taken_care_of.acknowledged_by) == ("acknowledged", "ann")
    dispatcher.sweep(T + HOUR)

    def held(number: int, at_h: float, kind: str = "spend_spike", **facts: Any) -> str:
        at_s = at_h * HOUR
        return take(dispatcher, alert(kind, number=number, at=later(at_s), **facts), T + at_s).held

    assert held(2, 4, cost_nano=19 * USD) == "expected"
    assert held(3, 5, cost_nano=10 * USD, name="another") == ""
    assert held(4, 6, cost_nano=20 * USD) == "", "twice as dear"
    dispatcher.sweep(T + 7 * HOUR)
    assert held(5, 7, "fan_out", cost_nano=USD) == "", "another rule"
    dispatcher.sweep(T + 8 * HOUR)
    assert held(6, 8, severity="critical", cost_nano=USD) == "", "graver"
    dispatcher.sweep(T + 9 * HOUR)
    assert held(7, 9, cost_nano=10 * USD) == "", "the time is over"


def test_what_was_expected_of_an_hour_is_not_expected_of_a_minute() -> None:
    dispatcher = new_dispatcher(cooldown="1m", quiet="1h")
    seen = [alert(number=1, cost_nano=100 * USD, window="hour"), alert(number=2, cost_nano=2 * USD, window="minute")]
    said = judged([take(dispatcher, one, T) for one in seen], "expected", T + 99 * HOUR, "ann", "", T)
    assert said.cost_by_window == {"hour": 100 * USD, "minute": 2 * USD}
    expected = [
        said.expects(take(dispatcher, alert(number=n, cost_nano=usd * USD, window=window), T), T)
        for n, (usd, window) in enumerate(((199, "hour"), (3, "minute"), (4, "minute"), (3, "ten_minutes")), 10)
    ]
    assert expected == [True, True, False, False]
    old = said.model_copy(update={"cost_by_window": {}})
    assert old.expects(take(dispatcher, alert(number=20, cost_nano=199 * USD, window="minute"), T), T)


@pytest.mark.parametrize(
    ("key", "severity", "held"),
    [
        pytest.param({"key": "0123456789ab3f2a"}, "warning", "key", id="mostly of the key that people know of"),
        pytest.param({"key": "0123456789ab3f2a"}, "critical", "", id="graver than it"),
        pytest.param({"key": "another"}, "warning", "", id="of a key that nobody was told of"),
        pytest.param({}, "warning", "", id="of no single key"),
    ],
)
@pytest.mark.parametrize("scope", ["user", "client_ip", "org"])
def test_what_is_one_keys_matter_is_told_by_the_key_if_that_is_told(
    scope: str, key: dict[str, str], severity: Severity, held: str
) -> None:
    dispatcher = new_dispatcher(quiet="1h")
    its = take(dispatcher, alert("unusual_use", number=1, severity="warning"), T)
    assert its.held == ""
    other = alert("unusual_use", scope=scope, name="" if scope == "org" else "ann", number=2, severity=severity, **key)
    assert take(dispatcher, other, T + 1).held == held
    dispatcher.sweep(T + 9 * HOUR)
    later_on = alert("unusual_use", scope=scope, name="bob", number=3, at=later(9 * HOUR), **key)
    assert take(dispatcher, later_on, T + 9 * HOUR).held == "", "the key's incident is over"


def test_a_word_about_an_incident_says_what_it_was() -> None:
    dispatcher = new_dispatcher()
    first = take(dispatcher, alert("fan_out", number=1, cost_nano=3 * USD), T)
    second = take(dispatcher, alert(number=2, severity="critical", cost_nano=2 * USD, at=later(60)), T + 60)
    said = judged([second, first], "real", T + HOUR, "ann", "stolen", T + 90)
    assert (said.incident, said.kinds, said.severity) == (first.incident, ("fan_out", "spend_spike"), "critical")
    assert (said.cost_nano, said.since_s, said.last_s, said.until_s) == (3 * USD, T, T + 60, 0)
    assert not said.expects(second, T + 100)


def test_evidence_stands_in_the_text_in_plain_words() -> None:
    dispatcher = new_dispatcher(quiet="2h")
    take(dispatcher, alert("spend_spike", number=1, name="another-key-0001"), T)
    take(dispatcher, alert("fan_out", number=2, at=later(120), severity="info"), T + 120)
    money: dict[str, Any] = {"cost_nano": USD, "window": "ten_minutes"}
    third = alert("same_body", number=3, at=later(300), severity="critical", text="it grew", **money)
    grown = take(dispatcher, third, T + 300)
    calls = tuple(Call(later(240 + n), (5 - n) * USD, "gpt-5", "10.1.2.3", f"r-{n}") for n in range(2))
    causes = Causes((), 400_000_000, calls, (("other-key-abcdef", 2 * USD),))
    title, body = opened(grown, causes, dispatcher.standing(grown))
    assert title == "[critical] updated: it grew"
    assert body.split("\n") == [
        "it grew",
        "since: 2026-11-20 10:02 UTC",
        "usual: 0.40 USD in a mean hour with calls of the week before, 2.5 × that within ten minutes now",
        "signals: fan_out (info, 10:02), same_body (critical, 10:05)",
        "dearest calls:",
        "  10:04:00 5.00 USD gpt-5 from 10.1.2.3, request r-0",
        "  10:04:01 4.00 USD gpt-5 from 10.1.2.3, request r-1",
        "from the same addresses: key …cdef (2.00 USD)",
        "also open: key …0001 of acme",
        "next: tollmeter block key 0123456789ab3f2a --org acme",
        f"say what it was, real or expected: tollmeter anomalies feedback {grown.incident[:12]} real",
        f"alert {grown.id}; taken care of: tollmeter alerts ack {grown.id[:12]}",
    ]


def row(made: Alert, state: str = "open", **more: Any) -> dict[str, Any]:
    return {"event": json.dumps(event(made)), "state": state, "held": "", "incident": "", "turn": 1, "body": "", **more}


def test_the_list_groups_by_incident_dearest_first_and_names_what_agrees() -> None:
    def one(number: int, kind: str, name: str, usd: int, state: str = "open", **facts: Any) -> dict[str, Any]:
        return row(alert(kind, number=number, name=name, cost_nano=usd * USD, at=later(number), **facts), state)

    found = incidents(
        [
            one(1, "spend_spike", "k1", 2),
            one(2, "fan_out", "k1", 3, severity="critical", text="the worst"),
            one(3, "spend_spike", "k2", 9),
            one(4, "spend_spike", "k3", 50, "resolved"),
            one(5, "budget", "k1", 100),
            one(6, "ingest_loop", "k4", 0),
            {**row(alert()), "event": '{"data": null}'},
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


def test_the_list_has_the_text_that_people_got_and_keeps_incidents_of_one_key_apart() -> None:
    first, second, held = (alert(number=n, at=later(n), text="its own words") for n in range(3))
    rows = [
        row(first, "resolved", incident="i1", body="what people read\nsince: then"),
        row(second, "open", incident="i2", turn=2, body="again\nsince: now"),
        row(held, "open", incident="i2", turn=2, body="nobody read it", held="incident"),
    ]
    found = incidents(rows)
    assert [(i["id"], i["text"], i["evidence"], i["turns"], i["held"]) for i in found] == [
        ("i2", "again", ["since: now"], 2, 1),
        ("i1", "what people read", ["since: then"], 1, 0),
    ]


def test_an_incident_that_grew_behind_an_acknowledgement_is_open_and_what_a_key_tells_is_not_listed() -> None:
    first, second, user = (alert(number=n, at=later(n)) for n in range(3))
    taken = row(first, "acknowledged", incident="i1")
    its = row(user, "open", incident="i2", held="key")
    repeat = row(second, "open", incident="i1", held="incident")
    assert [(i["id"], i["state"]) for i in incidents([taken, repeat, its])] == [("i1", "acknowledged")]
    grown = row(second, "open", incident="i1")
    assert [(i["id"], i["state"]) for i in incidents([taken, grown, its])] == [("i1", "open")]
