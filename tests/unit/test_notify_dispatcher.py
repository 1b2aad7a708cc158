"""The dispatcher with time as an argument: who is told of what and when, what is held back and why, when it is over."""

from dataclasses import replace
from typing import Any

import pytest

from tests.alert_events import AT, alert, budget, event, later
from tollmeter.schemas.alert import Alert
from tollmeter.schemas.policy import Limit, Policy
from tollmeter.streams.notify.dispatcher import REMEMBER_S, Dispatcher
from tollmeter.streams.notify.notice import Acknowledgement, Mute, Notice
from tollmeter.streams.notify.outcome import Outcome
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


def new_dispatcher(**limits: Any) -> Dispatcher:
    return Dispatcher(routes(**limits), old_s=48 * HOUR)


def take(dispatcher: Dispatcher, made: Alert, now_s: float = T) -> Notice:
    """Take an alert that is new, and have it told."""
    notice = dispatcher.take(event(made), now_s)
    assert notice is not None
    return dispatcher.add(notice)


def deliver(dispatcher: Dispatcher, now_s: float) -> list[tuple[str, str, str]]:
    """Deliver everything that is due; return consumer, alert and whether it opened or resolved."""
    sent: list[tuple[str, str, str]] = []
    while due := dispatcher.due(now_s):
        for consumer, notice, delivery in due:
            dispatcher.settle(notice.id, delivery, Outcome(), now_s)
            sent.append((consumer, notice.id, delivery.about))
    return sent


def test_an_alert_is_taken_once_and_told_to_those_whom_its_routes_name() -> None:
    dispatcher = new_dispatcher()
    warning, critical = alert(number=1, name="k1"), alert(number=2, name="k2", severity="critical")
    take(dispatcher, warning)
    take(dispatcher, critical)
    assert dispatcher.take(event(warning), T + 1) is None
    expected = [("a", warning.id, "opened"), ("b", critical.id, "opened"), ("a", critical.id, "opened")]
    assert sorted(deliver(dispatcher, T)) == sorted(expected)
    assert deliver(dispatcher, T + 60) == []
    assert [n.state for n in dispatcher.notices.values()] == ["open", "open"]


@pytest.mark.parametrize("broken", [{}, {"id": "x"}, {"id": "", "data": {}}, {"id": 5, "data": {}}, {"data": {}}])
def test_what_is_no_alert_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no alert"):
        new_dispatcher().take(broken, T)


def test_an_alert_of_unknown_severity_is_taken_for_critical() -> None:
    dispatcher = new_dispatcher()
    odd = event(alert()) | {"data": event(alert())["data"] | {"severity": "apocalyptic"}}
    notice = dispatcher.take(odd, T)
    assert notice is not None
    assert [d.consumer for d in notice.deliveries] == ["a", "b"]


def test_a_restart_goes_on_where_the_journal_ends() -> None:
    dispatcher = new_dispatcher()
    first, second = take(dispatcher, alert(number=1, name="k1")), take(dispatcher, alert(number=2, name="k2"))
    _, notice, delivery = dispatcher.due(T)[0]
    dispatcher.settle(notice.id, delivery, Outcome(), T)
    again = new_dispatcher()
    again.load(dispatcher.notices.values(), T + 5)
    assert again.take(event(alert(number=1, name="k1")), T + 5) is None
    assert deliver(again, T + 5) == [("a", second.id, "opened")]
    assert first.id != second.id


def test_every_step_of_a_budget_is_told_although_they_come_at_once() -> None:
    dispatcher = new_dispatcher()
    for pct in (20, 50, 80, 100):
        take(dispatcher, budget(pct))
    assert [sent[1] for sent in deliver(dispatcher, T) if sent[0] == "a"] == [budget(p).id for p in (20, 50, 80, 100)]


def test_an_anomaly_is_told_again_after_the_cooldown_or_when_it_is_worse() -> None:
    dispatcher = new_dispatcher(cooldown="6h")
    take(dispatcher, alert(number=1))
    assert take(dispatcher, alert(number=2, at=later(HOUR)), T + HOUR).held == "repeat"
    assert take(dispatcher, alert(number=3, severity="critical", at=later(2 * HOUR)), T + 2 * HOUR).held == ""
    assert take(dispatcher, alert(number=4, at=later(7 * HOUR)), T + 7 * HOUR).held == "repeat", (
        "the worse was told then"
    )
    assert take(dispatcher, alert(number=5, at=later(9 * HOUR)), T + 9 * HOUR).held == ""
    assert take(dispatcher, alert(number=1, name="another", at=later(1)), T + 9 * HOUR).held == "", "of another key"


def test_an_acknowledged_anomaly_stays_quiet_until_it_is_over() -> None:
    dispatcher = new_dispatcher(cooldown="1h", quiet="3h")
    first = take(dispatcher, alert(number=1))
    said = Acknowledgement(by="ann", at_s=T)
    acknowledged = dispatcher.acknowledge(first.id, said)
    assert acknowledged is not None
    assert (acknowledged.state, acknowledged.acknowledged_by) == ("acknowledged", "ann")
    assert dispatcher.acknowledge(first.id, said) is None
    assert dispatcher.acknowledge("unknown", said) is None
    assert take(dispatcher, alert(number=2, at=later(2 * HOUR)), T + 2 * HOUR).held == "repeat"
    over = dispatcher.sweep(T + 5 * HOUR)
    assert {notice.state for notice in over} == {"resolved"}
    assert take(dispatcher, alert(number=3, at=later(6 * HOUR)), T + 6 * HOUR).held == ""


def test_an_anomaly_is_over_after_quiet_and_those_who_were_told_hear_of_it() -> None:
    dispatcher = new_dispatcher(quiet="2h")
    first = take(dispatcher, alert(number=1))
    deliver(dispatcher, T)
    take(dispatcher, alert(number=2, at=later(HOUR)), T + HOUR)
    assert dispatcher.sweep(T + 2.9 * HOUR) == [], "seen again an hour later"
    assert {notice.resolution for notice in dispatcher.sweep(T + 3 * HOUR)} == {"not seen any more"}
    assert deliver(dispatcher, T + 3 * HOUR) == [("a", first.id, "resolved")]
    assert dispatcher.sweep(T + 9 * HOUR) == []


def test_what_is_over_is_known_when_it_is_replayed() -> None:
    dispatcher = new_dispatcher(quiet="2h")
    first = take(dispatcher, alert())
    deliver(dispatcher, T)
    dispatcher.sweep(T + 2 * HOUR)
    assert dispatcher.take(event(alert()), T + 20 * 24 * HOUR) is None
    assert dispatcher.notices[first.id].state == "resolved"


def test_a_consumer_that_was_away_hears_of_the_beginning_before_the_end() -> None:
    dispatcher = new_dispatcher(quiet="2h")
    made = take(dispatcher, alert())
    ((_, _, delivery),) = dispatcher.due(T)
    dispatcher.settle(made.id, delivery, Outcome("it answered 500", away=True), T)
    dispatcher.sweep(T + 2 * HOUR)
    assert deliver(dispatcher, T + 2 * HOUR) == [("a", made.id, "opened"), ("a", made.id, "resolved")]


def test_what_happened_once_closes_without_a_word() -> None:
    dispatcher = new_dispatcher(quiet="2h")
    take(dispatcher, alert("cap_refused"))
    deliver(dispatcher, T)
    assert [notice.state for notice in dispatcher.sweep(T + 2 * HOUR)] == ["resolved"]
    assert deliver(dispatcher, T + 2 * HOUR) == []


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
    dispatcher = new_dispatcher()
    take(dispatcher, made)
    deliver(dispatcher, T)
    assert dispatcher.sweep(T + end - 1) == []
    assert [notice.resolution for notice in dispatcher.sweep(T + end)] == ["its period is over"]
    assert deliver(dispatcher, T + end) == []


def test_a_day_received_just_behind_midnight_is_over_at_once() -> None:
    dispatcher = new_dispatcher()
    made = budget(50)
    late = replace(made, received_at=later(14 * HOUR + 5))
    take(dispatcher, late, T + 14 * HOUR + 5)
    assert len(dispatcher.sweep(T + 14 * HOUR + 5)) == 1


def policy(**limits: Any) -> Policy:
    return Policy(org_id="acme", scope="user", name="ann", **limits)


def test_a_raised_limit_closes_its_alerts_with_one_word_and_the_new_ones_count_anew() -> None:
    dispatcher = new_dispatcher()
    for pct in (20, 50, 80):
        take(dispatcher, budget(pct))
    deliver(dispatcher, T)
    assert dispatcher.policies({budget(20).facts["policy_id"]: policy(daily_limit_micro=10_000_000)}, T) == [], (
        "as it was"
    )
    changed = {budget(20).facts["policy_id"]: policy(daily_limit_micro=20_000_000)}
    assert {notice.resolution for notice in dispatcher.policies(changed, T)} == {"the limit was changed"}
    assert deliver(dispatcher, T) == [("a", budget(80).id, "resolved")]
    new = [take(dispatcher, budget(pct, limit_micro=20_000_000)) for pct in (50, 80)]
    assert dispatcher.policies(changed, T) == [], "alerts of the limit in force stay"
    assert deliver(dispatcher, T) == [("a", notice.id, "opened") for notice in new]


@pytest.mark.parametrize(
    ("changed", "said"),
    [(None, "the policy is gone"), (policy(monthly_limit_micro=10_000_000), "there is no limit day/money any more")],
)
def test_a_limit_that_is_gone_closes_its_alerts(changed: Policy | None, said: str) -> None:
    dispatcher = new_dispatcher()
    take(dispatcher, budget(50))
    assert [notice.resolution for notice in dispatcher.policies({"acme/user/ann/pool/USD": changed}, T)] == [said]


def test_limits_of_tokens_beside_those_of_money() -> None:
    dispatcher = new_dispatcher()
    facts = {"policy_id": "p", "window": "day", "unit": "tokens", "limit_tokens": 500, "threshold_pct": 50}
    take(dispatcher, alert("budget", scope="user", name="ann", **facts))
    limits = [Limit(period="day", measure="tokens", amount=amount) for amount in (500, 600)]
    assert dispatcher.policies({"p": policy(daily_limit_micro=5, limits=(limits[0],))}, T) == []
    (over,) = dispatcher.policies({"p": policy(daily_limit_micro=5, limits=(limits[1],))}, T)
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
    dispatcher = new_dispatcher()
    dispatcher.mutes[mute.id] = mute
    assert take(dispatcher, alert()).held == held
    assert bool(deliver(dispatcher, T)) == (not held)


def test_an_alert_that_nobody_is_routed_to_is_kept() -> None:
    only = Routes.model_validate(
        {"consumers": {"a": {"type": "log"}}, "routes": [{"match": {"kind": "budget"}, "to": "a"}]}
    )
    dispatcher = Dispatcher(only, old_s=48 * HOUR)
    assert take(dispatcher, alert()).held == "no route"
    assert take(dispatcher, budget(20)).held == ""


def test_above_the_caps_alerts_come_as_one_digest() -> None:
    dispatcher = new_dispatcher(per_scope_per_hour=2, per_hour=4, digest="10m")
    first = [take(dispatcher, alert(f"kind{n}", name="k1")).held for n in range(3)]
    others = [take(dispatcher, alert(name=f"other{n}")).held for n in range(3)]
    assert (first, others) == (["", "", "cap"], ["", "", "cap"])
    assert take(dispatcher, alert(name="later"), T + HOUR).held == ""
    assert list(dispatcher.digests(T + 599)) == []
    ((consumer, members),) = dispatcher.digests(T + 600)
    assert (consumer, len(members)) == ("a", 2)
    made = dispatcher.add(digest_notice(consumer, members, T + 600))
    dispatcher.digested(consumer, members)
    assert list(dispatcher.digests(T + 9_999)) == []
    assert made.covers == tuple(member.id for member in members)
    assert (consumer, made.id, "opened") in deliver(dispatcher, T + 600)


def test_a_digest_whose_members_were_not_recorded_any_more_is_not_made_twice() -> None:
    dispatcher = new_dispatcher(per_hour=1, digest="10m")
    for number in range(3):
        take(dispatcher, alert(name=f"k{number}"))
    ((consumer, members),) = dispatcher.digests(T + 600)
    dispatcher.add(digest_notice(consumer, members, T + 600))  # and killed here
    again = new_dispatcher(per_hour=1, digest="10m")
    again.load(dispatcher.notices.values(), T + 700)
    assert list(again.digests(T + 9_999)) == []


def test_a_storm_is_announced_once_and_ends() -> None:
    dispatcher = new_dispatcher(storm_per_minute=20)
    held = [take(dispatcher, alert(name=f"k{n}"), T + n / 10).held for n in range(30)]
    assert held == [""] * 21 + ["storm"] * 9
    assert dispatcher.weather.storm
    announced = take(dispatcher, storm_alert(AT, 20), T + 3)
    assert announced.held == ""
    assert storm_alert(later(900), 20).id == storm_alert(AT, 20).id != storm_alert(later(HOUR), 20).id
    assert dispatcher.take(event(storm_alert(later(5), 20)), T + 5) is None
    assert take(dispatcher, alert(name="calm"), T + 70).held == ""
    assert not dispatcher.weather.storm


def test_old_alerts_are_told_in_one_digest() -> None:
    dispatcher = new_dispatcher(digest="10m")
    held = [take(dispatcher, alert(name=f"k{n}"), T + 49 * HOUR).held for n in range(3)]
    assert held == ["old"] * 3
    assert deliver(dispatcher, T + 49 * HOUR) == []
    ((_, members),) = dispatcher.digests(T + 50 * HOUR)
    assert len(members) == 3


def test_a_consumer_that_is_away_is_tried_with_growing_pauses_and_loses_nothing() -> None:
    """A consumer answers 500 for an hour: few attempts, one at a time, then everything in order."""
    dispatcher = new_dispatcher()
    ids = [take(dispatcher, alert(name=f"k{n}"), T + n).id for n in range(5)]
    attempts, now = 0, T + 5
    while now < T + HOUR:
        for _, notice, delivery in dispatcher.due(now):
            dispatcher.settle(notice.id, delivery, Outcome("it answered 500", away=True), now)
            attempts += 1
        now += 0.5
    assert 15 <= attempts <= 22, "1, 2, 4 ... 300 s"
    sent = deliver(dispatcher, T + HOUR + 300)
    assert [notice_id for _, notice_id, _ in sent] == ids


def test_a_consumer_that_asks_for_a_pause_gets_it() -> None:
    dispatcher = new_dispatcher()
    made, other = take(dispatcher, alert(name="k1")), take(dispatcher, alert(name="k2"))
    ((_, _, delivery),) = dispatcher.due(T)
    dispatcher.settle(made.id, delivery, Outcome("it answered 429", away=True, wait_s=120.0), T)
    assert not list(dispatcher.due(T + 119))
    assert deliver(dispatcher, T + 120) == [("a", made.id, "opened"), ("a", other.id, "opened")]


def test_a_message_that_is_refused_does_not_hold_up_the_others() -> None:
    dispatcher = new_dispatcher()
    bad, good = take(dispatcher, alert(name="bad")), take(dispatcher, alert(name="good"))
    ((_, notice, delivery),) = dispatcher.due(T)
    assert notice.id == bad.id
    dispatcher.settle(bad.id, delivery, Outcome("it answered 422"), T)
    assert deliver(dispatcher, T) == [("a", good.id, "opened")]
    assert deliver(dispatcher, T + 1) == [("a", bad.id, "opened")]


def test_a_chat_that_does_not_say_why_gets_the_others_after_a_breath() -> None:
    dispatcher = new_dispatcher()
    bad, good = take(dispatcher, alert(name="bad")), take(dispatcher, alert(name="good"))
    for now in (T, T + 1):  # the first is due again first, and its pauses grow
        ((_, notice, delivery),) = dispatcher.due(now)
        assert notice.id == bad.id
        dispatcher.settle(bad.id, delivery, Outcome("it did not take it", unsure=True), now)
        assert dispatcher.due(now) == []
    assert deliver(dispatcher, T + 2) == [("a", good.id, "opened")]
    assert deliver(dispatcher, T + 3) == [("a", bad.id, "opened")]


def test_after_48_hours_a_message_is_given_up() -> None:
    dispatcher = new_dispatcher()
    made = take(dispatcher, alert())
    ((_, _, delivery),) = dispatcher.due(T)
    kept = dispatcher.settle(made.id, delivery, Outcome("away", away=True), T + 48 * HOUR - 1)
    assert [d.status for d in kept.deliveries] == ["pending"]
    given_up = dispatcher.settle(made.id, kept.deliveries[0], Outcome("away", away=True), T + 48 * HOUR)
    assert [(d.status, d.attempts, d.error) for d in given_up.deliveries] == [("failed", 2, "away")]
    assert dispatcher.due(T + 99 * HOUR) == []


def test_a_consumer_that_is_gone_from_the_file_is_named() -> None:
    dispatcher = new_dispatcher()
    take(dispatcher, alert(severity="critical"))
    fewer = Routes.model_validate({"consumers": {"b": {"type": "log"}}, "routes": [{"to": "b"}]})
    again = Dispatcher(fewer, old_s=48 * HOUR)
    again.load(dispatcher.notices.values(), T)
    (changed,) = again.orphans()
    assert {(d.consumer, d.status) for d in changed.deliveries} == {("a", "failed"), ("b", "pending")}
    assert again.orphans() == []


def test_what_is_over_is_forgotten_after_the_topic_has_forgotten_it() -> None:
    dispatcher = new_dispatcher(quiet="2h")
    take(dispatcher, alert("cap_refused"))
    dispatcher.sweep(T + 2 * HOUR)
    assert dispatcher.forget(T + 2 * HOUR + REMEMBER_S) == []
    assert dispatcher.forget(T + 2 * HOUR + REMEMBER_S + 1) == [alert("cap_refused").id]
    assert dispatcher.notices == {}


POLICY_ID = "acme/user/ann/pool/USD"
TEN = policy(daily_limit_micro=10_000_000)
TWENTY = policy(daily_limit_micro=20_000_000)


@pytest.mark.parametrize("between", [None, TWENTY], ids=["deleted", "changed"])
def test_a_limit_that_is_back_within_its_period_is_open_and_told_again(between: Policy | None) -> None:
    dispatcher = new_dispatcher()
    for pct in (50, 100):
        take(dispatcher, budget(pct))
    deliver(dispatcher, T)
    first = budget(100).id
    for opening in (2, 3):
        dispatcher.policies({POLICY_ID: between}, T + opening)
        assert not [notice for notice in dispatcher.notices.values() if notice.state == "open"]
        deliver(dispatcher, T + opening)
        (again,) = dispatcher.policies({POLICY_ID: TEN}, T + opening)
        assert (again.id, again.state, again.base_id) == (f"{first}-{opening}", "open", first)
        assert again.event["id"] == again.id
        assert again.body.count("in force again") == 1
        assert {about for _, key, about in deliver(dispatcher, T + opening) if key == again.id} == {"opened"}
        assert dispatcher.policies({POLICY_ID: TEN}, T + opening) == [], "once for one opening"
        assert dispatcher.take(event(replace(budget(100), received_at=later(opening))), T + opening) is None, (
            "WATCH says the same of it"
        )


def test_a_limit_that_is_back_in_the_next_period_stays_closed() -> None:
    dispatcher = new_dispatcher()
    take(dispatcher, budget(100))
    dispatcher.policies({POLICY_ID: None}, T)
    assert dispatcher.policies({POLICY_ID: TEN}, T + 14 * HOUR) == []


def test_rolling_hours_open_again_when_watch_says_so() -> None:
    dispatcher = new_dispatcher()
    limit = policy(limits=(Limit(period="rolling", hours=24, amount=10_000_000),))
    window = limit.all_limits[0].key.partition("/")[0]
    made = replace(budget(100), facts={**budget(100).facts, "window": window})
    take(dispatcher, made)
    assert dispatcher.policies({POLICY_ID: limit}, T) == []
    assert len(dispatcher.policies({POLICY_ID: None}, T + 1)) == 1
    assert dispatcher.policies({POLICY_ID: limit}, T + 2) == [], "what was used may have fallen meanwhile"
    assert dispatcher.take(event(made), T + 2) is None, "a replay"
    again = dispatcher.take(event(replace(made, received_at=later(2))), T + 3)
    assert again is not None
    assert again.id == f"{made.id}-2"
    dispatcher.add(again)
    assert dispatcher.take(event(replace(made, received_at=later(2))), T + 4) is None


def test_an_acknowledgement_counts_for_the_opening_it_was_said_of() -> None:
    dispatcher = new_dispatcher()
    made = take(dispatcher, budget(100))
    dispatcher.policies({POLICY_ID: None}, T + 1)
    (again,) = dispatcher.policies({POLICY_ID: TEN}, T + 2)
    assert dispatcher.acknowledge(made.id, Acknowledgement(by="ann", at_s=T)) is None
    told = dispatcher.acknowledge(made.id, Acknowledgement(by="ann", at_s=T + 3))
    assert told is not None
    assert (told.id, told.state) == (again.id, "acknowledged")


def test_a_notice_that_shall_say_otherwise_keeps_its_state_and_deliveries() -> None:
    dispatcher = new_dispatcher()
    notice = take(dispatcher, alert(number=1, name="ann"))
    deliver(dispatcher, T)
    told = dispatcher.notices[notice.id]
    event_ = {**told.event, "data": {**told.event["data"], "name": "(forgotten)"}}
    said = notice.model_copy(update={"event": event_, "title": "somebody", "body": "", "deliveries": ()})
    changed = dispatcher.add(told.reworded(said))
    assert (changed.title, changed.scope[2], changed.deliveries) == ("somebody", "(forgotten)", told.deliveries)
    assert dispatcher.notices[notice.id] == changed
    assert deliver(dispatcher, T + 60) == []
