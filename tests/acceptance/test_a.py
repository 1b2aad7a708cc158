"""Finding a leak: rows A1 to A13."""

import csv
import io
import json
import re
import shlex
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.acceptance import tokens
from tests.acceptance.checks import ROW, Check
from tests.acceptance.receivers import MAIL_ORG
from tests.acceptance.shop import KEY, Shop, lines, log_line
from tests.acceptance.stack import KEYS, Line
from tests.acceptance.world import ORG, World, event, usd, wire
from tests.bills import costs_page, november, usage_page
from tollmeter.producers.middleware.wsgi import MeterWSGI
from tollmeter.schemas.secrets import key_id

pytestmark = ROW

ROOT = Path(__file__).parents[2]
DOUBTS = {"refused", "unpriced", "usd_at_risk", "estimated", "corrected", "failed"}
LINE_KEYS = "t severity request_id client_ip model_sent model_used prompt_chars usage est_cost api_key_id timestamp"


def test_a1(check: Check, line: Line, world: World) -> None:
    rows = line.json("report", "calls", "--top", "20", "--since", "24h")["rows"]
    expected = sorted((c for c in world.within(24) if c.nano), key=lambda c: -(c.nano or 0))[:20]
    with check.step("the twenty dearest calls of a day, dearest first, with exact cost"):
        assert [row["request_id"] for row in rows] == [call.request_id for call in expected]
        assert [row["est_cost"] for row in rows] == [usd(call.nano, 9) for call in expected]
    with check.step("exactly the nine keys"):
        keys = ["ts", "model_sent", "model_used", "pt", "ot", "est_cost", "client_ip", "request_id", "api_key_id"]
        assert [list(row) for row in rows] == [keys] * 20
    with check.step("time, models, tokens and key of each"):
        for row, call in zip(rows, expected, strict=True):
            assert datetime.fromisoformat(row["ts"]) == call.at
            assert (row["pt"], row["ot"], row["api_key_id"]) == (call.input_tokens, call.output_tokens, call.api_key_id)
            assert (row["model_sent"], row["model_used"]) == ("gpt-4o", "gpt-4o")
    with check.step("an address that is not known is null"):
        assert [row["client_ip"] for row in rows] == [call.client_ip or None for call in expected]


def test_a2(check: Check, line: Line, world: World) -> None:
    rows = line.json("report", "spend", "--by", "model,key", "--since", "48h")["rows"]
    with check.step("the six keys, in order and first; behind them only what is not known"):
        keys = ["model", "api_key_id", "calls", "prompt_tokens", "output_tokens", "usd_est"]
        assert [list(row)[:6] for row in rows] == [keys] * len(rows)
        assert {name for row in rows for name in list(row)[6:]} <= DOUBTS
    groups = defaultdict(list)
    for call in world.within(48):
        groups[call.model_sent, call.api_key_id].append(call)
    shown = {(row["model"], row["api_key_id"]): row for row in rows}
    with check.step("calls and tokens of each model and key in 48 hours"):
        for group, calls in groups.items():
            row = shown[group]
            sums = [len(calls), sum(c.input_tokens for c in calls), sum(c.output_tokens for c in calls)]
            assert [row["calls"], row["prompt_tokens"], row["output_tokens"]] == sums, group
    with check.step("USD with four decimals, half-even; an unknown cost is null"):
        for group, calls in groups.items():
            known = [call.nano for call in calls if call.nano is not None]
            assert shown[group]["usd_est"] == (usd(sum(known)) if known else None), group
    with check.step("dearest first"):
        amounts = [-1.0 if row["usd_est"] is None else row["usd_est"] for row in rows]
        assert amounts == sorted(amounts, reverse=True)


def test_a3(check: Check, line: Line, world: World) -> None:
    with check.step("nothing without a token"):
        assert line.http("GET", "/api/costs/today").status == 401
    made = line.json("server-key", "create", "--org", ORG, "--role", "read", "--name", "board")
    reads = {"authorization": f"Bearer {made['secret']}"}
    with check.step("today per model and key for a static read token"):
        assert line.http("GET", "/api/costs/today", authorization=f"Bearer {KEYS['READ_KEY']}").status == 200
        line.until(lambda: line.http("GET", "/api/costs/today", **reads).status == 200)
        answer = line.http("GET", "/api/costs/today", **reads)
        document = answer.document
        mine = {(row["model"], row["api_key_id"]): row for row in document["rows"]}
        today = [call for call in world.calls if call.at.date() == datetime.now(UTC).date() and call.nano]
        costs: dict[tuple[str, str], int] = defaultdict(int)
        for call in today:
            costs[call.model_sent, call.api_key_id] += call.nano or 0
        assert {group: mine[group]["usd_est"] for group in costs} == {group: usd(nano) for group, nano in costs.items()}
    with check.step("totals of the day"):
        answer = line.http("GET", "/api/costs/today", **reads)
        totals = answer.document["totals"]
        assert totals["calls"] == sum(row["calls"] for row in answer.document["rows"])
    with check.step("an identity token of the wrong audience is refused, the right one is let in"):
        assert line.http("GET", "/api/costs/today", authorization="Bearer a.b.c").status == 401
        good = tokens.identity_token(tokens.AUDIENCE)
        wrong = tokens.identity_token("somebody-else")
        assert line.http("GET", "/api/costs/today", authorization=f"Bearer {wrong}").status == 401
        assert line.http("GET", "/api/costs/today", authorization=f"Bearer {good}").status == 200


def test_a4(check: Check, line: Line, shop: Shop) -> None:
    org = check.org
    before = shop.asked()
    refused = shop.refusal(org, most=10_000, user_id="ann", request_id="acc-cap-1")
    with check.step("402 and the exact body; the call never leaves"):
        assert refused is not None
        est_usd = refused[1].get("est_usd")
        assert refused == (402, {"ok": False, "error": "cost_cap", "max_usd": 0.05, "est_usd": est_usd})
        assert shop.asked() == before
    with check.step("the estimate counts a quarter of the prompt's characters"):
        # 400 characters are 100 tokens at 2.50, and 10,000 at 10 USD per million
        assert est_usd == 0.10025
    with check.step("a call within the cap is served"):
        assert shop.refusal(org, most=300, user_id="ann") is None
    with check.step("the refusal is an event: BLOCKED, no tokens, cost exactly 0"):
        shop.producer.flush(30)
        line.landed(f"org_id = '{org}'", 2)
        (row,) = line.sql(f"SELECT * FROM usage_events FINAL WHERE org_id = '{org}' AND status = 'BLOCKED'")
        assert (row["cost_nano"], row["input_tokens"], row["output_tokens"], row["user_id"]) == (0, 0, 0, "ann")
    with check.step("counted as blocked, not as spend"):
        totals = line.until(
            lambda: line.sql(
                "SELECT calls, blocked, cost_nano FROM usage_windows FINAL "
                f"WHERE org_id = '{org}' AND scope = 'org' AND level = 'day' AND blocked > 0 AND calls = 2"
            )
        )
        assert totals == [{"calls": 2, "blocked": 1, "cost_nano": 5_000_000}]  # 600 fresh, 400 cached, 300 out
    with check.step("a tokenizer counts instead of the characters, and 429 by setting"):
        said = line.python(
            "from tollmeter import Guard\n"
            "with Guard(tokenizer=lambda prompt, model: 30_000) as guard:\n"
            "    assert guard.ready(60), guard.problem\n"
            f"    deny = guard.check('gpt-4o', prompt='short', max_output_tokens=0, org='{org}')\n"
            "    print(deny.http_status, deny.body['est_usd'])",
            TOLLMETER_GUARD_HTTP_STATUS="429",
        )
        assert said.out.split() == ["429", "0.075"], said.err


def test_a5(check: Check, line: Line, shop: Shop) -> None:
    org = check.org
    at = datetime.now(UTC).replace(microsecond=250_000) - timedelta(hours=1)
    stamp = at.strftime("%Y-%m-%dT%H:%M:%S.250Z")
    entries = [
        {"insertId": f"{org}-{number}", "timestamp": stamp, "jsonPayload": log_line(number, timestamp=stamp)}
        for number in range(3)
    ]
    with check.step("a Cloud Logging export: JSON array, JSON lines and CSV, each insertId once"):
        (line.folder / "array.json").write_text(json.dumps(entries), encoding="utf-8")
        (line.folder / "table.csv").write_text(_table(entries), encoding="utf-8")
        for file in ("array.json", "table.csv"):
            assert line.json("import", file, "--org", org)["acknowledged"] == 3
        piped = line.run("import", "-", "--org", org, "--json", text=lines(*entries))
        assert piped.code == 0, piped.err
        line.landed(f"org_id = '{org}'", 3)
    row = line.sql(f"SELECT * FROM usage WHERE org_id = '{org}' ORDER BY request_id LIMIT 1")[0]
    with check.step("every field of the line comes in, its cost kept as reported"):
        assert (row["request_id"], row["client_ip"], row["prompt_chars"]) == ("log-0", "198.51.100.7", 4_000)
        assert (row["input_tokens"], row["output_tokens"], row["reported_cost_nano"]) == (1_000, 200, 4_500_000)
        assert (row["model_sent"], row["model_used"], row["api_key_id"]) == ("gpt-4o", "gpt-4o-2024-08-06", "0a1b2c3d")
    foreign = [
        log_line(10, timestamp=stamp, client_ip=" 198.51.100.9 , 10.0.0.1"),
        log_line(11, timestamp=stamp, client_ip=None),
        log_line(12, timestamp=stamp, est_cost=0.009),
    ]
    imported = line.run("import", "-", "--org", f"{org}-2", "--json", text=lines(*foreign))
    with check.step("the first of a foreign list of addresses, trimmed; null where there is none"):
        assert imported.code == 0, imported.err
        line.landed(f"org_id = '{org}-2'", 3)
        addresses = line.sql(f"SELECT client_ip FROM usage WHERE org_id = '{org}-2' ORDER BY request_id")
        assert [found["client_ip"] or None for found in addresses] == ["198.51.100.9", None, "198.51.100.7"]
    with check.step("the reported cost is compared with ours"):
        compared = line.json("report", "reported", "--org", f"{org}-2")
        assert json.dumps(compared).count("4500000") or "0.0045" in json.dumps(compared)
    with check.step("a key is named by the first 8 hex of its SHA-256 on demand; keyed by default"):
        assert key_id("sk-secret", compatible=True) == sha256(b"sk-secret").hexdigest()[:8]
        assert key_id("sk-secret", "pepper") != key_id("sk-secret", "salt")
    exported = line.run("export", "--format", "openai-usage", "--org", org)
    with check.step("exported lines have the exact keys, milliseconds and severity INFO"):
        assert exported.code == 0, exported.err.strip()
        out = [json.loads(text) for text in exported.out.splitlines()]
        assert [" ".join(list(one)[:11]) for one in out] == [LINE_KEYS] * 3
        assert {one["timestamp"] for one in out} == {stamp}
        assert {one["severity"] for one in out} == {"INFO"}
        assert [one["est_cost"] for one in out] == [0.0045] * 3
    with check.step("a refusal survives export and import"):
        line.produce("usage.events", wire([event(org_id=f"{org}-b", status="BLOCKED", usage_source="NONE")]))
        line.landed(f"org_id = '{org}-b'", 1)
        blocked = line.run("export", "--format", "openai-usage", "--org", f"{org}-b")
        assert blocked.code == 0, blocked.err.strip()
        told = json.loads(blocked.out)
        assert (told["severity"], told["est_cost"]) == ("INFO", 0)
        assert "BLOCKED" in json.dumps(told)
        again = line.run("import", "-", "--org", f"{org}-3", text=blocked.out)
        assert again.code == 0, again.err
        line.landed(f"org_id = '{org}-3' AND status = 'BLOCKED' AND cost_nano = 0", 1)

    with check.step("live, the first address from the right that is no trusted proxy"):
        # a forged entry, the caller as the outer proxy saw him, and the inner proxy
        chain = {"HTTP_X_FORWARDED_FOR": "9.9.9.9, 203.0.113.7, 10.0.0.2", "REMOTE_ADDR": "10.0.0.1"}

        def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            shop.ask(f"{org}-live")
            start_response("200 OK", [])
            return []

        answer = MeterWSGI(app, trusted_proxies=["10.0.0.0/8"])({"REQUEST_METHOD": "GET", **chain}, lambda *_: None)
        list(answer)
        shop.producer.flush(30)
        line.landed(f"org_id = '{org}-live' AND client_ip = '203.0.113.7'", 1)


def _table(entries: list[dict[str, Any]]) -> str:
    """Return log entries as the CSV that Cloud Logging writes."""
    rows = []
    for entry in entries:
        payload = dict(entry["jsonPayload"])
        usage = payload.pop("usage")
        row = {"insertId": entry["insertId"], "timestamp": entry["timestamp"]}
        row |= {f"jsonPayload.{name}": value for name, value in payload.items()}
        rows.append(row | {f"jsonPayload.usage.{name}": value for name, value in usage.items()})
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def test_a6(check: Check, line: Line, shop: Shop) -> None:
    org = MAIL_ORG
    line.ok("policy", "set", "--org", org, "--monthly", "10")
    line.ok("policy", "set", "--org", org, "--scope", "api_key", "--name", "acc-capped", "--monthly", "0.01")

    def spend(usd_: float, key: str) -> None:
        # gpt-4o: 100 output tokens are 0.001 USD
        line.produce("usage.events", wire([event(org_id=org, output_tokens=round(usd_ * 100_000), api_key_id=key)]))

    def pcts() -> list[int]:
        return sorted(alert["data"]["threshold_pct"] for alert in line.alerts(org_id=org, scope="org", kind="budget"))

    with check.step("an alert at 20, 50 and 80 % of the month, each once"):
        for number in range(9):
            spend(0.89, f"acc-k{number}")
        line.folded(org, 9)
        assert pcts() == [20, 50, 80]
    with check.step("each told to operations by mail"):

        def mailed() -> bool:
            return all(sum(f"{pct} %" in subject for subject in line.receivers.subjects()) == 1 for pct in (20, 50, 80))

        line.until(mailed)
    with check.step("a hard cap per key refuses its next call, and no other key's"):
        spend(0.02, "acc-capped")
        question = {"org": org, "provider": "openai", "max_output_tokens": 10}
        denied = shop.denied(api_key_id="acc-capped", **question)
        assert denied.body["message"] == "llm cost limit exceeded: monthly cost limit reached"
        assert shop.guard.check("gpt-4o", api_key_id="acc-k0", **question)


SUSPECTS: dict[str, tuple[set[str], list[dict[str, Any]]]] = {
    "an ingest loop: a million prompt tokens, hardly any output": (
        {"ingest_loop", "input_without_output"},
        [{"input_tokens": 90_000, "output_tokens": 1, "api_key_id": "acc-loop"}] * 60,
    ),
    "a new key that spends above the floor": (
        {"spend_spike", "new_key"},
        [{"output_tokens": 80_000, "api_key_id": "acc-new"}] * 20,
    ),
    "many small calls from many addresses on one key": (
        {"fan_out", "many_addresses"},
        [{"output_tokens": 500, "api_key_id": "acc-fan", "client_ip": f"203.0.113.{n % 250}"} for n in range(2_000)],
    ),
    "a storm of errors and retries": (
        {"retry_storm", "error_storm"},
        [{"api_key_id": "acc-storm", "status": "ERROR", "http_status": 500, "usage_source": "NONE"}] * 300,
    ),
    "the same body again and again": (
        {"same_body", "repeated_body"},
        [{"output_tokens": 4_000, "api_key_id": "acc-same", "prompt_hash": "5a5a5a5a5a5a5a5a"}] * 300,
    ),
    "one key that dominates": (
        {"dominance", "share_doubled"},
        [{"output_tokens": 2_000, "api_key_id": f"acc-o{n}", "client_ip": "203.0.113.1"} for n in range(20)]
        + [{"output_tokens": 80_000, "api_key_id": "acc-big", "client_ip": "203.0.113.2"}] * 40,
    ),
}
"""What happens, the kinds of alert that may name it, and the calls."""


def test_a7(check: Check, line: Line) -> None:
    now = datetime.now(UTC)
    for number, (_, calls) in enumerate(SUSPECTS.values()):
        line.produce("usage.events", wire([event(now, org_id=f"{check.org}-{number}", **call) for call in calls]))
    for number, (words, (kinds, calls)) in enumerate(SUSPECTS.items()):
        with check.step(words):
            line.folded(f"{check.org}-{number}", len(calls))
            raised = {alert["data"]["kind"] for alert in line.alerts(org_id=f"{check.org}-{number}")}
            assert raised & kinds, f"only {raised}"
    with check.step("nothing is suspected of ordinary calls"):
        line.produce(
            "usage.events", wire([event(now, org_id=f"{check.org}-calm", output_tokens=100) for _ in range(20)])
        )
        line.folded(f"{check.org}-calm", 20)
        assert line.alerts(org_id=f"{check.org}-calm") == []


def test_a8(check: Check, line: Line, shop: Shop) -> None:
    org, question = check.org, {"client_ip": "203.0.113.77", "most": 10}
    line.ok("ratelimit", "set", "ip", "203.0.113.77", "--org", org, "--requests", "1", "--per", "1m", "--for", "1h")
    with check.step("one request a minute for an address: 429 with Retry-After, without a restart"):
        status, body = shop.refused(org, **question)
        assert (status, body["refused"]) == (429, "rate_limited")
        raised = shop.ask(org, **question)
        assert 1 <= int(raised.response.headers["retry-after"]) <= 60
    with check.step("other addresses may call"):
        assert shop.refusal(org, client_ip="203.0.113.78", most=10) is None
    with check.step("a limit has an expiry and is listed with it"):
        (listed,) = [row for row in line.json("ratelimit", "list") if row["org_id"] == org]
        left = datetime.fromisoformat(listed["until"]) - datetime.now(UTC)
        assert timedelta(minutes=50) < left <= timedelta(hours=1)
        assert (listed["requests"], listed["window_s"], listed["burst"]) == (1, 60, 1)
    with check.step("taken away, the address may call again"):
        line.ok("ratelimit", "delete", "ip", "203.0.113.77", "--org", org)
        shop.served(org, **question)
    with check.step("an IPv6 network of 64 bits is one caller, and a limit of another network is refused"):
        line.ok("ratelimit", "set", "ip", "2001:db8:5:6::/64", "--org", org, "--requests", "1", "--per", "10m")
        shop.refused(org, client_ip="2001:db8:5:6::1", most=10)
        status, body = shop.refused(org, client_ip="2001:db8:5:6:ffff::2", most=10)
        assert (status, body["name"]) == (429, "2001:db8:5:6::/64")
        assert shop.refusal(org, client_ip="2001:db8:5:7::1", most=10) is None
        assert line.run("ratelimit", "set", "ip", "2001:db8::/32", "--requests", "1", "--per", "1m").code == 2
    with check.step("one limit for all processes of a host"):
        line.ok(
            "ratelimit", "set", "ip", "203.0.113.79", "--org", org, "--requests", "2", "--per", "10m", "--burst", "2"
        )
        ask = (
            "from tollmeter import Guard\n"
            "with Guard() as guard:\n"
            "    assert guard.ready(60), guard.problem\n"
            f"    asked = [guard.check('gpt-4o', org='{org}', client_ip='203.0.113.79') for _ in range(3)]\n"
            "    print(sum(bool(one) for one in asked))"
        )
        passed = [int(line.python(ask).out) for _ in range(2)]
        assert sum(passed) <= 2, f"{passed} calls of two processes passed a limit of 2"
    with check.step("the proxy obeys the limit"):
        assert line.proxied(org).status == 200
        line.ok("ratelimit", "set", "ip", "127.0.0.1", "--org", org, "--requests", "1", "--per", "10m")
        [answer] = line.until(lambda: [one for one in [line.proxied(org)] if one.status == 429])
        assert (answer.document["refused"], answer.document["scope"]) == ("rate_limited", "client_ip")
        assert 1 <= int(answer.headers["retry-after"]) <= 600
        line.ok("ratelimit", "delete", "ip", "127.0.0.1", "--org", org)
        line.until(lambda: line.proxied(org).status == 200)


def test_a9(check: Check, line: Line, world: World) -> None:
    day = (world.now - timedelta(hours=24)).date()
    start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
    bucket = {"object": "bucket", "start_time": start, "end_time": start + 86_400}
    result = {
        "object": "organization.costs.result",
        "amount": {"value": 12.5, "currency": "usd"},
        "line_item": "gpt-4o-2024-08-06, input",
        "project_id": "proj_acc",
        "api_key_id": "key_nobody_knows",
    }
    page = {"object": "page", "data": [bucket | {"results": [result]}], "has_more": False, "next_page": None}
    (line.folder / "shadow.json").write_text(json.dumps(page), encoding="utf-8")
    (line.folder / "bill.csv").write_text(f"Day,Model,Usd\n{day},claude-sonnet-4-5,0.07\n", encoding="utf-8")
    with check.step("what the README says of the invoice, as printed"):
        made = november(1, calls=300)
        for name, report in (("usage", usage_page(made)), ("costs", costs_page(made))):
            (line.folder / f"{name}.json").write_text(json.dumps(report, default=float), encoding="utf-8")
        section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Check the invoice\n")[2]
        printed = re.findall(r"^tollmeter (.+)", section.partition("\n## ")[0], re.MULTILINE)
        to_close = datetime(2026, 10, 15, tzinfo=UTC)
        line.arrive([event(to_close, org_id=check.org, output_tokens=1_000)])
        for words in printed:
            done = line.run(*shlex.split(words, comments=True))
            assert done.code == 0 or (words.startswith("reconcile") and done.code == 1), (words, done.err)
        assert [words.split()[0] for words in printed] == [*["bills"] * 3, "reconcile", "reprice", "close", "export"]
    with check.step("the provider's export is imported, from its API's JSON and from CSV"):
        line.ok("bills", "import", "shadow.json", "--account", "default")
        columns = ("--map", "day=Day", "--map", "model=Model", "--map", "amount=Usd")
        line.ok("bills", "import", "bill.csv", "--provider", "anthropic", *columns)
        known = {one["source"] for one in line.json("bills", "list")}
        assert known >= {"openai.costs", "csv"}
    with check.step("every difference has a class, an amount and a next step"):
        found = line.run("reconcile", "--provider", "openai", "--month", f"{day:%Y-%m}", "--json")
        assert found.code in (0, 1), found.err.strip()
        document = found.document
        shadow = [one for one in document["differences"] if one["key"] == "key_nobody_knows"]
        assert [(one["class"], one["amount_nano"]) for one in shadow] == [("provider_only", 12_500_000_000)]
        assert all(one["next_step"] and one["likely_cause"] for one in document["differences"])
        parts = sum(one["amount_nano"] for one in document["classes"] if one["class"] != "matched")
        assert abs(document["billed_nano"] - document["ours_nano"] - parts) <= len(document["classes"])
    with check.step("an error answer is no bill of zero: said in one line, nothing changed"):
        (line.folder / "error.json").write_text('{"error": {"message": "no access"}}', encoding="utf-8")
        known = line.json("bills", "list")
        refused = line.run("bills", "import", "error.json")
        assert (refused.code, len(refused.err.strip().splitlines()), "no access" in refused.err) == (2, 1, True)
        assert line.json("bills", "list") == known


def test_a10(check: Check, line: Line, shop: Shop, world: World) -> None:
    call = next(one for one in world.calls if one.request_id == "world-r4")
    with check.step("the service's id finds call, ledger row and price rule in one query"):
        (found,) = line.json("report", "find", "world-r4")
        assert found["call"]["provider_request_id"] == "chatcmpl-world-4"
        assert found["ledger"]["cost_nano"] == call.nano
        rule = found["price_rule"]["rule"]
        rule = json.loads(rule) if isinstance(rule, str) else rule
        assert "2500000" in json.dumps(rule)  # 2.50 USD per million tokens in pico-USD
    with check.step("the provider's id finds the same"):
        (other,) = line.json("report", "find", "chatcmpl-world-4")
        assert other["call"]["event_id"] == call.event_id
    with check.step("an answer hands the service's id back"):
        answer = shop.ask(check.org, request_id="acc-audit-1")
        assert answer.headers["x-tollmeter-request-id"] == "acc-audit-1"
    with check.step("an id that nobody knows is exit code 1"):
        assert line.run("report", "find", "nobody-knows-this").code == 1


def test_a11(check: Check, line: Line, shop: Shop) -> None:
    org = check.org
    callers = {"user": "mallory", "ip": "203.0.113.66", "key": key_id(KEY)}
    for what, name in callers.items():
        asked = {"user_id": name} if what == "user" else {"client_ip": name} if what == "ip" else {}
        with check.step(f"a blocked {what} is refused with 403, reason and expiry, and may call when unblocked"):
            line.ok("block", what, name, "--org", org, "--reason", f"leaked {what}", "--for", "2h")
            status, body = shop.refused(org, **asked)
            assert (status, body["refused"], body["reason"]) == (403, "blocked", f"leaked {what}")
            assert datetime.fromisoformat(body["until"]) > datetime.now(UTC) + timedelta(hours=1)
            line.ok("unblock", what, name, "--org", org)
            shop.served(org, **asked)
    with check.step("the event says BLOCKED"):
        shop.producer.flush(30)
        line.until(lambda: line.one(f"SELECT count() FROM usage WHERE org_id = '{org}' AND status = 'BLOCKED'") >= 3)
        assert line.one(f"SELECT sum(cost_nano) FROM usage WHERE org_id = '{org}' AND status = 'BLOCKED'") == 0
    with check.step("a network is blocked, and an address in any spelling"):
        line.ok("block", "ip", "198.51.100.0/24", "--org", org)
        assert shop.refused(org, client_ip="::ffff:198.51.100.9")[0] == 403
        line.ok("block", "ip", "2001:DB8:9::/48", "--org", org)
        assert shop.refused(org, client_ip="2001:db8:9:1::5")[1]["name"] == "2001:db8:9::/48"
    with check.step("what is no address is exit code 2"):
        assert line.run("block", "ip", "300.1.1.1", "--org", org).code == 2
    with check.step("the proxy refuses a blocked caller"):
        line.ok("block", "user", "trudy", "--org", org, "--reason", "leaked by proxy", "--for", "2h")
        [answer] = line.until(lambda: [one for one in [line.proxied(org, user="trudy")] if one.status == 403])
        assert (answer.document["refused"], answer.document["reason"]) == ("blocked", "leaked by proxy")
        told = answer.headers["x-tollmeter-event-id"]
        line.landed(f"event_id = '{told}' AND status = 'BLOCKED' AND cost_nano = 0", 1)
        assert line.proxied(org, user="victor").status == 200
        line.ok("unblock", "user", "trudy", "--org", org)
        line.until(lambda: line.proxied(org, user="trudy").status == 200)


def test_a12(check: Check, line: Line, world: World) -> None:
    with check.step("old and new id under one label, with owner and cost centre"):
        for key in ("world-k0", "world-k1"):
            line.ok("key", "set", key, "--org", ORG, "--label", "shop", "--owner", "ann", "--cost-centre", "4711")
        listed = [row for row in line.json("key", "list", "--org", ORG) if row["label"] == "shop"]
        assert [(row["api_key_id"], row["owner"], row["cost_centre"]) for row in listed] == [
            ("world-k0", "ann", "4711"),
            ("world-k1", "ann", "4711"),
        ]
        line.until(lambda: line.one("SELECT count() FROM key_labels WHERE label = 'shop'") == 2)
    with check.step("reports go by label"):
        rows = line.json("report", "spend", "--by", "label", "--since", "48h")["rows"]
        both = [call for call in world.within(48) if call.api_key_id in ("world-k0", "world-k1")]
        (shop_,) = [row for row in rows if row["label"] == "shop"]
        assert (shop_["calls"], shop_["usd_est"]) == (len(both), usd(sum(call.nano or 0 for call in both)))
    with check.step("exports and the list of top calls say the label, owner and cost centre"):
        named = ("shop", "ann", "4711")
        top = line.json("report", "calls", "--org", ORG, "--key", "world-k0", "--since", "48h")["rows"]
        assert {tuple(row[name] for name in ("label", "owner", "cost_centre")) for row in top} == {named}
        text = line.ok("export", "--since", "48h", "--org", ORG, "--format", "csv", "--key", "world-k1")
        rows = list(csv.DictReader(io.StringIO(text)))
        assert {tuple(row[name] for name in ("label", "owner", "cost_centre")) for row in rows} == {named}
        line.ok("key", "delete", "world-k0", "world-k1", "--org", ORG)
        line.until(lambda: line.one("SELECT count() FROM key_labels WHERE label = 'shop'") == 0)


def test_a13(check: Check, line: Line, world: World) -> None:
    day = (world.now - timedelta(hours=10)).date()
    with check.step("a day's calls as CSV, one row each, with exact cost"):
        text = line.ok("export", "--day", f"{day}", "--org", ORG, "--format", "csv")
        rows = list(csv.DictReader(io.StringIO(text)))
        calls = {call.event_id: call for call in world.calls if call.at.date() == day}
        assert {row["event_id"] for row in rows} == set(calls)
        costs = {row["event_id"]: row["cost_nano"] for row in rows}
        assert costs == {one: "" if call.nano is None else str(call.nano) for one, call in calls.items()}
