"""The desk, with time as an argument: who is told of what and when, what is held back and why, when it is over."""

from dataclasses import replace
from typing import Any

import pytest

from tests.alert_events import AT, alert, budget, event, later
from tollmeter.schemas.alert import Alert
from tollmeter.schemas.policy import Limit, Policy
from tollmeter.streams.notify.dispatcher import REMEMBER_S, Desk, Outcome
from tollmeter.streams.notify.notice import Acknowledgement, Mute, Notice
from tollmeter.streams.notify.routes import Routes
from tollmeter.streams.notify.self_alerts import digest_notice, storm_alert

T = AT.timestamp()
HOUR = 3_600.0


def routes(**limits: Any) -> Routes:
    return Routes.model_validate(
        {
            "consumers": {"a": {"type": "log"}, "b": {"type": "log"}},
            "routes": [{"to": "a"}, {"match": {"severity": "critical"}, "to": ["b", "a"]}],
            "limits": {"storm_per_minute": 1_000, "per_hour": 1_000, "per_scope_per_hour": 1_000, **limits},
        }
    )


def new_desk(**limits: Any) -> Desk:
    return Desk(routes(**limits), old_s=48 * HOUR)


def take(desk: Desk, made: Alert, now_s: float = T) -> Notice:
    """Take an alert that is new, and have it told."""
    notice = desk.take(event(made), now_s)
    assert notice is not None
    return desk.add(notice)


def deliver(desk: Desk, now_s: float) -> list[tuple[str, str, str]]:
    """Deliver everything that is due; return consumer, alert and whether it opened or resolved."""
    sent = []
    while due := desk.due(now_s):
        for consumer, notice, delivery in due:
            desk.settle(notice.id, delivery, Outcome(), now_s)
            sent.append((consumer, notice.id, delivery.about))
    return sent


def test_an_alert_is_taken_once_and_told_to_those_whom_its_routes_name() -> None:
    desk = new_desk()
    warning, critical = alert(number=1, name="k1"), alert(number=2, name="k2", severity="critical")
    take(desk, warning)
    take(desk, critical)
    assert desk.take(event(warning), T + 1) is None
    expected = [("a", warning.id, "opened"), ("b", critical.id, "opened"), ("a", critical.id, "opened")]
    assert sorted(deliver(desk, T)) == sorted(expected)
    assert deliver(desk, T + 60) == []
    assert [n.state for n in desk.notices.values()] == ["open", "open"]


@pytest.mark.parametrize("broken", [{}, {"id": "x"}, {"id": "", "data": {}}, {"id": 5, "data": {}}, {"data": {}}])
def test_what_is_no_alert_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no alert"):
        new_desk().take(broken, T)


def test_an_alert_of_unknown_severity_is_taken_for_critical() -> None:
    desk = new_desk()
    odd = event(alert()) | {"data": event(alert())["data"] | {"severity": "apocalyptic"}}
    notice = desk.take(odd, T)
    assert notice is not None
    assert [d.consumer for d in notice.deliveries] == ["a", "b"]


def test_a_restart_goes_on_where_the_journal_ends() -> None:
    desk = new_desk()
    first, second = take(desk, alert(number=1, name="k1")), take(desk, alert(number=2, name="k2"))
    _, notice, delivery = desk.due(T)[0]
    desk.settle(notice.id, delivery, Outcome(), T)
    again = new_desk()
    again.load(desk.notices.values(), T + 5)
    assert again.take(event(alert(number=1, name="k1")), T + 5) is None
    assert deliver(again, T + 5) == [("a", second.id, "opened")]
    assert first.id != second.id


def test_every_step_of_a_budget_is_told_although_they_come_at_once() -> None:
    desk = new_desk()
    for pct in (20, 50, 80, 100):
        take(desk, budget(pct))
    assert [sent[1] for sent in deliver(desk, T) if sent[0] == "a"] == [budget(p).id for p in (20, 50, 80, 100)]


def test_an_anomaly_is_told_again_after_the_cooldown_or_when_it_is_worse() -> None:
    desk = new_desk(cooldown="6h")
    take(desk, alert(number=1))
    assert take(desk, alert(number=2, at=later(HOUR)), T + HOUR).held == "repeat"
    assert take(desk, alert(number=3, severity="critical", at=later(2 * HOUR)), T + 2 * HOUR).held == ""
    assert take(desk, alert(number=4, at=later(7 * HOUR)), T + 7 * HOUR).held == "repeat", "the worse one was told then"
    assert take(desk, alert(number=5, at=later(9 * HOUR)), T + 9 * HOUR).held == ""
    assert take(desk, alert(number=1, name="another", at=later(1)), T + 9 * HOUR).held == "", "of another key"


def test_an_acknowledged_anomaly_stays_quiet_until_it_is_over() -> None:
    desk = new_desk(cooldown="1h", quiet="3h")
    first = take(desk, alert(number=1))
    said = Acknowledgement(by="ann", at_s=T)
    acknowledged = desk.acknowledge(first.id, said)
    assert acknowledged is not None
    assert (acknowledged.state, acknowledged.acknowledged_by) == ("acknowledged", "ann")
    assert desk.acknowledge(first.id, said) is None
    assert desk.acknowledge("unknown", said) is None
    assert take(desk, alert(number=2, at=later(2 * HOUR)), T + 2 * HOUR).held == "repeat"
    over = desk.sweep(T + 5 * HOUR)
    assert {notice.state for notice in over} == {"resolved"}
    assert take(desk, alert(number=3, at=later(6 * HOUR)), T + 6 * HOUR).held == ""


def test_an_anomaly_is_over_after_quiet_and_those_who_were_told_hear_of_it() -> None:
    desk = new_desk(quiet="2h")
    first = take(desk, alert(number=1))
    deliver(desk, T)
    take(desk, alert(number=2, at=later(HOUR)), T + HOUR)
    assert desk.sweep(T + 2.9 * HOUR) == [], "seen again an hour later"
    assert {notice.resolution for notice in desk.sweep(T + 3 * HOUR)} == {"not seen any more"}
    assert deliver(desk, T + 3 * HOUR) == [("a", first.id, "resolved")]
    assert desk.sweep(T + 9 * HOUR) == []


def test_what_is_over_is_known_when_it_is_replayed() -> None:
    desk = new_desk(quiet="2h")
    first = take(desk, alert())
    deliver(desk, T)
    desk.sweep(T + 2 * HOUR)
    assert desk.take(event(alert()), T + 20 * 24 * HOUR) is None
    assert desk.notices[first.id].state == "resolved"


def test_a_consumer_that_was_away_hears_of_the_beginning_before_the_end() -> None:
    desk = new_desk(quiet="2h")
    made = take(desk, alert())
    ((_, _, delivery),) = desk.due(T)
    desk.settle(made.id, delivery, Outcome("it answered 500", away=True), T)
    desk.sweep(T + 2 * HOUR)
    assert deliver(desk, T + 2 * HOUR) == [("a", made.id, "opened"), ("a", made.id, "resolved")]


def test_what_happened_once_closes_without_a_word() -> None:
    desk = new_desk(quiet="2h")
    take(desk, alert("cap_refused"))
    deliver(desk, T)
    assert [notice.state for notice in desk.sweep(T + 2 * HOUR)] == ["resolved"]
    assert deliver(desk, T + 2 * HOUR) == []


@pytest.mark.parametrize(
    ("made", "end"),
    [
        (budget(50), 14 * HOUR),  # the day ends at midnight UTC
        (budget(50, timezone="Asia/Kolkata"), 8.5 * HOUR),
        (budget(50, window="month"), (10 * 24 + 14) * HOUR),
        (budget(50, window="rolling24h"), 24 * HOUR),
        (budget(50, ends_s=int(T + 77)), 77),
    ],
    ids=["day", "day of a zone", "month", "rolling", "said"],
)
def test_a_budget_alert_ends_with_its_period_without_a_word(made: Alert, end: float) -> None:
    desk = new_desk()
    take(desk, made)
    deliver(desk, T)
    assert desk.sweep(T + end - 1) == []
    assert [notice.resolution for notice in desk.sweep(T + end)] == ["its period is over"]
    assert deliver(desk, T + end) == []


def test_a_day_received_just_behind_midnight_is_over_at_once() -> None:
    desk = new_desk()
    made = budget(50)
    late = replace(made, received_at=later(14 * HOUR + 5))
    take(desk, late, T + 14 * HOUR + 5)
    assert len(desk.sweep(T + 14 * HOUR + 5)) == 1


def policy(**limits: Any) -> Policy:
    return Policy(org_id="acme", scope="user", name="ann", **limits)


def test_a_raised_limit_closes_its_alerts_with_one_word_and_the_new_ones_count_anew() -> None:
    desk = new_desk()
    for pct in (20, 50, 80):
        take(desk, budget(pct))
    deliver(desk, T)
    assert desk.policies({budget(20).facts["policy_id"]: policy(daily_limit_micro=10_000_000)}, T) == [], "as it was"
    changed = {budget(20).facts["policy_id"]: policy(daily_limit_micro=20_000_000)}
    assert {notice.resolution for notice in desk.policies(changed, T)} == {"the limit was changed"}
    assert deliver(desk, T) == [("a", budget(80).id, "resolved")]
    new = [take(desk, budget(pct, limit_micro=20_000_000)) for pct in (50, 80)]
    assert desk.policies(changed, T) == [], "alerts of the limit in force stay"
    assert deliver(desk, T) == [("a", notice.id, "opened") for notice in new]


@pytest.mark.parametrize(
    ("changed", "said"),
    [(None, "the policy is gone"), (policy(monthly_limit_micro=10_000_000), "there is no limit day/money any more")],
)
def test_a_limit_that_is_gone_closes_its_alerts(changed: Policy | None, said: str) -> None:
    desk = new_desk()
    take(desk, budget(50))
    assert [notice.resolution for notice in desk.policies({"acme/user/ann/pool/USD": changed}, T)] == [said]


def test_limits_of_tokens_beside_those_of_money() -> None:
    desk = new_desk()
    facts = {"policy_id": "p", "window": "day", "unit": "tokens", "limit_tokens": 500, "threshold_pct": 50}
    take(desk, alert("budget", scope="user", name="ann", **facts))
    limits = [Limit(period="day", measure="tokens", amount=amount) for amount in (500, 600)]
    assert desk.policies({"p": policy(daily_limit_micro=5, limits=(limits[0],))}, T) == []
    (over,) = desk.policies({"p": policy(daily_limit_micro=5, limits=(limits[1],))}, T)
    assert over.resolution == "the limit was changed"


@pytest.mark.parametrize(
    ("mute", "held"),
    [
        (Mute(kind="spend_spike", until_s=T + 60), "muted"),
        (Mute(org="acme", scope="api_key", until_s=T + 60), "muted"),
        (Mute(name="0123456789ab3f2a", until_s=T + 60), "muted"),
        (Mute(kind="spend_spike", org="umbra", until_s=T + 60), ""),
        (Mute(kind="budget", until_s=T + 60), ""),
        (Mute(kind="spend_spike", until_s=T), ""),
    ],
)
def test_mutes(mute: Mute, held: str) -> None:
    desk = new_desk()
    desk.mutes[mute.id] = mute
    assert take(desk, alert()).held == held
    assert bool(deliver(desk, T)) == (not held)


def test_an_alert_that_nobody_is_routed_to_is_kept() -> None:
    only = Routes.model_validate(
        {"consumers": {"a": {"type": "log"}}, "routes": [{"match": {"kind": "budget"}, "to": "a"}]}
    )
    desk = Desk(only, old_s=48 * HOUR)
    assert take(desk, alert()).held == "no route"
    assert take(desk, budget(20)).held == ""


def test_above_the_caps_alerts_come_as_one_digest() -> None:
    desk = new_desk(per_scope_per_hour=2, per_hour=4, digest="10m")
    first = [take(desk, alert(f"kind{n}", name="k1")).held for n in range(3)]
    others = [take(desk, alert(name=f"other{n}")).held for n in range(3)]
    assert (first, others) == (["", "", "cap"], ["", "", "cap"])
    assert take(desk, alert(name="later"), T + HOUR).held == ""
    assert list(desk.digests(T + 599)) == []
    ((consumer, members),) = desk.digests(T + 600)
    assert (consumer, len(members)) == ("a", 2)
    made = desk.add(digest_notice(consumer, members, T + 600))
    desk.digested(consumer, members)
    assert list(desk.digests(T + 9_999)) == []
    assert made.covers == tuple(member.id for member in members)
    assert (consumer, made.id, "opened") in deliver(desk, T + 600)


def test_a_digest_whose_members_were_not_recorded_any_more_is_not_made_twice() -> None:
    desk = new_desk(per_hour=1, digest="10m")
    for number in range(3):
        take(desk, alert(name=f"k{number}"))
    ((consumer, members),) = desk.digests(T + 600)
    desk.add(digest_notice(consumer, members, T + 600))  # and killed here
    again = new_desk(per_hour=1, digest="10m")
    again.load(desk.notices.values(), T + 700)
    assert list(again.digests(T + 9_999)) == []


def test_a_storm_is_announced_once_and_ends() -> None:
    desk = new_desk(storm_per_minute=20)
    held = [take(desk, alert(name=f"k{n}"), T + n / 10).held for n in range(30)]
    assert held == [""] * 21 + ["storm"] * 9
    assert desk.storm
    announced = take(desk, storm_alert(AT, 20), T + 3)
    assert announced.held == ""
    assert storm_alert(later(900), 20).id == storm_alert(AT, 20).id != storm_alert(later(HOUR), 20).id
    assert desk.take(event(storm_alert(later(5), 20)), T + 5) is None
    assert take(desk, alert(name="calm"), T + 70).held == ""
    assert not desk.storm


def test_old_alerts_are_told_in_one_digest() -> None:
    desk = new_desk(digest="10m")
    held = [take(desk, alert(name=f"k{n}"), T + 49 * HOUR).held for n in range(3)]
    assert held == ["old"] * 3
    assert deliver(desk, T + 49 * HOUR) == []
    ((_, members),) = desk.digests(T + 50 * HOUR)
    assert len(members) == 3


def test_a_consumer_that_is_away_is_tried_with_growing_pauses_and_loses_nothing() -> None:
    """A consumer answers 500 for an hour: few attempts, one at a time, then everything in order."""
    desk = new_desk()
    ids = [take(desk, alert(name=f"k{n}"), T + n).id for n in range(5)]
    attempts, now = 0, T + 5
    while now < T + HOUR:
        for _, notice, delivery in desk.due(now):
            desk.settle(notice.id, delivery, Outcome("it answered 500", away=True), now)
            attempts += 1
        now += 0.5
    assert 15 <= attempts <= 22, "1, 2, 4 ... 300 s"
    sent = deliver(desk, T + HOUR + 300)
    assert [notice_id for _, notice_id, _ in sent] == ids


def test_a_message_that_is_refused_does_not_hold_up_the_others() -> None:
    desk = new_desk()
    bad, good = take(desk, alert(name="bad")), take(desk, alert(name="good"))
    ((_, notice, delivery),) = desk.due(T)
    assert notice.id == bad.id
    desk.settle(bad.id, delivery, Outcome("it answered 422"), T)
    assert deliver(desk, T) == [("a", good.id, "opened")]
    assert deliver(desk, T + 1) == [("a", bad.id, "opened")]


def test_after_48_hours_a_message_is_given_up() -> None:
    desk = new_desk()
    made = take(desk, alert())
    ((_, _, delivery),) = desk.due(T)
    kept = desk.settle(made.id, delivery, Outcome("away", away=True), T + 48 * HOUR - 1)
    assert [d.status for d in kept.deliveries] == ["pending"]
    given_up = desk.settle(made.id, kept.deliveries[0], Outcome("away", away=True), T + 48 * HOUR)
    assert [(d.status, d.attempts, d.error) for d in given_up.deliveries] == [("failed", 2, "away")]
    assert desk.due(T + 99 * HOUR) == []


def test_a_consumer_that_is_gone_from_the_file_is_named() -> None:
    desk = new_desk()
    take(desk, alert(severity="critical"))
    fewer = Routes.model_validate({"consumers": {"b": {"type": "log"}}, "routes": [{"to": "b"}]})
    again = Desk(fewer, old_s=48 * HOUR)
    again.load(desk.notices.values(), T)
    (changed,) = again.orphans()
    assert {(d.consumer, d.status) for d in changed.deliveries} == {("a", "failed"), ("b", "pending")}
    assert again.orphans() == []


def test_what_is_over_is_forgotten_after_the_topic_has_forgotten_it() -> None:
    desk = new_desk(quiet="2h")
    take(desk, alert("cap_refused"))
    desk.sweep(T + 2 * HOUR)
    assert desk.forget(T + 2 * HOUR + REMEMBER_S) == []
    assert desk.forget(T + 2 * HOUR + REMEMBER_S + 1) == [alert("cap_refused").id]
    assert desk.notices == {}
