"""What a careful meter has besides: rows P1 to P17."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl

from tests.acceptance.beside import ALONE
from tests.acceptance.checks import ROW, Check, Lacking
from tests.acceptance.payloads import ANSWERS
from tests.acceptance.rates import BY_HOUR, DATED, OWN_PROVIDER
from tests.acceptance.shop import ASK, KEY, SECRET_WORDS, Shop
from tests.acceptance.stack import KEYS, Line
from tests.acceptance.world import ORG, UNKNOWN, World, cost_nano, event, wire
from tollmeter.producers.guard.guard import Allow, overshoot_bound
from tollmeter.schemas.secrets import mask_ip

pytestmark = ROW

ROOT = Path(__file__).parents[2]


@ALONE
def test_p1(check: Check, line: Line) -> None:
    org = check.org
    first = event(org_id=org, input_tokens=1_000, output_tokens=200, user_id="ann")
    line.arrive([first])
    with check.step("resent, an event counts once"):
        line.produce("usage.events", wire([first] * 3))
        line.arrive([event(org_id=f"{org}-after")])
        line.folded(org, 1)
        line.landed(f"org_id = '{org}'", 1)
    with check.step("kill -9 of each stage loses nothing and doubles nothing"):
        calls = [event(org_id=f"{org}-k", input_tokens=1_000) for _ in range(400)]
        for number, stage in enumerate(("price", "ledger", "watch")):
            line.produce("usage.events", wire(calls[number * 130 : number * 130 + 130]))
            line.refresh()
            os.kill(line.state["processes"][stage]["pid"], signal.SIGKILL)
            line.produce("usage.events", wire(calls[number * 130 : number * 130 + 65]))
        line.produce("usage.events", wire(calls[390:]))
        line.landed(f"org_id = '{org}-k'", 400, 3)
        line.folded(f"{org}-k", 400, 3)
        assert line.one(f"SELECT sum(cost_nano) FROM usage WHERE org_id = '{org}-k'") == 400 * 2_500_000
    with check.step("the same id with other content: the first wins everywhere"):
        line.arrive([first])
        line.produce("usage.events", wire([first | {"input_tokens": 9_000}]))
        line.arrive([event(org_id=f"{org}-after")])
        assert [row["input_tokens"] for row in line.sql(f"SELECT * FROM usage WHERE org_id = '{org}'")] == [1_000]
    with check.step("the same id with another time: the first wins everywhere, without anybody's doing"):
        line.produce("usage.events", wire([first | {"occurred_at": first["occurred_at"] + 1_000_000}]))
        marker = event(org_id=f"{org}-after")
        line.arrive([marker])
        line.until(lambda: line.one(f"SELECT count() FROM usage WHERE org_id = '{org}'") == 1, 0.2)
    with check.step("repeats and conflicts are counted and shown"):
        document = line.run("verify", "--wait", "120s", "--json").document
        assert document["resends"] >= 3
        told = {found["name"] for found in document["differences"] if first["event_id"] in found["detail"]}
        assert "resend_with_other_content" in told
        (listed,) = [one for one in document["several_times"] if one["event_id"] == first["event_id"]]
        assert (len(listed["times"]), listed["counted"]) == (2, 1)
    with check.step("late events are shown"):
        late = event(datetime.now(UTC) - timedelta(hours=5), org_id=f"{org}-late", input_tokens=1_000)
        line.arrive([late])
        counted = r"^tollmeter_events_late_total(?:\{.*?\})? ([0-9.e+]+)$"

        def late_ones() -> float:
            text = line.health("watch", "/metrics").body.decode()
            return sum(float(number) for number in re.findall(counted, text, re.MULTILINE))

        line.until(late_ones)


def test_p2(check: Check, line: Line) -> None:
    for name, (options, answer, expected) in ANSWERS.items():
        with check.step(f"the answer of {name}"):
            text = answer if isinstance(answer, str) else json.dumps(answer)
            file = line.folder / "answer"
            file.write_text(text, encoding="utf-8")
            done = line.run("quote", str(file), "--json", *options)
            assert done.code == 0, done.err.strip()[-200:]
            (quoted,) = done.document["events"]
            found = {field: quoted["event"].get(field, 0) for field in expected}
            assert found == expected


def test_p3(check: Check, line: Line, world: World) -> None:
    org = check.org
    shown = line.json("prices", "show", "gpt-4o")
    with check.step("each row of the book names its source and version"):
        assert re.fullmatch(r"genai-prices-\S+", shown["price_book"])
        assert all(rule["source"] and rule["rule_id"] for rule in shown["rules"])
    with check.step("dated prices: what held then, and what holds now"):
        before = datetime.now(UTC) - timedelta(days=5)
        calls = [
            event(at, org_id=org, provider=OWN_PROVIDER, model_sent=DATED, input_tokens=1_000) for at in (before, None)
        ]
        rows = line.arrive(calls)
        assert [rows[one["event_id"]]["cost_nano"] for one in calls] == [1_000_000, 3_000_000]
        assert {row["price_status"] for row in rows.values()} == {"OVERRIDE"}
    with check.step("an override layer: half the list price by contract"):
        named = {"org_id": org, "provider": "anthropic", "model_sent": "claude-haiku-4-5"}
        (row,) = line.arrive([event(input_tokens=1_000, output_tokens=100, **named)]).values()
        assert (row["price_status"], row["cost_nano"]) == ("OVERRIDE", (1_000_000 + 500_000) // 2)  # 1 and 5 USD
    with check.step("batch, cached and priority rates"):
        rows = line.arrive(
            [
                event(org_id=org, input_tokens=1_000, output_tokens=100, processing="BATCH"),
                event(org_id=org, input_tokens=1_000, output_tokens=100, cache_read_tokens=400),
                event(org_id=org, input_tokens=1_000, output_tokens=100, service_tier="priority"),
            ]
        )
        assert sorted(row["cost_nano"] for row in rows.values()) == [
            1_750_000,
            cost_nano("gpt-4o", 1_000, 100, 400),
            4_250_000 + 1_700_000,
        ]
    with check.step("flex, long-context and off-peak rates"):
        noon = (datetime.now(UTC) - timedelta(days=1)).replace(hour=12, minute=0, second=0, microsecond=0)
        hourly = {"org_id": org, "provider": OWN_PROVIDER, "model_sent": BY_HOUR, "input_tokens": 1_000}
        calls = [
            event(org_id=org, model_sent="gpt-5", input_tokens=1_000, output_tokens=100, service_tier="flex"),
            event(org_id=org, provider="google", model_sent="gemini-2.5-pro", input_tokens=300_000, output_tokens=100),
            event(noon - timedelta(hours=1), **hourly),
            event(noon, **hourly),
        ]
        rows = line.arrive(calls)
        # flex halves 1.25 and 10 USD; above 200,000 input tokens 2.50 and 15 USD
        assert [rows[one["event_id"]]["cost_nano"] for one in calls] == [1_125_000, 751_500_000, 1_000_000, 2_000_000]
    with check.step("an unknown model is NULL, with an amount at risk that counts toward limits"):
        line.ok("policy", "set", "--org", f"{org}-r", "--daily", "0.001")
        (row,) = line.arrive(
            [event(org_id=f"{org}-r", model_sent=UNKNOWN, input_tokens=10_000, output_tokens=10_000)]
        ).values()
        assert (row["price_status"], row["cost_nano"]) == ("UNKNOWN_MODEL", None)
        assert row["at_risk_nano"] > 10_000 * 10_000
        line.until(lambda: line.alerts(org_id=f"{org}-r"))
    with check.step("unknown providers have an amount at risk, too"):
        nobody: dict[str, Any] = {
            "org_id": org,
            "provider": "nobody-ai",
            "model_sent": "nobody-1",
            "input_tokens": 10_000,
        }
        (row,) = line.arrive([event(**nobody)]).values()
        assert row["cost_nano"] is None
        assert (row["at_risk_nano"] or 0) > 0
    with check.step("shown beside every total"):
        for command in (["report", "spend", "--by", "model"], ["report", "operations"], ["report", "calls"]):
            assert "unknown cost" in line.ok(*command), command
        today = line.json("report", "today")["totals"]
        assert today["unpriced"] >= 1
        assert today["usd_at_risk"] > 0
    with check.step("amounts at risk in JSON, too"):
        for command in (["report", "spend"], ["report", "operations"], ["report", "summary"]):
            assert "at_risk" in json.dumps(line.json(*command)), command


def test_p4(check: Check, line: Line) -> None:
    (row,) = line.arrive(
        [event(org_id=check.org, model_sent="priced-later-1", provider=OWN_PROVIDER, input_tokens=1_000_000)]
    ).values()
    assert row["cost_nano"] is None
    file = line.folder / "later.yaml"
    rule = f"provider: {OWN_PROVIDER}, model: priced-later-1, source: contract, usd_per_mtok: {{input_tokens: 2}}"
    file.write_text(f"version: 1\nrates:\n  - {{name: later, {rule}}}\n", encoding="utf-8")
    command = ("reprice", "--from", f"{datetime.now(UTC).date()}", "--org", check.org, "--overrides", str(file))
    with check.step("a dry run shows before and after"):
        shown = line.json(*command, "--dry-run")
        (changed,) = shown["rows"]
        assert (changed["model"], changed["unpriced_before"], changed["after_nano"]) == ("priced-later-1", 1, 2 * 10**9)
        assert line.one(f"SELECT countIf(cost_nano IS NULL) FROM usage WHERE org_id = '{check.org}'") == 1
    with check.step("corrections bring ledger and totals to the new price"):
        line.ok(*command)
        line.until(lambda: line.one(f"SELECT sum(cost_nano) FROM usage WHERE org_id = '{check.org}'") == 2_000_000_000)
        line.until(
            lambda: (
                line.one(
                    "SELECT sum(cost_nano) FROM usage_windows FINAL "
                    f"WHERE org_id = '{check.org}' AND level = 'month' AND scope = 'org'"
                )
                == 2_000_000_000
            )
        )
    with check.step("done again, it changes nothing"):
        assert line.json(*command)["changed"] == 0
    with check.step("what the calls would have cost with another model"):
        other = line.json("whatif", "--model", "priced-later-1=openai/gpt-4o", "--org", check.org, "--since", "48h")
        assert other["after_nano"] == 2_500_000_000


def test_p5(check: Check, line: Line, shop: Shop) -> None:
    org, url = check.org, shop.provider.url
    program = line.folder / "app.py"
    program.write_text(
        "import openai\nclient = openai.OpenAI(max_retries=0)\n"
        f"client.chat.completions.create(model='gpt-4o', messages={ASK!r}, max_tokens=50)\n",
        encoding="utf-8",
    )
    keys = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"{url}/v1"}
    with check.step("CloudEvents on Kafka"):
        made = event(org_id=f"{org}-ce", input_tokens=1_000, output_tokens=200)
        envelope = {
            "specversion": "1.0",
            "id": made["event_id"],
            "source": "shop",
            "type": "tollmeter.usage.v1",
            "time": datetime.now(UTC).isoformat(),
            "datacontenttype": "application/json",
            "data": made,
        }
        content = [("content-type", b"application/cloudevents+json")]
        line.produce("usage.events", [json.dumps(envelope).encode()], content)
        line.landed(f"org_id = '{org}-ce' AND cost_nano = 4500000", 1)
    with check.step("`tollmeter run -- python app.py` meters the SDKs without a change"):
        done = line.run("run", "--org", org, "--", sys.executable, str(program), **keys)
        assert done.code == 0, done.err.strip()[-300:]
        line.landed(f"org_id = '{org}' AND status = 'OK'", 1)
    with check.step("`tollmeter.instrument()` in one line"):
        text = f"import tollmeter\ntollmeter.instrument(org_id='{org}-i')\n{program.read_text(encoding='utf-8')}"
        done = line.python(text, **keys)
        assert done.code == 0, done.err.strip()[-300:]
        line.landed(f"org_id = '{org}-i' AND status = 'OK'", 1)
    for words, module, hook in (
        ("a LiteLLM callback", "litellm", "TollmeterLogger"),
        ("a LangChain callback", "langchain", "TollmeterHandler"),
        ("OpenTelemetry GenAI spans", "otel", "TollmeterSpanProcessor"),
        ("a processor for OpenAI Agents", "openai_agents", "TollmeterProcessor"),
        ("settings for pydantic-ai", "pydantic_ai", "metered"),
    ):
        with check.step(words):  # tests/contracts/test_integrations.py has each at work
            text = f"from tollmeter.producers.integrations.{module} import {hook}"
            done = line.python(text, LITELLM_LOCAL_MODEL_COST_MAP="True")
            assert done.code == 0, done.err.strip().splitlines()[-1]
    with check.step("snippets for TypeScript and Go that run"):
        tools = {name: shutil.which(name) for name in ("node", "npm", "go")}
        if not all(tools.values()):
            raise Lacking("no Node.js, npm or Go")
        script = compiled(line.folder / "snippet")
        addresses = {"TOLLMETER_URL": line.server, "INGEST_KEY": KEYS["INGEST_KEY"]}
        for command in (["node", str(script)], ["go", "run", str(ROOT / "examples" / "meter.go")]):
            ended = started(command, line.environment | keys | addresses)
            assert (ended.returncode, ended.stdout.strip()) == (0, "200"), ended.stderr
        line.landed("service IN ('shop-ts', 'shop-go') AND input_tokens = 1000 AND cost_nano = 5000000", 2)


def compiled(folder: Path) -> Path:
    """Check the types of the TypeScript example and return it as JavaScript."""
    folder.mkdir(exist_ok=True)
    install = "npm install --no-audit --no-fund --silent typescript@5.9"
    check = "npx tsc --strict --target es2023 --module esnext --moduleResolution bundler --lib es2023,dom --outDir out"
    for command in (install.split(), [*check.split(), str(ROOT / "examples" / "meter.ts")]):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    return (folder / "out" / "meter.js").rename(folder / "out" / "meter.mjs")


def started(command: list[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


MANDATORY = """
BilledCost BillingAccountId BillingAccountName BillingCurrency BillingPeriodEnd BillingPeriodStart ChargeCategory
ChargeClass ChargeDescription ChargePeriodEnd ChargePeriodStart ContractedCost EffectiveCost InvoiceIssuerName ListCost
PricingQuantity PricingUnit ProviderName PublisherName ServiceCategory ServiceName
"""


def test_p6(check: Check, line: Line, world: World) -> None:
    with check.step("CSV with the 57 columns of FOCUS 1.2, the mandatory ones filled"):
        text = line.ok("export", "--focus", "1.2", "--org", ORG, "--format", "csv")
        head = text.splitlines()[0].split(",")
        assert len(head) == 57
        assert set(MANDATORY.split()) <= set(head)
        rows = list(csv.DictReader(io.StringIO(text)))
        assert not [row for row in rows if any(row[name] == "" for name in MANDATORY.split() if name != "ChargeClass")]
        billed = sum(Decimal(row["BilledCost"]) for row in rows)
        assert billed * 10**9 == sum(call.nano or 0 for call in world.within(24))
    with check.step("the same as Parquet, and in version 1.0"):
        words = ("--focus", "1.0", "--org", ORG, "--format", "parquet", "--output", "focus.parquet")
        line.ok("export", *words)
        frame = pl.read_parquet(line.folder / "focus.parquet")
        assert (frame.width, frame["BilledCost"].sum()) == (43, billed)


def test_p7(check: Check, line: Line, shop: Shop) -> None:
    org = check.org
    line.ok("policy", "set", "--org", org, "--monthly", "0.05")
    question: dict[str, Any] = {"org": org, "provider": "openai", "prompt_tokens": 0, "max_output_tokens": 3_000}
    with check.step("what is in flight is held: the budget covers one such call of 0.03 USD, not two"):

        def one_in_flight() -> list[Allow]:
            first, second = (shop.guard.check("gpt-4o", **question) for _ in range(2))
            if isinstance(first, Allow) and not second:
                return [first]
            for decision in (first, second):
                if isinstance(decision, Allow):
                    decision.reservation.release()
            return []

        (held,) = line.until(one_in_flight)
        said = shop.denied(**question).body["message"]
        assert said == "llm cost limit exceeded: monthly cost limit reached"
    with check.step("given back when the call fails, the next may go"):
        held.reservation.release()
        assert line.until(lambda: shop.guard.check("gpt-4o", **question))
    with check.step("the bound on the overshoot follows from settings alone"):
        # (guards - 1) x dearest call
        assert overshoot_bound(10_000_000_000, 4, 50_000_000) == 3 * 50_000_000


def test_p8(check: Check, line: Line) -> None:
    org = check.org
    line.ok("policy", "set", "--org", org, "--scope", "provider", "--name", "openai", "--monthly", "100")
    line.arrive([event(org_id=org, output_tokens=80_000)])
    report = line.json("report", "budget", "--org", org)
    with check.step("the spend at the month's end at the pace so far"):
        (budget,) = report["budgets"]
        at = datetime.fromisoformat(report["at"]).timestamp()
        share = (at - budget["starts_s"]) / (budget["ends_s"] - budget["starts_s"])
        if share < 0.03:
            assert budget["forecast"] is None or budget["forecast"] >= 0.8
        else:
            assert abs(budget["forecast"] - 0.8 / share) < 0.01
    with check.step("in words for people"):
        assert "at the end of the period, at this pace" in line.ok("report", "budget", "--org", org)


@ALONE
def test_p9(check: Check, line: Line, shop: Shop) -> None:
    org = check.org
    shop.ask(org, user_id="forget-me", client_ip="203.0.113.200")
    shop.producer.flush(30)
    line.landed(f"org_id = '{org}'", 1)
    with check.step("no prompt and no key anywhere in the data folder"):
        words = (SECRET_WORDS.encode(), KEY.encode())
        for file in (one for one in line.data.rglob("*") if one.is_file() and not one.is_symlink()):
            content = file.read_bytes()
            assert not any(word in content for word in words), file
    with check.step("addresses full, truncated or keyed-hashed by setting"):
        assert mask_ip("203.0.113.200") == "203.0.113.200"
        assert mask_ip("203.0.113.200", "truncated") == "203.0.113.0"
        assert mask_ip("203.0.113.200", "hashed", "a") not in ("", mask_ip("203.0.113.200", "hashed", "b"))
    with check.step("a person is forgotten, with a proof; totals stay"):
        before = line.one(f"SELECT sum(cost_nano) FROM usage WHERE org_id = '{org}'")
        proof = line.json("forget", "--user", "forget-me", "--org", org)
        assert (proof["calls"], proof["totals_kept"], proof["forgotten"]) == (1, True, True)
        assert "forget-me" not in json.dumps(proof)
        assert line.one(f"SELECT count() FROM usage_windows WHERE name = 'forget-me' AND org_id = '{org}'") == 0
        line.until(lambda: line.one(f"SELECT count() FROM usage WHERE user_id = 'forget-me' AND org_id = '{org}'") == 0)
        assert line.one(f"SELECT sum(cost_nano) FROM usage WHERE org_id = '{org}'") == before


def test_p10(check: Check, line: Line) -> None:
    def made(table: str) -> str:
        answer = line.query(
            f"SELECT create_table_query FROM system.tables WHERE database = 'tollmeter' AND name = '{table}'", "default"
        )
        return answer.body.decode()

    with check.step("each table keeps its rows for a time of its own"):
        for table, days in (("usage_events", 400), ("usage_windows", 400), ("alerts", 800), ("ledger_coverage", 400)):
            assert f"toIntervalDay({days})" in made(table), table
    with check.step("a setting changes it"):
        assert "toIntervalDay(777)" in made("usage_minutes")


@ALONE
def test_p11(check: Check, line: Line) -> None:
    document = line.run("verify", "--deep", "--wait", "120s", "--json").document
    with check.step("records = accepted + rejected; accepted = distinct + resends; distinct = ledger"):
        assert document["records"] == document["accepted"] + document["rejected"]
        assert document["accepted"] == document["distinct"] + document["resends"]
        assert document["distinct"] == document["ledger"] + document["voided"]
        assert document["ledger"] > 100
    with check.step("read again from the source log, each counted on its own, and no difference"):
        assert {name: document[name] for name in document["deep"]} == document["deep"]
        assert wrong(document) == []


def wrong(verified: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what differs. Ids that came with two contents or times are found, too: that is what it is for."""
    conflicts = {"resend_with_other_content", "id_with_several_times"}
    return [found for found in verified["differences"] if found["name"] not in conflicts]


@ALONE
def test_p12(check: Check, line: Line) -> None:
    mark = uuid4().hex
    line.produce("usage.events", [json.dumps({"event_id": mark, "nothing": "else"}).encode()])
    good = event(org_id=check.org)

    with check.step("listed with the reason, its neighbours unharmed"):
        line.arrive([good])
        newest = line.until(lambda: line.json("dlq", "list"))[0]
        assert newest["reason"]
    with check.step("shown with its content"):
        assert any(mark in record.value.decode(errors="replace") for record in line.records("usage.dlq"))
        assert mark in line.ok("dlq", "show", str(newest["id"]))
    with check.step("tried again on demand"):
        done = line.run("dlq", "retry", str(newest["id"]), "--json")
        assert done.code == 0, done.err.strip()


@ALONE
def test_p13(check: Check, line: Line) -> None:
    stages = ("price", "ledger", "watch")
    with check.step("health checks of every worker"):
        for stage in stages:
            for path in ("/livez", "/readyz", "/startupz"):
                assert line.until(lambda: line.health(stage, path)).status == 200  # noqa: B023
    with check.step("Prometheus metrics without a name from outside"):
        for stage in stages:
            text = line.health(stage, "/metrics").body.decode()
            assert "tollmeter_" in text
            assert ORG not in text
    with check.step("a page in the runbook for every kind of alert that was raised"):
        page = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
        kinds = {alert["data"]["kind"] for alert in line.alerts()} - {"report", "test"}
        assert kinds
        assert not [kind for kind in kinds if f"### `{kind}`" not in page]
    with check.step("a restore that was drilled, with its commands"):
        drill = page.partition("### Restore drill")[2].partition("\n### ")[0]
        commands = drill.partition("```sh\n")[2].partition("```")[0]
        for command in ("tollmeter backup", "tollmeter restore", "tollmeter verify --repair"):
            assert command in commands
        org, sums = check.org, "SELECT toString(sum(toInt128(cost_nano))) FROM usage_events FINAL WHERE org_id = "
        line.arrive([event(org_id=org, input_tokens=1_000, output_tokens=number) for number in range(20)])
        saved = line.json("backup", f"backup-{org}")
        assert saved["ledger"]["calls"] >= 20
        line.arrive([event(org_id=org, input_tokens=7)])
        before = line.one(f"{sums}'{org}'")
        line.written("DROP DATABASE tollmeter SYNC")
        line.ok("restore", f"backup-{org}")
        line.until(lambda: not wrong(line.run("verify", "--repair", "--json").document), 3)
        assert line.one(f"{sums}'{org}'") == before
        assert wrong(line.run("verify", "--json").document) == []


def test_p14(check: Check, line: Line) -> None:
    key = f"k-{check.org}"
    line.arrive([event(org_id=check.org, api_key_id=key, client_ip="192.0.2.77", output_tokens=10_000)])
    with check.step("live burn rate per key, address and model"):
        for dimension, name in (("key", key), ("ip", "192.0.2.77"), ("model", "gpt-4o-2024-08-06")):
            shown = line.json("top", "--once", "--by", dimension, "--org", check.org, "--window", "1h")
            (row,) = shown["rows"]
            assert row["name"] == name or dimension == "model"
            assert (row["calls"], row["cost_nano"]) == (1, 100_000_000)
            assert shown["age_s"] < 60
    with check.step("what changed against the same hour before"):
        changed = line.json("report", "changes", "--org", check.org)
        (mover,) = changed["movers"]
        assert (mover["api_key_id"], mover["usd_est"], mover["usd_before"], mover["usd_more"]) == (key, 0.1, 0, 0.1)
        assert {"kind": "key", "name": key} in [{"kind": one["kind"], "name": one["name"]} for one in changed["new"]]
    with check.step("an alert when a service falls silent"):
        page = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
        assert "### `silent`" in page
        service = f"svc-{check.org}"
        # days of a service cannot be waited for: its calls are written into the ledger, and taken out again
        line.written(
            "INSERT INTO usage_events (event_id, event_time, received_at, org_id, service, status, revision) "
            "SELECT generateUUIDv4(), now() - INTERVAL 60 HOUR + INTERVAL number HOUR AS at, at, "
            f"'{check.org}', '{service}', 'OK', 1 FROM numbers(48)"
        )
        try:
            line.until(lambda: service in line.ok("alerts", "list"), 4)
        finally:
            line.written(f"DELETE FROM usage_events WHERE service = '{service}'")


@ALONE
def test_p15(check: Check, line: Line, world: World) -> None:
    with check.step("a frozen statement of a month; later events are adjustments"):
        last = datetime.now(UTC).replace(day=1) - timedelta(days=2)
        words = ("close", f"{last:%Y-%m}", "--org", check.org)
        line.arrive([event(last, org_id=check.org, output_tokens=1_000)])
        closed = line.json(*words)
        assert (closed["totals"]["cost_nano"], closed["closed_now"], closed["adjustments"]) == (10_000_000, True, [])
        line.arrive([event(last, org_id=check.org, output_tokens=500)])
        again = line.json(*words)
        assert (again["hash"], again["totals"]) == (closed["hash"], closed["totals"])
        (change,) = again["not_booked_yet"]
        assert (change["month"], change["calls"], change["cost_nano"]) == (f"{last:%Y-%m}", 1, 5_000_000)
        assert line.run("close", f"{datetime.now(UTC):%Y-%m}").code == 2
        line.ok(*words, "--reopen", "--reason", "late invoice")
        assert line.json(*words)["totals"]["cost_nano"] == 15_000_000
        line.ok(*words, "--csv", "statement.csv", "--html", "statement.html")
        assert "gpt-4o" in (line.folder / "statement.html").read_text(encoding="utf-8")
    with check.step("every total with what is unpriced"):
        for command in (["report", "spend"], ["report", "calls"], ["report", "operations"]):
            assert "not in it:" in line.ok(*command), command
    with check.step("every total with what is estimated, the day of the rates and the price book"):
        text = line.ok("report", "spend")
        assert "estimated" in text
        assert "genai-prices" in text


@ALONE
def test_p16(check: Check, line: Line) -> None:
    with check.step("a dry run of set-up names topics and tables"):
        steps = line.json("setup", "--dry-run")
        assert {step["kind"] for step in steps} >= {"topic", "layout", "migration"} or all(
            step["done"] for step in steps
        )
        assert any("usage.events" in json.dumps(step) for step in steps)
    with check.step("the dry run names access rules and grants"):
        shown = line.json("setup", "--dry-run")
        writers = {
            one["detail"].split(": ")[0] for one in shown if one["name"] == "usage.priced" and "Write" in one["detail"]
        }
        assert writers == {f"User:tollmeter-{role}" for role in ("price", "ledger", "watch", "server", "admin")}
        grants = {one["statement"] for one in shown if one["kind"] == "grant"}
        assert "GRANT SHOW, SELECT ON tollmeter.* TO reader" in grants
        text = line.ok("setup", "--dry-run", "--statements")
        assert "--allow-principal User:tollmeter-price --operation Read" in text
    with check.step("`doctor` says what is wrong"):
        seen = line.run("doctor", "--json", TOLLMETER_RETENTION_MINUTES_DAYS="777")  # as the stack has it
        found = {one["name"]: one for one in seen.document["checks"]}
        for name in ("broker", "topics and layout", "topics' configuration", "ClickHouse", "tables", "lag of price"):
            assert found[name]["state"] == "ok", found[name]
        assert seen.code == (1 if seen.document["counts"].get("wrong") else 0)
        other = {one["name"]: one for one in line.run("doctor", "--json").document["checks"]}["tables"]
        assert (other["state"], "usage_minutes: keep 800 days" in other["found"]) == ("warning", True)
        away = line.run("doctor", "--json", TOLLMETER_KAFKA="127.0.0.1:9")
        broker = next(one for one in away.document["checks"] if one["name"] == "broker")
        assert (away.code, broker["state"]) == (1, "wrong")
        assert "TOLLMETER_KAFKA" in broker["do"]
    with check.step("upgrade, roll back, backup and restore are written down"):
        page = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
        for title in ("### Upgrade and roll back", "### Restore drill"):
            assert title in page
    with check.step("a table of sizes"):
        page = (ROOT / "docs" / "sizing.md").read_text(encoding="utf-8")
        table = [line.strip("| ").split(" | ") for line in page.splitlines() if re.match(r"\| [\d,]+ \| \d+ \+ ", line)]
        rates = [int(cells[0].replace(",", "")) for cells in table]
        assert (rates[0], rates[-1]) == (100, 50_000)
        assert [len(cells) for cells in table] == [7] * len(rates)
        partitions = [int(cells[-1]) for cells in table]
        assert partitions == sorted(partitions)
        assert all(
            sum(map(int, cells[1].split(" + "))) <= 3 * count for cells, count in zip(table, partitions, strict=True)
        )
    with check.step("a Dockerfile that runs as nobody"):
        assert re.search(r"^USER (?!root)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)


def test_p17(check: Check, line: Line) -> None:
    with check.step("`send` shows the call land, priced"):
        sent = line.json("send", "--org", check.org, "--model", "gpt-4o", "--in", "1000", "--out", "200")
        assert (sent["acknowledged"], sent["row"]["cost_nano"], sent["row"]["price_status"]) == (
            True,
            4_500_000,
            "PRICED",
        )
    with check.step("`status` shows every process, `up` a second time says that it runs"):
        status = line.json("status")
        assert {"broker", "front", "price", "ledger", "watch"} <= {
            row["name"] for row in status["processes"] if row["up"]
        }
        again = line.run("up", "--detach")
        assert (again.code, len(again.err.strip().splitlines())) == (2, 1)
    with check.step("an empty cost says why, with the nearest name"):
        text = line.ok("send", "--org", check.org, "--model", "gpt-4oo", "--in", "10")
        assert "UNKNOWN_MODEL" in text
        assert "gpt-4o" in text.replace("gpt-4oo", "")
    with check.step("an image can be sent"):
        done = line.run("send", "--org", check.org, "--model", "dall-e-3", "--images", "1", "--json")
        assert done.code == 0, done.err.strip()
        assert done.document["row"]["cost_nano"] == 40_000_000
    with check.step("a mistyped command is answered with the right one"):
        typo = line.run("sned")
        assert typo.code == 2
        assert "send" in typo.err
