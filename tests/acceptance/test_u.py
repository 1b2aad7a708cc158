"""The shape: rows U1 to U8."""

import base64
import hmac
import json
import os
import re
import shutil
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import yaml

from tests.acceptance.beside import ALONE
from tests.acceptance.checks import ROW, Check, Lacking
from tests.acceptance.rates import DATED, OWN_PROVIDER
from tests.acceptance.receivers import HOOK_KEY, TOLD_ORG
from tests.acceptance.stack import Line, request, unhindered
from tests.acceptance.world import UNKNOWN, cost_nano, event, wire
from tests.grafana import Range, expanded

pytestmark = ROW

ROOT = Path(__file__).parents[2]
PRODUCE = """
import sys
from tollmeter import UsageProducer
producer = UsageProducer(service="acc-service", org_id=sys.argv[1] if len(sys.argv) > 1 else {org!r}{more})
CALL = dict(provider="openai", model_sent="gpt-4o", status="OK", input_tokens=1000, output_tokens=200)
"""


def program(org: str, body: str, more: str = "") -> str:
    """Return a program with a producer."""
    return PRODUCE.format(org=org, more=more) + body


@ALONE
def test_u1(check: Check, line: Line) -> None:
    org, nowhere = check.org, {"TOLLMETER_KAFKA": "127.0.0.1:1"}
    with check.step("a service's calls reach Kafka and the ledger"):
        said = line.python(program(org, "producer.record(**CALL); print(producer.flush(60))"))
        assert said.out.strip() == "True", said.err
        line.landed(f"org_id = '{org}' AND cost_nano = 4500000", 1)
    with check.step("without a broker it neither waits nor raises, its memory is bounded, and it counts its drops"):
        body = (
            "for _ in range(20_000): producer.record(**CALL)\n"
            "counters = producer.counters\n"
            "print(counters.dropped > 19_000, counters.queued <= 100, producer.record(**CALL) == '')\n"
            "producer.close(0.0)"
        )
        said = line.python(program(org, body, ", queue_size=100, spool_bytes=0"), **nowhere)
        assert said.out.split() == ["True", "True", "True"], said.err
    with check.step("children of a fork deliver their own, however they end"):
        body = (
            "import multiprocessing, os\n"
            "producer.record(**CALL); producer.flush(60)\n"
            "def work(): producer.record(**CALL)\n"
            "context = multiprocessing.get_context('fork')\n"
            "children = [context.Process(target=work) for _ in range(4)]\n"
            "[child.start() for child in children]; [child.join() for child in children]\n"
        )
        assert line.python(program(f"{org}-f", body)).code == 0
        line.landed(f"org_id = '{org}-f'", 5)
    with check.step("each request is flushed where the platform freezes the process"):
        body = (
            "from tollmeter import MeterWSGI\n"
            "def app(environ, start_response):\n"
            "    producer.record(**CALL)\n"
            "    start_response('200 OK', [])\n"
            "    return [b'done']\n"
            "metered = MeterWSGI(app, producer=producer)\n"
            "answer = metered({'REQUEST_METHOD': 'GET'}, lambda *_: None)\n"
            "list(answer); answer.close()\n"
            "print(producer.counters.acknowledged)\n"
        )
        said = line.python(program(f"{org}-l", body), AWS_LAMBDA_FUNCTION_NAME="shop")
        assert said.out.strip() == "1", said.err.strip()[-300:]
    with check.step("for the service's own tests: disabled and in memory"):
        body = (
            "for mode in ('disabled', 'memory'):\n"
            "    with UsageProducer(service='t', mode=mode) as quiet:\n"
            "        quiet.record(**CALL)\n"
            "        print(len(quiet.events))\n"
        )
        assert line.python(program(org, body, ", mode='disabled'"), **nowhere).out.split() == ["0", "1"]
    with check.step("what is recorded while the broker is away is spooled, and another process delivers it"):
        line.refresh()
        spool = {"TOLLMETER_SPOOL_DIR": str(line.folder / f"spool-{org}"), "TOLLMETER_KAFKA": line.kafka}
        broker = line.state["processes"]["broker"]["pid"]
        first = program(f"{org}-s", "producer.record(**CALL); producer.flush(60)")
        assert line.python(first, **spool).code == 0
        os.kill(broker, signal.SIGSTOP)
        try:
            lone = "for _ in range(50): producer.record(**CALL)\nprint(producer.flush(2)); producer.close(1.0)"
            assert line.python(program(f"{org}-s", lone), **spool).out.strip() == "False"
        finally:
            os.kill(broker, signal.SIGCONT)
        assert line.python(program(f"{org}-s", "producer.record(**CALL); producer.flush(60)"), **spool).code == 0
        line.landed(f"org_id = '{org}-s'", 52)


def test_u2(check: Check, line: Line) -> None:
    now = datetime.now(UTC)
    named = {"org_id": check.org, "provider": OWN_PROVIDER, "model_sent": DATED, "input_tokens": 1_000}
    calls = [event(at, **named) for at in (now - timedelta(days=6), now - timedelta(days=4), now)]
    rows = line.arrive(calls)
    with check.step("each call at the price in force when it was made, whenever it arrives"):
        assert [rows[call["event_id"]]["cost_nano"] for call in calls] == [1_000_000, 1_000_000, 3_000_000]
    with check.step("half-even to the nano-USD, in components that add up"):
        call = event(
            org_id=check.org, model_sent="gpt-4o-mini", input_tokens=1_001, cache_read_tokens=333, output_tokens=77
        )
        (row,) = line.arrive([call]).values()
        assert row["cost_nano"] == cost_nano("gpt-4o-mini", 1_001, 77, 333)
        parts = [
            value or 0
            for name, value in row.items()
            if re.fullmatch(r"cost_(input|cached?\w*|output|other)\w*_nano", name)
        ]
        assert parts
        assert sum(parts) == row["cost_nano"]
    with check.step("the rule and the book stand in the row"):
        assert (row["rule_id"], row["price_status"]) == ("openai/gpt-4o-mini/standard", "PRICED")
        assert row["price_book"].startswith("genai-prices-")


MARK = "tollmeter-backfill", b"1"
"""The header of what is brought in afterwards."""
KINDS = {
    "api_key": "k1",
    "client_ip": "203.0.113.9",
    "user": "ann",
    "group": "blue",
    "agent": "bot",
    "model": "gpt-4o",
    "provider": "openai",
    "feature": "summarise",
}


def test_u3(check: Check, line: Line) -> None:
    org, now = check.org, datetime.now(UTC)
    fields = {
        "org_id": org,
        "api_key_id": "k1",
        "client_ip": "203.0.113.9",
        "user_id": "ann",
        "group_id": "blue",
        "agent": "bot",
        "feature": "summarise",
        "input_tokens": 1_000,
    }
    line.arrive([event(now, **fields), event(now, **fields), event(now - timedelta(minutes=20), **fields)])
    line.folded(org, 3) if (now - timedelta(minutes=20)).date() == now.date() else None

    def totals(scope: str, name: str, level: str) -> list[tuple[int, int, int]]:
        rows = line.sql(
            "SELECT calls, input_tokens, cost_nano FROM usage_windows FINAL "
            f"WHERE org_id = '{org}' AND scope = '{scope}' AND name = '{name}' AND level = '{level}' ORDER BY bucket"
        )
        return [(row["calls"], row["input_tokens"], row["cost_nano"]) for row in rows]

    one, two, three = ((n, n * 1_000, n * 2_500_000) for n in (1, 2, 3))
    with check.step(
        "minutes, hours, days and months per key, address, user, group, agent, model, provider and operation"
    ):
        line.until(lambda: totals("api_key", "k1", "minute") == [one, two])
        for scope, name in KINDS.items():
            assert totals(scope, name, "minute") == [one, two], scope
            for level in ("hour", "day", "month"):
                sums = [sum(column) for column in zip(*totals(scope, name, level), strict=True)]
                assert sums == list(three), (scope, level)
    with check.step("and for the organisation"):
        assert [sum(column) for column in zip(*totals("org", "", "month"), strict=True)] == list(three)
    with check.step("a late call is counted in the minute when it was made"):
        assert totals("api_key", "k1", "minute") == [one, two]
        late = event(now - timedelta(minutes=40), **fields)
        line.arrive([late])
        line.until(lambda: totals("api_key", "k1", "minute") == [one, one, two])
    with check.step("hours late, too"):
        line.arrive([event(now - timedelta(hours=4), **fields)])
        line.until(lambda: totals("api_key", "k1", "hour")[0] == one, 2)
    with check.step("per operation_name, in reports and in anybody's SQL"):

        def of_feature(level: str) -> list[int]:
            return [sum(column) for column in zip(*totals("feature", "summarise", level), strict=True)]

        for level in ("minute", "hour", "day", "month"):
            line.until(lambda level=level: of_feature(level) == [5, 5_000, 12_500_000])
        live = f"SELECT calls FROM usage_live WHERE org_id = '{org}' AND scope = 'feature' AND level = 'minute'"
        assert sum(row["calls"] for row in line.sql(live)) == 5
        (shown,) = line.json("report", "spend", "--by", "feature", "--org", org)["rows"]
        assert (shown["operation_name"], shown["calls"], shown["usd_est"]) == ("summarise", 5, 0.0125)


@ALONE
def test_u4(check: Check, line: Line) -> None:
    org = check.org

    def cross(number: int) -> float:
        """Cross a limit of an organisation; return the seconds from the append of the event to that of the alert."""
        name = f"{org}-{number}"
        line.ok("policy", "set", "--org", name, "--daily", "0.01", "--alert-pct", "100")
        (appended,) = line.produce("usage.events", wire([event(org_id=name, output_tokens=2_000)]))
        found = line.until(lambda: line.alerts(org_id=name))
        return max(float(alert["appended_ms"]) - appended for alert in found) / 1_000

    with check.step("an alert on the topic for a limit that is crossed, as CloudEvents"):
        cross(0)
        (alert, *_) = line.alerts(org_id=f"{org}-0")
        assert (alert["specversion"], alert["type"]) == ("1.0", "tollmeter.alert.budget")
        assert alert["data"]["limit_nano"] == 10_000_000
    with check.step("within a second of the event that caused it"):
        delays = sorted(unhindered(cross, range(1, 16), wanted=10))
        assert delays[8] < 1.0, delays
    with check.step("also while ClickHouse is away"):
        line.refresh()
        line.ok("policy", "set", "--org", f"{org}-away", "--daily", "0.01")
        front = line.state["processes"]["front"]["pid"]
        os.kill(front, signal.SIGSTOP)
        try:
            line.produce("usage.events", wire([event(org_id=f"{org}-away", output_tokens=2_000)]))
            line.until(lambda: line.alerts(org_id=f"{org}-away"))
        finally:
            os.kill(front, signal.SIGCONT)
        line.landed(f"org_id = '{org}-away'", 1)
    with check.step("calls older than 48 hours count and alert nobody"):
        line.ok("policy", "set", "--org", f"{org}-old", "--monthly", "0.01")
        old = datetime.now(UTC) - timedelta(hours=60)
        line.arrive([event(old, org_id=f"{org}-old", output_tokens=2_000)])
        line.arrive([event(org_id=f"{org}-old", output_tokens=0, input_tokens=1)])
        line.folded(f"{org}-old", 2, longer=4.0)  # the old one by repair from the ledger
        assert [alert["data"]["kind"] for alert in line.alerts(org_id=f"{org}-old")] == []
    with check.step("calls marked as backfill count and alert nobody"):
        line.ok("policy", "set", "--org", f"{org}-fill", "--daily", "0.01")
        line.produce("usage.events", wire([event(org_id=f"{org}-fill", output_tokens=2_000)]), [MARK])
        yesterday = datetime.now(UTC) - timedelta(hours=20)
        line.produce("usage.events", wire([event(yesterday, org_id=f"{org}-fill", output_tokens=2_000)]), [MARK])
        line.arrive([event(org_id=f"{org}-fill", output_tokens=0, input_tokens=1)])
        line.folded(f"{org}-fill", 3, longer=4.0)  # that of yesterday by repair from the ledger
        assert line.alerts(org_id=f"{org}-fill") == []


def test_u5(check: Check, line: Line) -> None:
    line.arrive(
        [
            event(org_id=check.org, model_sent=UNKNOWN, input_tokens=10),
            event(org_id=f"{check.org}-p", input_tokens=1_000),
        ]
    )
    with check.step("a read-only user: no change, no file, no other address"):
        file = line.folder / "stolen.csv"
        for statement in (
            "TRUNCATE TABLE usage_events",
            "DROP TABLE usage_events",
            "CREATE TABLE mine (a Int8) ENGINE = Memory",
            "INSERT INTO usage_events (org_id) VALUES ('x')",
            "SELECT * FROM url('http://127.0.0.1:1/x', 'RawBLOB')",
            f"SELECT 1 INTO OUTFILE '{file}'",
            f"SELECT * FROM file('{line.data}/users.json', 'RawBLOB')",
            f"SELECT 1 AS `'`, file('{line.data}/users.json') AS `x'`",
        ):
            answer = line.query(statement)
            assert answer.status >= 400, (statement, answer.body[:200])
        assert not file.exists()
    with check.step("views with plain names: calls, hours, days"):
        assert line.one(f"SELECT cost_usd FROM usage WHERE org_id = '{check.org}-p'") == 0.0025
        for view in ("usage_minutely", "usage_hourly", "usage_daily", "token_usage"):
            assert line.sql(f"SELECT * FROM {view} LIMIT 1") is not None
    with check.step("money in USD in every view, not only in nano-USD"):
        for view in ("usage", "usage_hourly", "usage_daily", "token_usage"):
            names = {row["name"] for row in line.sql(f"DESCRIBE TABLE {view}")}
            assert "cost_usd" in names, view
    with check.step("every column of the views says what it is"):
        for view in ("usage", "usage_minutely", "usage_hourly", "usage_daily"):
            silent = [row["name"] for row in line.sql(f"DESCRIBE TABLE {view}") if not row.get("comment")]
            assert not silent, f"{view}: {silent[:5]}"
    with check.step("a group of calls without a known price has no cost, not 0"):
        line.until(lambda: line.sql(f"SELECT cost_nano FROM usage_daily WHERE org_id = '{check.org}'"))
        assert line.one(f"SELECT cost_nano FROM usage_daily WHERE org_id = '{check.org}'") is None
    with check.step("example queries, each of which runs"):
        files = sorted([*ROOT.glob("examples/**/*.sql"), *ROOT.glob("docs/**/*.sql")])
        texts = [file.read_text(encoding="utf-8") for file in files]
        page = ROOT / "docs" / "queries.md"
        if page.is_file():
            texts += re.findall(r"^```sql\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        statements = [one.strip() for text in texts for one in re.split(r";\s*$", text, flags=re.MULTILINE)]
        assert len(statements) >= 5
        for statement in filter(None, statements):
            line.sql(statement)


REQUIRED = (
    *("TOLLMETER_CLICKHOUSE_PASSWORD", "CLICKHOUSE_READER_PASSWORD", "CLICKHOUSE_GRAFANA_PASSWORD"),
    *("GRAFANA_ADMIN_PASSWORD", "API_KEY", "INGEST_KEY"),
)
BASIC = {"authorization": "Basic " + base64.b64encode(b"admin:acceptance").decode()}


def last_day() -> Range:
    now = int(datetime.now(UTC).timestamp() * 1000)
    return Range(now - 86_400_000, now)


def test_u6(check: Check, line: Line) -> None:
    boards = [
        json.loads(file.read_text(encoding="utf-8")) for file in sorted(ROOT.glob("dashboards/grafana/**/*.json"))
    ]
    with check.step("six boards as code in dashboards/"):
        assert len([board for board in boards if board.get("panels")]) >= 6
    with check.step("data source and alert rules, provisioned"):
        text = "".join(file.read_text(encoding="utf-8") for file in ROOT.glob("dashboards/grafana/**/*.y*ml"))
        assert "grafana-clickhouse-datasource" in text
        assert "runbook" in text
    with check.step("every panel's SQL runs as the read-only user"):
        statements = [
            target["rawSql"]
            for board in boards
            for panel in board.get("panels", [])
            for target in panel.get("targets", [])
        ]
        assert statements
        for statement in statements:
            line.sql(expanded(statement, last_day(), {"zone": "Europe/Berlin"}))
    with check.step("shown by a real Grafana"):
        docker()
        composed("grafana")
        boards_there = request("http://127.0.0.1:3000/api/search?tag=tollmeter", "GET", BASIC).document
        assert len(boards_there) >= 6


def test_u7(check: Check, line: Line) -> None:
    told = TOLD_ORG
    user = f"u-{check.org}"
    line.ok(
        "policy",
        "set",
        "--org",
        told,
        "--scope",
        "user",
        "--name",
        user,
        "--create",
        "--daily",
        "0.01",
        "--alert-pct",
        "50",
    )
    line.produce("usage.events", wire([event(org_id=told, user_id=user, output_tokens=600)]))
    alert = line.until(lambda: line.alerts(org_id=told, name=user))[0]
    with check.step("the log"):
        log = line.data / "logs" / "notify.log"
        line.until(lambda: alert["id"] in log.read_text(encoding="utf-8"))
    with check.step("a signed webhook, tried again after an error, told once"):
        line.until(lambda: alert["id"] in line.receivers.told())
        assert [body["alert"]["id"] for body in line.receivers.told()[alert["id"]]] == [alert["id"]]
        assert line.receivers.hook.requests[0][0]["webhook-id"] == line.receivers.hook.requests[1][0]["webhook-id"]
        headers, body = line.receivers.hook.requests[0]
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(base64.b64decode(HOOK_KEY), signed, sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
    with check.step("mail"):
        line.until(lambda: any(alert["id"] in str(mail["Message-ID"]) for mail in line.receivers.mails))
    with check.step("a chat that apprise knows"):
        line.until(lambda: any(user.encode() in body for _, body in list(line.receivers.chat.requests)))
    with check.step("a digest instead of a storm"):
        storm = f"s-{check.org}"
        steps = [word for pct in range(5, 100, 5) for word in ("--alert-pct", str(pct))]
        line.ok(
            "policy", "set", "--org", told, "--scope", "user", "--name", storm, "--create", "--daily", "0.01", *steps
        )
        line.produce("usage.events", wire([event(org_id=told, user_id=storm, output_tokens=990)]))
        line.until(lambda: len(line.alerts(org_id=told, name=storm)) >= 19)
        ids = {one["id"] for one in line.alerts(org_id=told, name=storm)}
        line.until(
            lambda: [
                subject for subject in line.receivers.subjects() if "digest" in subject.lower() or " alerts" in subject
            ]
        )
        assert len(ids & set(line.receivers.told())) <= 6
    with check.step("each has a state and who was told"):
        (listed,) = [one for one in line.json("alerts", "list") if one["id"] == alert["id"]]
        assert listed["state"] == "open"
        assert "sent" in json.dumps(listed)


def docker() -> None:
    """Raise `Lacking` without a Docker engine."""
    found = shutil.which("docker")
    if not found or subprocess.run([found, "info"], check=False, capture_output=True, timeout=60).returncode:
        raise Lacking("no Docker engine")


def composed(*services: str) -> None:
    """Bring up the compose file, or some of it, and wait until it is well."""
    command = ["docker", "compose", "up", "--build", "--wait", *services]
    given = dict.fromkeys(REQUIRED, "acceptance")
    assert subprocess.run(command, cwd=ROOT, env=os.environ | given, check=False, timeout=1_200).returncode == 0


def test_u8(check: Check) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    services = compose["services"]
    with check.step("Kafka, ClickHouse and the workers, restarted unless stopped, with persistent volumes"):
        assert {"kafka", "clickhouse", "price", "ledger", "watch", "notify"} <= set(services)
        lasting = {name: one for name, one in services.items() if name != "setup"}
        assert {one.get("restart") for one in lasting.values()} == {"unless-stopped"}
        assert set(compose["volumes"]) >= {"kafka-data", "clickhouse-data"}
    with check.step("health checks of every lasting service"):
        assert [name for name, one in services.items() if name != "setup" and "healthcheck" not in one] == []
    with check.step("the settings in .env.example"):
        text = (ROOT / ".env.example").read_text(encoding="utf-8")
        assert "TOLLMETER_CLICKHOUSE_PASSWORD=" in text
    with check.step("Grafana"):
        assert "grafana" in services
    with check.step("one image, built once"):
        built = [name for name, one in services.items() if "build" in one]
        assert len(built) == 1, built
    with check.step("`docker compose up` brings it all up"):
        docker()
        composed()
