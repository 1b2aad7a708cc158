"""Incidents on the real broker and engine: one text everywhere, what people say, rules tried out on a history."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.alert_events import Receiver, alert, receiver
from tests.contracts.test_notify import FILE, publish
from tests.priced_rows import insert, row
from tests.workers import Workers
from tollmeter.cli.anomalies import anomalies
from tollmeter.schemas.alert import Alert
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect
from tollmeter.streams.notify.feedback import judged
from tollmeter.streams.notify.journal import FEEDBACK, Journal
from tollmeter.streams.notify.notice import Notice

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]
KEY = "0123456789ab3f2a"
USD = 10**9


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def tollmeter(settings: Settings, *arguments: str) -> Any:
    return CliRunner().invoke(anomalies, arguments, obj=settings, standalone_mode=False)


def listed(settings: Settings) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(tollmeter(settings, "incidents", "--json").stdout)
    return found


def raised(line: Settings, *made: Alert) -> None:
    """Put alerts on the topic, and into the table as LEDGER does, which does not run here."""
    client = connect(line)
    client.insert_rows("alerts", ("event", "appended_at"), [(one.wire().decode(), one.received_at) for one in made])
    client.close()
    publish(line, made)


def test_an_incident_has_one_text_and_is_quiet_when_it_is_expected(
    line: Settings, hook: Receiver, workers: Workers, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    now = datetime.now(UTC)
    common = {"event_time": now, "received_at": now, "org_id": "acme", "model_used": "gpt-5", "status": "OK"}
    client = connect(line)
    costs = [5, 4, 3, 2, 1, 1]
    insert(
        client,
        [
            *(
                row(n, **common, api_key_id=KEY, client_ip="10.1.2.3", cost_nano=usd * USD, request_id=f"r-{n}")
                for n, usd in enumerate(costs)
            ),
            row(90, **common, api_key_id="another-key-9999", client_ip="10.1.2.3", cost_nano=7 * USD),
        ],
    )
    client.close()
    routes = tmp_path / "routes.yaml"
    routes.write_text(FILE.format(url=hook.url).replace("cooldown: 1s", "cooldown: 6h"))
    workers.start("notify", "notify", "--routes", str(routes), HOOK_KEY="whsec_c2VjcmV0")

    raised(line, alert("spend_spike", number=1, name=KEY, at=now, window="hour", cost_nano=16 * USD))
    eventually(lambda: len(hook.accepted()) == 1)
    raised(line, alert("fan_out", number=2, name=KEY, at=now, window="hour", cost_nano=16 * USD))
    eventually(lambda: [(one["kinds"], one["held"]) for one in listed(line)] == [(["fan_out", "spend_spike"], 1)])
    (body,) = hook.bodies()
    text = body["text"].split("\n")
    (incident,) = listed(line)
    assert [incident["text"], *incident["evidence"]] == text, "the same everywhere"
    calls = text[text.index("dearest calls:") + 1 :][:5]
    assert [call.split(maxsplit=1)[1] for call in calls] == [
        f"{usd}.00 USD gpt-5 from 10.1.2.3, request r-{n}" for n, usd in enumerate(costs[:5])
    ]
    assert "from the same addresses: key …9999 (7.00 USD)" in text
    assert (incident["state"], incident["turns"], incident["cost_nano"]) == ("open", 1, 16 * USD)

    said = tollmeter(
        line, "feedback", incident["id"][:10], "expected", "--for", "2h", "--reason", "a test", "--by", "ann"
    )
    assert said.exit_code == 0, said.exception
    assert "expected, its like is quiet until" in said.stdout
    eventually(lambda: listed(line)[0]["state"] == "acknowledged")
    raised(line, alert("fan_out", number=3, name=KEY, at=datetime.now(UTC), window="hour", cost_nano=17 * USD))
    states = "SELECT count() AS n FROM alert_states FINAL WHERE held = 'expected'"
    client = connect(line)
    eventually(lambda: client.query(states)[0]["n"] == 1)
    client.close()
    assert len(hook.accepted()) == 1
    (word,) = json.loads(tollmeter(line, "feedback", "--json").stdout)
    assert {name: word[name] for name in ("incident", "verdict", "by", "reason", "kinds")} == {
        "incident": incident["id"],
        "verdict": "expected",
        "by": "ann",
        "reason": "a test",
        "kinds": ["fan_out", "spend_spike"],
    }
    for arguments, why in (
        (("feedback", "nothing", "real"), "notify knows no incident 'nothing'"),
        (("feedback", "nothing"), "expected or real"),
        (("feedback", "nothing", "real", "--for", "1h"), "goes without 'real'"),
        (("feedback", "nothing", "expected", "--for", "900d"), "at most 366 days"),
        (("feedback", "x", "real", "--reason", "sk-" + "a" * 40), "key"),
    ):
        assert why in str(tollmeter(line, *arguments).exception), arguments


def history(line: Settings, leak: datetime) -> list[datetime]:
    """A key that spends 5 cents an hour, and then 1.50 USD a minute for forty minutes, a dollar more in the first."""
    common = {"org_id": "acme", "api_key_id": KEY, "client_ip": "10.1.2.3", "model": "gpt-5", "model_id": "gpt-5"}
    common |= {"status": "OK", "price_status": "PRICED", "billing_scope": "ORG", "input_tokens": 1_000}
    calls = [(leak - timedelta(hours=240 - n, minutes=-30), USD // 20) for n in range(240)]
    calls += [(leak + timedelta(minutes=n), 3 * USD // 2) for n in range(40)]
    calls.append((leak + timedelta(seconds=30), USD))
    client = connect(line)
    arrived = leak + timedelta(hours=2)  # an import: all of it came afterwards
    insert(
        client,
        [
            row(n, **common, event_time=at, received_at=arrived, output_tokens=100, cost_nano=nano)
            for n, (at, nano) in enumerate(calls)
        ],
    )
    client.close()
    return [at for at, _ in calls]


def test_rules_are_tried_out_on_ones_own_history(line: Settings, tmp_path: Path) -> None:
    leak = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
    calls = history(line, leak)
    members = [
        Notice(id="n", incident="i" * 32, event=json.loads(alert(name=KEY, at=leak).wire()), opened_s=leak.timestamp())
    ]
    word = judged(members, "real", 0.0, "ann", "", leak.timestamp())

    async def say() -> None:
        journal = Journal(line)
        await journal.start()
        await journal.write({FEEDBACK + word.incident: word})
        await journal.stop()

    asyncio.run(say())
    done = tollmeter(line, "replay", "--since", "2d", "--json")
    assert done.exit_code == 0, done.exception
    document = json.loads(done.stdout)
    learned_from = datetime.fromisoformat(document["since"]) - timedelta(days=7)
    assert document["calls"] == sum(at >= learned_from for at in calls)
    (incident,) = document["incidents"]
    assert (incident["name"], incident["told"] >= 1, "spend_spike" in incident["kinds"]) == (KEY, True, True)
    assert datetime.fromisoformat(incident["first_told"]) == leak
    # usual: 5 cents in ten minutes with calls; the leak is four windows of 15 USD and a dollar, told at its first call
    assert incident["usual_ten_minutes_nano"] == USD // 20
    assert incident["lost_before_first_alert_nano"] == 3 * USD // 2
    assert incident["lost_nano"] == 61 * USD - 4 * USD // 20
    assert document["lost_before_first_alert_nano"] == 3 * USD // 2
    assert document["real"] == {"incidents": ["i" * 32], "told": 1}

    rules = tmp_path / "rules.yaml"
    rules.write_text("unusual_use:\n  hour_nano: cheap\n")
    refused = tollmeter(line, "replay", "--rules", str(rules))
    assert f"{rules}:2: unusual_use.hour_nano: " in str(refused.exception)
    rules.write_text("unusual_use: {hour_nano: 1_000_000_000_000}\n")
    shown = tollmeter(line, "replay", "--since", "2d", "--rules", str(rules))
    assert shown.exit_code == 0, shown.exception
    assert "lost before" in shown.stdout
    assert "1.50 USD beyond the usual was spent before the first alerts" in " ".join(shown.stdout.split())
