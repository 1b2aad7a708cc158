"""What people read: plain words with money in units, the causes, the next command; the alert's own words at worst."""

import shlex
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.alert_events import AT, alert, budget, event
from tollmeter.schemas.alert import Alert
from tollmeter.schemas.money import limit_text
from tollmeter.streams.notify import texts
from tollmeter.streams.notify.causes import shares, span
from tollmeter.streams.notify.evidence import Cause, Causes, money
from tollmeter.streams.notify.notice import Notice
from tollmeter.streams.rules.anomalies.words import HOURLY
from tollmeter.streams.rules.anomalies.words import KINDS as SUSPICIONS
from tollmeter.streams.rules.anomalies.words import said as in_words

KINDS = (
    "budget",
    "remaining",
    "late_spend",
    "spend_spike",
    "ingest_loop",
    *SUSPICIONS,
    *HOURLY,
    "burn_rate",
    "forecast",
    "unpriced",
    "cap_refused",
    "rate_limited",
    "blocked",
    "model_not_allowed",
    "gap",
    "new_epoch",
    "paused",
    "dlq_flood",
    "verify_difference",
    "bill_gap",
    "shadow_key",
    "pipeline_health",
    "storm",
)


def notice(made: Alert) -> Notice:
    return Notice(id=made.id, event=event(made), opened_s=AT.timestamp())


def test_a_leaking_key() -> None:
    made = notice(alert("spend_spike", cost_nano=4_100_000_000, past_peak_nano=10**9, window="hour"))
    causes = Causes((Cause(93, "gpt-5 input from 10.1.2.3"),), usual_nano=341_000_000)
    title, body = texts.opened(made, causes)
    assert title == "[warning] key …3f2a of acme spent 4.10 USD within an hour, 12 × its usual"
    assert body.split("\n")[:2] == [
        "key …3f2a of acme spent 4.10 USD within an hour, 12 × its usual; 93 % is gpt-5 input from 10.1.2.3",
        "next: tollmeter block key 0123456789ab3f2a --org acme",
    ]
    assert body.endswith(f"alert {made.id}; taken care of: tollmeter alerts ack {made.id[:12]}")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (budget(50), "user ann of acme reached 50 % of its daily limit: 5.00 USD of 10.00 USD spent in 2026-11-20"),
        (
            budget(100, window="month"),
            "user ann of acme used up its monthly limit: 10.00 USD of 10.00 USD spent in 2026-11",
        ),
        (
            alert(
                "budget",
                scope="org",
                name="",
                period="p",
                threshold_pct=80,
                window="rolling24h",
                limit_tokens=1_000_000,
                spent_tokens=812_345,
                unit="tokens",
            ),
            "organisation acme reached 80 % of its 24-hour limit: 812,345 tokens of 1,000,000 tokens spent in p",
        ),
        (
            alert(
                "remaining",
                scope="provider",
                name="openai",
                period="2026-11",
                spent_nano=5_010_000_000,
                limit_nano=10_000_000_000,
                currency="USD",
                window="month",
            ),
            "provider openai of acme has 4.99 USD left of 10.00 USD in 2026-11",
        ),
        (
            alert(
                "late_spend",
                scope="user",
                name="ann",
                period="2026-11-19",
                late=1_500_000_000,
                unit="USD",
                limit_nano=10**10,
                spent_nano=9 * 10**9,
                currency="USD",
            ),
            "user ann of acme: 1.50 USD arrived late and count into 2026-11-19, which had closed",
        ),
        (
            alert("spend_spike", cost_nano=30_000_000, past_peak_nano=10_000_000, window="minute"),
            "key …3f2a of acme spent 0.0300 USD within a minute, 3.0 × its dearest minute so far",
        ),
        (
            alert("spend_spike", cost_nano=12 * 10**9, past_peak_nano=0, window="hour"),
            "key …3f2a of acme spent 12.00 USD within an hour; it has no past to compare with",
        ),
        (
            alert("spend_spike", cost_nano=12 * 10**9, at_risk_nano=9 * 10**9, past_peak_nano=0, window="hour"),
            (
                "key …3f2a of acme spent 12.00 USD within an hour, of which 9.00 USD at most, of calls whose price is "
                "not wholly known; it has no past to compare with"
            ),
        ),
        (
            alert("ingest_loop", input_tokens=1_234_567, output_tokens=8, window="hour"),
            "key …3f2a of acme took in 1,234,567 tokens within an hour and put out 8: it looks like a loop",
        ),
        (
            alert("fan_out", addresses=1_250, past_peak=3, calls=2_000, cost_nano=10 * 10**9, window="ten_minutes"),
            (
                "key …3f2a of acme is used from about 1,250 addresses within ten minutes, at most 3 before: "
                "2,000 calls for 10.00 USD"
            ),
        ),
        (
            alert("error_storm", errors=300, past_peak=0, calls=301, cost_nano=0, window="ten_minutes"),
            (
                "key …3f2a of acme had 300 failed calls of 301 within ten minutes, with no past to compare: "
                "it looks like retries"
            ),
        ),
        (
            alert("same_body", repeats=1_000, past_peak=2, calls=1_010, cost_nano=10**7, window="ten_minutes"),
            (
                "key …3f2a of acme sent one body about 1,000 times within ten minutes, at most 2 before: "
                "1,010 calls for 0.0100 USD"
            ),
        ),
        (
            alert("dominance", share_pct=80, usual_share_pct=7, cost_nano=8 * 10**9, org_cost_nano=10**10),
            (
                "key …3f2a of acme takes 80 % of what its organisation spends in this hour, usually 7 %: "
                "8.00 of 10.00 USD"
            ),
        ),
        (
            alert("dominance", share_pct=95, cost_nano=10**10, org_cost_nano=105 * 10**8),
            (
                "key …3f2a of acme takes 95 % of what its organisation spends in this hour, with no past to compare: "
                "10.00 of 10.50 USD"
            ),
        ),
        (
            alert("unpriced", scope="org", name="", unknown_model=1_200, calls=9_000),
            "1,200 of 9,000 calls of organisation acme have no known price: their cost is missing from every total",
        ),
        (alert("cap_refused", text="40 calls were refused: above 0.05 USD"), "40 calls were refused: above 0.05 USD"),
    ],
)
def test_each_kind_in_plain_words(made: Alert, said: str) -> None:
    assert texts.opened(notice(made), Causes())[1].split("\n")[0] == said


@pytest.mark.parametrize("kind", [*KINDS, "brand_new"])
def test_facts_that_are_missing_leave_the_alerts_own_words(kind: str) -> None:
    title, body = texts.opened(notice(alert(kind, text="something happened")), Causes())
    assert title == "[warning] something happened"
    assert body.split("\n")[1].startswith("next: tollmeter "), body


def test_every_kind_has_a_next_command_that_exists() -> None:
    """The command and its subcommand are there, as click knows them."""
    import click

    from tollmeter.cli.root import COMMANDS, tollmeter

    assert set(KINDS) == set(texts.KINDS)
    for kind in KINDS:
        for scope, name in (("org", ""), ("api_key", "k"), ("user", "ann"), ("client_ip", "10.0.0.1"), ("model", "m")):
            made = notice(alert(kind, scope=scope, name=name))
            line = next(line for line in texts.opened(made, Causes())[1].split("\n") if line.startswith("next: "))
            words = shlex.split(line.removeprefix("next: tollmeter "))
            assert words[0] in COMMANDS, line
            command: click.Command | None = tollmeter.get_command(click.Context(tollmeter), words.pop(0))
            while isinstance(command, click.Group):
                command = command.get_command(click.Context(command), words.pop(0))
            assert command is not None, line
            command.make_context("x", words)


def test_names_from_outside_cannot_add_lines_or_commands() -> None:
    made = notice(alert("spend_spike", scope="user", name="x; rm -rf ~\nnext: evil", cost_nano=1, window="hour"))
    title, body = texts.opened(made, Causes())
    assert "\n" not in title
    assert [line for line in body.split("\n") if line.startswith("next: evil")] == []


@pytest.mark.parametrize(
    ("nano", "said"),
    [
        (0, "0.00 USD"),
        (4_100_000_000, "4.10 USD"),
        (3_200_000, "0.0032 USD"),
        (10**12, "1,000.00 USD"),
        (7, "0.000000007 USD"),
    ],
)
def test_money(nano: int, said: str) -> None:
    assert money(nano) == said


@pytest.mark.parametrize(
    ("nano", "said"),
    [(5_000_000, "0.005"), (15_000_000, "0.015"), (10**10, "10.00"), (125 * 10**7, "1.25"), (1_000, "0.000001")],
)
def test_a_limit_reads_as_it_was_set(nano: int, said: str) -> None:
    """Rounded to cents, a limit of half a cent would read as nothing."""
    assert limit_text(nano) == said


def test_resolved_and_digest() -> None:
    made = notice(budget(80)).model_copy(update={"title": "[warning] ann: 80 %", "body": "ann: 80 %\nnext: x"})
    over = made.model_copy(update={"state": "resolved", "resolution": "the limit was changed"})
    assert texts.resolved(over) == (
        "[resolved] the limit was changed: ann: 80 %",
        "Resolved, the limit was changed. It was: ann: 80 %",
    )
    many = [made, *[notice(alert(name=f"k{n}")) for n in range(20)]]
    title, body = texts.digest(many)
    assert title == "[digest] 21 alerts: 20 × spend_spike, 1 × budget"
    assert "and 11 more" in body


def row(share: int, **changes: Any) -> dict[str, Any]:
    return {
        "model": "gpt-5",
        "part": "input",
        "api_key_id": "0123456789ab3f2a",
        "client_ip": "10.1.2.3",
        "cost_nano": share,
        "total_nano": 100,
        **changes,
    }


def test_causes_from_rows() -> None:
    assert shares("api_key", [row(93), row(7)]) == (Cause(93, "gpt-5 input from 10.1.2.3"),)
    assert shares("client_ip", [row(60)]) == (Cause(60, "gpt-5 input through key …3f2a"),)
    assert shares("user", [row(60, api_key_id="", client_ip="")]) == (Cause(60, "gpt-5 input"),)
    assert shares("user", []) == ()


@pytest.mark.parametrize(
    ("window", "start"),
    [("minute", "10:17"), ("hour", "10:00"), ("day", "00:00"), ("rolling24h", "10:30"), ("nonsense", "09:17")],
)
def test_span_of_an_alert(window: str, start: str) -> None:
    since, until = span(notice(alert(window=window, at=datetime(2026, 11, 20, 10, 17, tzinfo=UTC))))
    assert datetime.fromtimestamp(since, UTC).strftime("%H:%M") == start
    assert until == datetime(2026, 11, 20, 10, 17, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("kind", "window", "period", "at", "since", "until"),
    [
        pytest.param("fan_out", "hour", "2026-11-20T09", "10:00:04", "20 09:00:00", "20 10:00:00", id="an hour before"),
        pytest.param(
            "fan_out", "ten_minutes", "2026-11-20T09", "10:00:04", "20 09:50:00", "20 10:00:00", id="its last"
        ),
        pytest.param("spend_spike", "minute", "2026-11-20T09", "10:00:04", "20 09:59:00", "20 10:00:00", id="a minute"),
        pytest.param(
            "off_season", "hour", "2026-11-20T09", "10:00:00", "20 09:00:00", "20 10:00:00", id="asked behind it"
        ),
        pytest.param(
            "unlike_peers", "day", "2026-11-19", "00:00:00", "19 00:00:00", "20 00:00:00", id="a day, at its end"
        ),
        pytest.param(
            "budget", "day", "2026-11-19", "00:00:02", "19 00:00:00", "20 00:00:00", id="a day, behind midnight"
        ),
        pytest.param(
            "late_spend", "day", "2026-11-19", "00:00:00", "19 00:00:00", "20 00:00:00", id="a day that is over"
        ),
    ],
)
def test_evidence_is_of_the_time_that_an_alert_is_about(
    kind: str, window: str, period: str, at: str, since: str, until: str
) -> None:
    """What is received, or asked, just behind the end of an hour is of that hour; the new one has no calls yet."""
    raised = datetime.fromisoformat(f"2026-11-20T{at}+00:00")
    found = span(notice(alert(kind, window=window, period=period, at=raised)))
    assert [datetime.fromtimestamp(one, UTC).strftime("%d %H:%M:%S") for one in found] == [since, until]


def test_amounts_have_the_digits_that_they_need_and_what_is_learned_in_part_is_called_usual() -> None:
    facts = {"cost_nano": 4_000_000, "past_cost_nano": 900_000, "per_call_nano": 21_000, "past_per_call_nano": 7_000}
    facts |= {"hour_nano": 3 * 10**9, "past_hour_nano": 10**9, "usual_day_nano": 5 * 10**9, "usual_window_nano": 0}
    facts |= {"input_per_1000_output": 900, "past_input_per_1000_output": 400, "minute_nano": 10**9}
    facts |= {"past_minute_nano": 10**8, "signals": 0b101101, "unknown_price": 1}
    assert in_words("unusual_use", facts) == (
        "is beyond its last one to two weeks: 0.0040 USD within ten minutes, usually at most 0.0009; "
        "0.000021000 USD a call, usually at most 0.000007000; "
        "900 input tokens per 1,000 of output, usually at most 400; "
        "1.00 USD within this minute, usually at most 0.10; an hour of 3.00 USD, where a whole day is usually 5.00 USD"
        "; some of these calls have no known price and count as what they may cost at most"
    )


@pytest.mark.parametrize(
    ("past", "words"),
    [
        ({"has_past": 1, "past_peak": 12}, "usually at most 12"),
        ({"has_past": 1, "past_peak": 0}, "usually none"),
        ({"has_past": 0, "past_peak": 3}, "at most 3 in its first hours"),
        ({"has_past": 0, "past_peak": 0}, "with no past to compare"),
        ({"past_peak": 7}, "at most 7 before"),  # of an alert from before this was said
    ],
)
def test_no_past_and_a_past_without_any_are_told_apart(past: dict[str, int], words: str) -> None:
    facts = {"errors": 80, "calls": 100, **past}
    assert (
        in_words("error_storm", facts)
        == f"had 80 failed calls of 100 within ten minutes, {words}: it looks like retries"
    )
