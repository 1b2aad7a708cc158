"""Usage sent over HTTP, and its page: rows D1 to D10."""

import csv
import io
import json
import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.acceptance.beside import ALONE
from tests.acceptance.checks import ROW, Check, Lacking
from tests.acceptance.stack import KEYS, Answer, Line, request
from tests.acceptance.tokens import user_token
from tests.acceptance.world import event
from tests.browser import chromium, opened

pytestmark = ROW

ADMIN = {"x_api_key": KEYS["API_KEY"]}
INGEST = {"x_ingest_key": KEYS["INGEST_KEY"]}
CALL = {"model": "gpt-4o", "prompt_tokens": 1_000, "completion_tokens": 200, "total_tokens": 1_200}


def token(line: Line, name: str = "acceptance") -> dict[str, Any]:
    """Make a tracking token."""
    made = line.http("POST", "/ingest/tokens", {"name": name}, **ADMIN)
    assert made.status in (200, 201), made.body[:300]
    document = made.document
    found: dict[str, Any] = document.get("token", document) if isinstance(document.get("token"), dict) else document
    return found


def post(line: Line, document: dict[str, Any], path: str = "/ingest", **headers: str) -> Answer:
    """Send one call."""
    return line.http("POST", path, document, **(headers or INGEST))


def test_d1(check: Check, line: Line) -> None:
    with check.step("a token is made: id, name, value of 22 characters, active, created_at"):
        made = token(line, check.org)
        assert (made["name"], made["active"], len(made["value"])) == (check.org, True, 22)
        assert datetime.fromisoformat(made["created_at"])
    with check.step("listed, switched off and on, deleted"):
        made = token(line, check.org)
        assert made["value"] in line.http("GET", "/ingest/tokens", **ADMIN).body.decode()
        off = line.http("PATCH", f"/ingest/tokens/{made['id']}/active", {"active": False}, **ADMIN)
        assert off.status == 200
        assert post(line, CALL | {"tracking_token": made["value"]}).status == 403
        assert line.http("DELETE", f"/ingest/tokens/{made['id']}", **ADMIN).status in (200, 204)
    with check.step("all of it under X-API-Key only"):
        for method, path in (("GET", "/ingest/tokens"), ("POST", "/ingest/tokens"), ("DELETE", "/ingest/tokens/1")):
            assert line.http(method, path, {} if method == "POST" else None).status == 401, path


def test_d2(check: Check, line: Line) -> None:
    with check.step("a call is stored and priced, stamped now"):
        value = token(line)["value"]
        answer = post(line, CALL | {"tracking_token": value, "event_id": f"{check.org}-1"})
        assert answer.status == 201
        line.until(lambda: line.sql(f"SELECT cost_nano FROM usage WHERE position(toString(tags), '{value}') > 0"))
    with check.step("an unknown or inactive token is 403, a wrong key 401"):
        assert post(line, CALL | {"tracking_token": "nobodyknowsthistoken00"}).status == 403
        assert post(line, CALL | {"tracking_token": "x" * 22}, x_ingest_key="wrong").status == 401
    with check.step("a total below the sum is 400; a larger one is stored and flagged"):
        value = token(line)["value"]
        assert post(line, CALL | {"tracking_token": value, "total_tokens": 1_199}).status == 400
        assert post(line, CALL | {"tracking_token": value, "total_tokens": 1_300}).status == 201
    with check.step("a repeat by Idempotency-Key, event_id, or an equal call with its time is counted, not stored"):
        value = token(line)["value"]
        at = datetime.now(UTC).isoformat()
        repeats: list[tuple[dict[str, Any], dict[str, str]]] = [
            ({"event_id": f"{check.org}-2"}, {}),
            ({}, {"idempotency_key": f"{check.org}-3"}),
            ({"timestamp": at}, {}),
        ]
        for more, headers in repeats:
            document = CALL | {"tracking_token": value} | more
            assert [post(line, document, **INGEST, **headers).status for _ in range(2)] == [201, 200], more
    with check.step("without id or time each POST is a call of its own"):
        value = token(line)["value"]
        assert [post(line, CALL | {"tracking_token": value}).status for _ in range(2)] == [201, 201]
    with check.step("POST /log still works and says that it is deprecated"):
        value = token(line)["value"]
        answer = post(line, CALL | {"tracking_token": value}, path="/log")
        assert answer.status in (200, 201)
        assert "deprecation" in answer.headers


def test_d3(check: Check, line: Line) -> None:
    with check.step("ping and health for everybody"):
        assert line.http("GET", "/ping").status == 200
        health = line.http("GET", "/health").document
        assert (health["status"], health["version"]) == ("healthy", "1.0.0")
        assert datetime.fromisoformat(health["timestamp"])
        assert list(health) == ["status", "timestamp", "version"]
    with check.step("data with filters and pages, and models, for the admin key"):
        for path in ("/data?model=gpt-4o&limit=2", "/models"):
            assert line.http("GET", path, **ADMIN).status == 200, path
            assert line.http("GET", path).status == 401, path
    with check.step("metrics for the admin key or a read key as Bearer"):
        assert line.http("GET", "/metrics", **ADMIN).status == 200
        assert line.http("GET", "/metrics", authorization=f"Bearer {KEYS['READ_KEY']}").status == 200
    with check.step("reset takes all back only when confirmed"):
        assert line.http("DELETE", "/reset", **ADMIN).status in (400, 428)
        line.arrive([event(org_id=check.org, output_tokens=1_000) for _ in range(3)])
        made = line.json("server-key", "create", "--org", check.org, "--role", "admin", "--name", "reset")
        mine = {"x_api_key": made["secret"]}
        line.until(lambda: line.http("GET", "/data", **mine).status == 200)
        assert line.http("GET", "/data", **mine).document["totals"]["usd_est"] == 0.03
        answer = line.http("DELETE", "/reset", x_confirm_reset=check.org, **mine)
        assert (answer.status, answer.document["taken_back"]) == (202, 3)
        line.until(lambda: line.http("GET", "/data", **mine).document["totals"]["calls"] == 0)
        line.until(lambda: line.json("report", "spend", "--org", check.org)["totals"]["calls"] == 0)


def test_d4(check: Check, line: Line) -> None:
    with check.step("JSON with exactly these keys"):
        document = line.http("GET", "/metrics", **ADMIN).document
        assert document["version"] == "1"
        assert set(document["ingest"]) == {"rpm", "burst", "auth_enabled"}
        assert set(document["counters"]) == {"ingest_success", "ingest_duplicate", "ingest_bad_auth"}
        assert set(document["db"]) == {"usage_rows", "active_tokens", "last_usage_at"}
        assert set(document) == {"version", "env", "ingest", "counters", "db"}
    with check.step("Prometheus text by negotiation"):
        answer = line.http("GET", "/metrics", accept="text/plain", **ADMIN)
        assert answer.headers["content-type"].startswith("text/plain")
        assert re.search(rb"^tollmeter_\w+ ", answer.body, re.MULTILINE) or b"# TYPE" in answer.body


@ALONE
def test_d5(check: Check, line: Line) -> None:
    with check.step("above the limit 429 with Retry-After; ping, health and dashboard are exempt"):
        headers = {"x-ingest-key": KEYS["INGEST_KEY"]}
        answers = [request(f"{line.server}/ingest", "POST", headers, b"{}") for _ in range(130)]
        late = [answer for answer in answers if answer.status == 429]
        assert late
        assert int(late[0].headers["retry-after"]) >= 1
        assert {line.http("GET", "/ping").status for _ in range(130)} == {200}


def test_d6(check: Check, line: Line) -> None:
    line.arrive([event(org_id=check.org, user_id="=2+5", model_sent="gpt-4o", output_tokens=10_000)])
    mine = f"org={check.org}"
    key = line.json("server-key", "create", "--org", check.org, "--role", "admin", "--name", "pages")["secret"]
    admin = {"x_api_key": key}
    with check.step("a page with a table, filters and totals"):
        assert line.http("GET", "/dashboard").status == 303
        page = line.http("GET", f"/dashboard/calls?{mine}", **admin).body.decode()
        assert page.count("<tr>") == 2  # the head and the call
        assert "0.1000 USD" in page
        none = line.http("GET", f"/dashboard/calls?{mine}&model=o3", **admin).body.decode()
        assert "No call in this period" in none
    with check.step("CSV that no spreadsheet runs as a formula"):
        answer = line.http("GET", f"/dashboard/calls.csv?{mine}", **admin)
        (row,) = csv.DictReader(io.StringIO(answer.body.decode()))
        assert (row["user_id"], row["cost_usd"]) == ("'=2+5", "0.1")
        assert not re.search(rb"(^|,)\"?[=+@]", answer.body, re.MULTILINE)
    with check.step("a user's token shows his own calls alone, on pages and in CSV"):
        line.arrive([event(org_id=check.org, user_id="ann", output_tokens=1_000)])
        ann = {"authorization": f"Bearer {user_token('ann', check.org)}"}
        page = line.http("GET", "/dashboard/calls?user=%3D2%2B5", **ann).body.decode()
        assert "0.0100 USD" in page
        assert "=2+5" not in page
        table = line.http("GET", "/dashboard/calls.csv?org=demo", **ann).body.decode()
        assert [row["user_id"] for row in csv.DictReader(io.StringIO(table))] == ["ann"]
        assert line.http("GET", "/dashboard/tokens", **ann).status == 403
    with check.step("prices and health on pages"):
        page = line.http("GET", "/dashboard/prices?model=gpt-4o&in=1000&out=200", **admin).body.decode()
        assert "0.004500000 USD" in page
        page = line.http("GET", "/dashboard/health", **admin).body.decode()
        assert all(f">{name}</th>" in page for name in ("PRICE", "LEDGER", "WATCH", "Dead letters", "Price book"))
    with check.step("sign-in, live rows and tokens in a browser"), browser() as pages:
        meet(line, check.org, key, pages)


@contextmanager
def browser() -> Iterator[Any]:
    """Open a browser whose console, errors and refusals of the content policy must stay empty."""
    path = chromium()
    if path is None:
        raise Lacking("no Chromium")
    with opened(path) as page:
        yield page


def meet(line: Line, org: str, key: str, page: Any) -> None:
    """Sign in, make a token, see a call that is sent with it arrive by itself, block its user."""
    page.goto(f"{line.server}/dashboard/calls?org={org}&sort=time")
    assert "/dashboard/sign-in" in page.url
    page.get_by_label("Key or token").fill(key)
    page.get_by_label("Remember me").check()
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"**/dashboard/calls?org={org}&sort=time")
    assert page.locator("tbody tr").count() == 2
    page.get_by_role("link", name="Tokens and keys").click()
    page.get_by_label("Name", exact=True).fill(f"<b>{org}</b>")
    page.get_by_label("Organisation").fill(org)
    page.get_by_role("button", name="Make a token").click()
    snippet = page.locator("#curl").inner_text()
    token = snippet.split('"tracking_token": "')[1].partition('"')[0]
    assert page.get_by_text(f"<b>{org}</b>").count() == 1, "a hostile name is text"
    page.goto(f"{line.server}/dashboard/calls?org={org}&token={token}")
    assert page.locator("tbody tr").count() == 0
    sent = subprocess.run(["bash", "-c", snippet], env=os.environ | KEYS, capture_output=True, text=True, check=True)
    assert json.loads(sent.stdout)["status"] == "stored", sent.stdout
    page.locator("tbody tr").wait_for()
    assert "0.0045" in page.locator("tbody tr").inner_text()
    shown = page.locator("tbody tr td:nth-child(2)").inner_text()
    link = page.locator("#csv").get_attribute("href")
    with page.expect_download() as download:
        page.locator("#csv").click()
    (row,) = csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8")))
    assert f"{float(row['cost_usd']):.4f}" == shown, link
    page.goto(f"{line.server}/dashboard/limits?scope=user&name=eve&org={org}#block")
    page.get_by_label("Reason").fill("looks odd")
    page.get_by_role("button", name="Block", exact=True).click()
    page.locator("tbody tr", has_text="eve").wait_for()
    assert "eve" in line.ok("block", "list")
    page.goto(f"{line.server}/dashboard/now")
    page.get_by_role("heading", name="By key").wait_for()


def test_d7(check: Check, line: Line) -> None:
    with check.step("browsers of allowed origins only"):
        origin = {"origin": "https://evil.example.org", "access_control_request_method": "POST"}
        answer = line.http("OPTIONS", "/ingest", **origin)
        assert "access-control-allow-origin" not in answer.headers
    with check.step("production without keys does not start, in one line"):
        done = line.run("serve", ENV="production", API_KEY="", INGEST_KEY="", SERVER_PORT="0")
        assert done.code == 2
        assert "API_KEY" in done.err
        assert len(done.err.strip().splitlines()) == 1
    with check.step("errors are problem documents without internals"):
        answer = line.http("POST", "/ingest", body=b"{", **INGEST)
        assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
        assert b"Traceback" not in answer.body


def test_d8(check: Check, line: Line) -> None:
    with check.step("settings that no longer mean anything are named in a warning"):
        said = line.run("serve", "--check", PROVIDER="openai", OPENAI_MODEL="gpt-4o", SERVER_PORT="5001")
        assert said.code == 0, said.err.strip()
        assert "OPENAI_MODEL" in said.err
        assert "PROVIDER" in said.err


def test_d9(check: Check, line: Line) -> None:
    with check.step("/keys/* is 404"):
        for method in ("GET", "POST"):
            assert line.http(method, "/keys/openai", {} if method == "POST" else None, **ADMIN).status == 404


def test_d10(check: Check, line: Line) -> None:
    file = line.folder / f"{check.org}.sqlite"
    with sqlite3.connect(file) as old:
        old.execute(
            "CREATE TABLE ingest_tokens "
            "(id INTEGER PRIMARY KEY, name TEXT, value TEXT, active INTEGER, created_at TEXT)"
        )
        old.execute(
            "CREATE TABLE usage_log (id INTEGER PRIMARY KEY, tracking_token TEXT, model TEXT, prompt_tokens INTEGER, "
            "completion_tokens INTEGER, total_tokens INTEGER, timestamp TEXT)"
        )
        old.execute("INSERT INTO ingest_tokens VALUES (1, 'shop', 'abcdefghijklmnopqrstuv', 1, '2026-01-01T00:00:00Z')")
        at = datetime.now(UTC).isoformat()
        old.execute("INSERT INTO usage_log VALUES (1, 'abcdefghijklmnopqrstuv', 'gpt-4o', 1000, 200, 1200, ?)", (at,))
    old.close()
    with check.step("usage_log.sqlite with its tokens"):
        for new in (1, 0):  # a second time the same calls
            done = line.json("import", str(file), "--org", check.org)
            assert (done["acknowledged"], done["new_tokens"]) == (1, new)
        line.landed(f"org_id = '{check.org}' AND cost_nano = 4500000", 1)
        (named,) = line.json("token", "list", "--org", check.org)
        assert (named["name"], named["value"], named["active"]) == ("shop", "abcdefghijklmnopqrstuv", True)
        line.ok("token", "delete", named["id"])
    with check.step("token_usage and llm_operations"):
        rows = [
            {
                "user_id": "ann",
                "agent_id": "bot",
                "ai_provider": "openai",
                "ai_model": "gpt-4o",
                "prompt_tokens": 1_000,
                "completion_tokens": 200,
                "total_tokens": 1_200,
                "cost_usd": 0.0045,
                "created_at": at,
            },
        ]
        (line.folder / "token_usage.json").write_text(json.dumps(rows), encoding="utf-8")
        done = line.run("import", "token_usage.json", "--org", f"{check.org}-t", "--json")
        assert done.code == 0, done.err.strip()
        line.landed(f"org_id = '{check.org}-t' AND user_id = 'ann' AND reported_cost_nano = 4500000", 1)
        operations = line.folder / f"{check.org}-e.sqlite"
        with sqlite3.connect(operations) as base:
            base.execute(
                "CREATE TABLE llm_operations (id INTEGER PRIMARY KEY, operation_name TEXT, provider TEXT, model TEXT, "
                "input_tokens INTEGER, output_tokens INTEGER, cost_usd REAL, success INTEGER, created_at TEXT)"
            )
            row = (1, "summarise", "openai", "gpt-4o", 1_000, 200, 0.0045, 1, at)
            base.execute("INSERT INTO llm_operations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        base.close()
        assert line.json("import", str(operations), "--org", f"{check.org}-e")["acknowledged"] == 1
        line.landed(f"org_id = '{check.org}-e' AND operation_name = 'summarise' AND cost_nano = 4500000", 1)
