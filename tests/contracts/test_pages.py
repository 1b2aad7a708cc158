"""The pages as a browser without JavaScript meets them: who may see and do what, hostile names, CSV and table."""

import csv
import io
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.contracts.test_kept import OLDER
from tests.patience import eventually
from tests.priced_rows import insert, row
from tests.serving import KEYS, Serving
from tests.workers import Workers
from tollmeter.embedded.stack import Stack
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import Unavailable, connect, connect_existing

pytestmark = pytest.mark.stack
HOSTILE = "<script>alert('x')</script>"
HTML = {"accept": "text/html"}


@pytest.fixture
def pages(workers: Workers, line: Settings, tmp_path: Path) -> Iterator[httpx.Client]:
    """A server whose ledger has three calls; the client sends no key."""
    ledger = connect(line)
    at = datetime.now(UTC)
    common = {"event_time": at, "received_at": at, "provider": "openai", "status": "OK", "org_id": "default"}
    rows = [
        row(
            1,
            **common,
            model="gpt-4o",
            model_sent="gpt-4o",
            user_id=HOSTILE,
            cost_nano=4_500_000,
            price_status="PRICED",
        ),
        row(2, **common, model="o3", model_sent="o3", user_id="=1+1", cost_nano=1_000, price_status="PRICED"),
        row(3, **common, model_sent="new", user_id="ann", at_risk_nano=7_000_000, price_status="UNKNOWN_MODEL"),
        row(4, **{**common, "org_id": "others"}, model_sent="o3", user_id="eve", cost_nano=9, price_status="PRICED"),
    ]
    insert(ledger, rows)
    ledger.close()
    serving = Serving(workers, tmp_path / "spool")
    with serving.start(TOLLMETER_CLICKHOUSE_TIMEOUT_S="600") as started:
        client = httpx.Client(base_url=started.base_url, headers=HTML, timeout=60)
        yield client
        client.close()


def signed_in(pages: httpx.Client, key: str, **more: str) -> httpx.Response:
    form = pages.get("/dashboard/sign-in").text
    token = re.search(r'name="form" value="(\w+)"', form)
    assert token is not None
    return pages.post("/dashboard/sign-in", data={"form": token[1], "key": key, "next": "/dashboard/calls", **more})


def form_of(pages: httpx.Client, path: str) -> str:
    found = re.search(r'name="form" value="(\w+)"', pages.get(path).text)
    assert found is not None
    return found[1]


def test_nobody_sees_anything_without_a_key(pages: httpx.Client) -> None:
    for path in ("now", "spend", "calls", "calls/x", "limits", "alerts", "tokens"):
        answer = pages.get(f"/dashboard/{path}?model=o3")
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/dashboard/sign-in?next=%2Fdashboard%2F")
    assert pages.get("/dashboard/calls.csv").status_code == 401
    for key, status in (("nobody's", 401), (KEYS["INGEST_KEY"], 403)):
        assert signed_in(pages, key).status_code == status
    assert not pages.cookies.get("tollmeter")


def test_a_session_is_a_signed_cookie_of_this_site(pages: httpx.Client) -> None:
    answer = signed_in(pages, KEYS["API_KEY"], remember="on", next="https://evil.example.org/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/now")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert KEYS["API_KEY"] not in answer.headers["set-cookie"]
    page = pages.get("/dashboard/calls")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert re.findall(r"<script(?![^>]*src=)|<style|\son\w+=|style=", page.text) == []
    body, _, mark = pages.cookies["tollmeter"].partition(".")
    other_mark = ("1" if mark[0] == "0" else "0") + mark[1:]
    other_body = body[:4] + ("B" if body[4] == "A" else "A") + body[5:]
    for forged in (f"{body}.{other_mark}", f"{other_body}.{mark}", "x", body):
        other = httpx.Client(base_url=pages.base_url, cookies={"tollmeter": forged}, headers=HTML)
        assert other.get("/dashboard/calls").status_code == 303
        other.close()
    assert pages.post("/dashboard/sign-out", data={"form": form_of(pages, "/dashboard/calls")}).status_code == 303
    assert pages.get("/dashboard/calls").status_code == 303


def test_hostile_names_are_text_and_csv_is_the_table(pages: httpx.Client) -> None:
    signed_in(pages, KEYS["API_KEY"])
    text = pages.get("/dashboard/calls?org=default").text
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text
    assert "0.0045 USD" in text
    assert "1</b>" in text, "calls without a price stand beside the total"
    rows = list(csv.DictReader(io.StringIO(pages.get("/dashboard/calls.csv?org=default").text)))
    assert [one["cost_usd"] for one in sorted(rows, key=lambda one: one["event_id"])] == ["0.0045", "0.000001", ""]
    assert "'=1+1" in {one["user_id"] for one in rows}
    assert ",eve," not in pages.get("/dashboard/calls.csv?org=others").text, (
        "the admin's key is of one organisation, too"
    )
    table = re.findall(r'<a href="/dashboard/calls/([0-9a-f-]{36})"', text)
    assert sorted(table) == sorted(one["event_id"] for one in rows)
    story = pages.get(f"/dashboard/calls/{table[0]}").text
    assert "In the ledger" in story
    assert pages.get("/dashboard/calls/nobody").status_code == 404
    one = list(csv.DictReader(io.StringIO(pages.get("/dashboard/calls.csv?model=o3&org=default").text)))
    assert [row["user_id"] for row in one] == ["'=1+1"]
    spend = list(csv.DictReader(io.StringIO(pages.get("/dashboard/spend.csv?by=user&org=default&span=24h").text)))
    assert {row["user_id"]: row["usd_est"] for row in spend}["ann"] == ""


def test_a_page_says_what_is_deleted_for_its_age_and_what_was_refused(pages: httpx.Client, line: Settings) -> None:
    ledger, at = connect(line), datetime.now(UTC)
    gone = {"event_time": at, "received_at": at, "org_id": "default", "model_sent": "o3", "provider": "openai"}
    insert(ledger, [row(5, **gone, status="BLOCKED", price_status="FREE", cost_nano=0)], offset=1)
    signed_in(pages, KEYS["API_KEY"])
    ages = "/dashboard/calls?from=1995-01-01T00:00", "/dashboard/spend?from=1995-01-01T00:00"
    for path in ages:
        text = pages.get(path).text
        assert "4 calls, of them 1 refused, which cost nothing;" in text
        assert "are deleted for their age" not in text, "the ledger is younger than what it keeps"
    ledger.command(OLDER)
    ledger.close()
    for path in ages:
        assert "UTC are deleted for their age: they are missing in every sum of this page." in pages.get(path).text
        assert "are deleted for their age" not in pages.get(path.partition("?")[0]).text
    found = list(csv.DictReader(io.StringIO(pages.get("/dashboard/spend.csv?by=model&span=24h").text)))
    assert {one["model"]: (one["calls"], one["refused"]) for one in found}["o3"] == ("2", "1")


def test_a_reader_sees_his_organisation_and_changes_nothing(pages: httpx.Client) -> None:
    signed_in(pages, KEYS["READ_KEY"])
    for query in ("", "?org=others", "?org=*"):
        users = {one["user_id"] for one in csv.DictReader(io.StringIO(pages.get(f"/dashboard/calls.csv{query}").text))}
        assert "eve" not in users
        assert "ann" in users
    assert "eve" not in pages.get("/dashboard/spend.csv?by=user&org=others&span=24h").text
    form = form_of(pages, "/dashboard/calls")
    for path in ("/dashboard/limits", "/dashboard/tokens", "/dashboard/limits/unblock"):
        assert pages.post(path, data={"form": form, "scope": "user", "name": "ann"}).status_code == 403


def test_changes_need_a_form_of_this_session(pages: httpx.Client) -> None:
    signed_in(pages, KEYS["API_KEY"])
    fields = {"scope": "client_ip", "name": "::ffff:192.0.2.1", "reason": HOSTILE, "hours": "1"}
    form = form_of(pages, "/dashboard/limits")
    assert pages.post("/dashboard/limits", data=fields).status_code == 403
    assert pages.post("/dashboard/limits", data={**fields, "form": "0" * 32}).status_code == 403
    foreign = {"sec-fetch-site": "cross-site"}
    assert pages.post("/dashboard/limits", data={**fields, "form": form}, headers=foreign).status_code == 403
    evil = {"origin": "https://evil.example.org"}
    assert pages.post("/dashboard/limits", data={**fields, "form": form}, headers=evil).status_code == 403
    assert "192.0.2.1" not in pages.get("/dashboard/limits").text
    assert pages.post("/dashboard/limits", data={**fields, "form": form}).status_code == 303
    text = pages.get("/dashboard/limits").text
    assert "<td>192.0.2.1</td>" in text
    assert HOSTILE not in text
    unblocked = {"form": form, "scope": "client_ip", "name": "192.0.2.1", "org": "*"}
    assert pages.post("/dashboard/limits/unblock", data=unblocked).status_code == 303
    assert "<td>192.0.2.1</td>" not in pages.get("/dashboard/limits").text
    wrong = pages.post("/dashboard/limits", data={**fields, "form": form, "name": ""})
    assert (wrong.status_code, "Traceback" in wrong.text) == (400, False)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("zone=Mars", "unknown time zone"),
        ("from=yesterday", "write it like"),
        ("from=2026-11-22&until=2026-11-21", "the period is empty"),
        ("span=fortnight", "choose from"),
        ("page=-1", "a number from 0 on"),
        (f"key=sk-proj-{'a1' * 20}", "give the id of the key, never the key"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(pages: httpx.Client, query: str, said: str) -> None:
    signed_in(pages, KEYS["API_KEY"])
    answer = pages.get(f"/dashboard/calls?{query}")
    assert answer.status_code == 400
    assert said in answer.text


@contextmanager
def hanging(stack: Stack) -> Iterator[None]:
    """ClickHouse takes connections and says nothing."""
    front = stack.processes()["front"].process.pid
    os.kill(front, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(front, signal.SIGCONT)


def test_a_ledger_that_hangs_is_said_and_holds_up_nobody(pages: httpx.Client, stack: Stack) -> None:
    """A question to it may take ten minutes, and the client waits for one: no answer here waits for it."""
    signed_in(pages, KEYS["API_KEY"])
    assert pages.get("/dashboard/spend").status_code == 200
    said = "does not answer"
    looks = ["spend", "calls", "calls/x", "limits", "alerts", "tokens", "now", "now?part=live"]
    with hanging(stack), ThreadPoolExecutor(50) as lookers:
        found = list(lookers.map(lambda number: pages.get(f"/dashboard/{looks[number % 8]}"), range(50)))
        status = {look: {answer.status_code for answer in found[number::8]} for number, look in enumerate(looks)}
        assert status == {look: {503} if look in ("spend", "calls", "calls/x") else {200} for look in looks}
        assert all(
            said in answer.text for number, answer in enumerate(found) if looks[number % 8] in ("spend", "limits")
        )
        assert "/dashboard/now" in found[0].text
        answer = pages.get("/api/costs/today", headers={"accept": "application/json", "x-api-key": KEYS["API_KEY"]})
        assert (answer.status_code, answer.json()["code"]) == (503, "ledger_away")
    eventually(lambda: pages.get("/dashboard/spend").status_code == 200, 20)


def test_a_command_does_not_wait_for_a_ledger_that_hangs(line: Settings, stack: Stack) -> None:
    with hanging(stack), pytest.raises(Unavailable, match="does not answer"):
        connect_existing(line.model_copy(update={"clickhouse_timeout_s": 600.0}))


def test_now_works_with_clickhouse_away(pages: httpx.Client) -> None:
    signed_in(pages, KEYS["API_KEY"])
    assert pages.get("/dashboard/now").status_code == 200
    assert "By key" in pages.get("/dashboard/now?part=live").text
