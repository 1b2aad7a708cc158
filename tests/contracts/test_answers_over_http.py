"""Answers of the server as their clients know them: shapes, refusals, and no word of another organisation."""

import asyncio
import hmac
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import httpx
import jwt
import pytest
from starlette.routing import Route

from tests.alert_events import alert as anomaly
from tests.alert_events import event
from tests.described import Held
from tests.guard_rows import publish, real_book
from tests.identity_provider import AUDIENCE, ISSUER, IdentityProvider
from tests.patience import eventually
from tests.priced_rows import event_id, insert, row
from tests.serving import events
from tests.workers import Worker, Workers
from tollmeter.admin import access, registry, secret
from tollmeter.broker.policies import entries, member_set, policy_set, write
from tollmeter.broker.registry import read
from tollmeter.schemas.access import Block, RateLimit
from tollmeter.schemas.alert import Alert
from tollmeter.schemas.policy import Member, Policy
from tollmeter.server import answers
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect
from tollmeter.streams.notify.commands import feedback
from tollmeter.streams.notify.journal import Journal
from tollmeter.streams.notify.notice import Notice
from tollmeter.streams.notify.states import COLUMNS
from tollmeter.streams.notify.states import row as state_row

pytestmark = pytest.mark.stack
JWT_SECRET = "a-secret-of-users-that-is-long-enough"
NOW = datetime.now(UTC).replace(microsecond=0)
MARK = "ofb"
ADMIN_A = {"x-api-key": "admin-key"}


class Place(NamedTuple):
    """A server, and what it answers with."""

    client: httpx.Client
    line: Settings
    provider: IdentityProvider
    worker: Worker
    held: Held

    def get(self, path: str, status: int = 200, **headers: str) -> Any:
        answer = self.client.get(path, headers=headers or ADMIN_A)
        assert answer.status_code == status, answer.text
        return answer.json()


@pytest.fixture(name="place")
def serving(line: Settings, workers: Workers, tmp_path: Path) -> Iterator[Place]:
    line.data_dir.mkdir(parents=True)
    secret.ensure(line.data_dir)
    fill(line)
    with IdentityProvider() as provider:
        environment = {
            "API_KEY": "admin-key",
            "INGEST_KEY": "ingest-key",
            "READ_KEY": "read-key",
            "RATE_LIMIT_RPM": "0",
            "SERVER_PORT": "0",
            "JWT_SECRET": JWT_SECRET,
            "OIDC_ISSUER": ISSUER,
            "OIDC_AUDIENCE": AUDIENCE,
            "OIDC_JWKS_URL": provider.url,
            "TOLLMETER_ORG": "aorg",
            "TOLLMETER_SPOOL_DIR": str(tmp_path / "spool"),
        }
        worker = workers.start("serve", "serve", line=line.model_copy(update={"org": "aorg"}), **environment)
        eventually(lambda: worker.ready or worker.process.poll() is not None, 60)
        assert worker.ready, worker.text
        port = int(worker.log.with_suffix(".health").read_text(encoding="ascii"))
        held = Held()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, event_hooks={"response": [held]}) as client:
            yield Place(client, line, provider, worker, held)


def fill(line: Settings) -> None:
    """Give two organisations calls, and `borg` a thing of each kind that bears its mark."""
    at = NOW - timedelta(minutes=1)
    common = {"event_time": at, "received_at": at, "status": "OK", "price_status": "PRICED", "provider": "openai"}
    mine = {"org_id": "aorg", "user_id": "ann", "model": "gpt-4o", "model_sent": "gpt-4o", "api_key_id": "k-a"}
    theirs = {
        name: f"{MARK}-{name}"
        for name in ("user_id", "model", "model_sent", "model_used", "api_key_id", "agent", "operation_name", "service")
    }
    tag = [{"key": "tracking_token", "value": "t" * 22}]
    client = connect(line)
    insert(
        client,
        [
            row(1, **common, **mine, input_tokens=1_000, output_tokens=200, cost_nano=4_500_000, tags=tag,
                cost_eur_nano=4_000_000, cost_rub_nano=450_000_000, agent="bot", operation_name="=search"),
            row(2, **common, **mine, input_tokens=10, cost_nano=25_000, agent="bot"),
            row(3, **{**common, "price_status": "UNKNOWN_MODEL"}, **mine, at_risk_nano=7_000_000, revision=1),
            row(4, **common, user_id="ann", model="nameless", model_sent="nameless", cost_nano=1_000),
            row(5, **common, **theirs, org_id="borg", request_id=f"{MARK}-r", cost_nano=9_000_000_000),
            row(6, **common, **{**theirs, "user_id": "ann"}, org_id="borg", cost_nano=9_000_000_000),
        ],
    )  # fmt: skip
    alert = Alert(
        id="0f" * 16, kind="budget", severity="warning", org_id="borg", scope="user", name=f"{MARK}-user_id",
        period=f"{NOW:%Y-%m}", received_at=NOW, source="t", text=f"{MARK} alert",
    )  # fmt: skip
    grown = anomaly("fan_out", org="borg", name=f"{MARK}-key", at=NOW, text=f"{MARK} incident")
    own = anomaly("fan_out", org="aorg", name="k-a", at=NOW, text="own incident", cost_nano=3 * 10**9)
    client.insert_rows("alerts", ("event", "appended_at"), [(one.wire().decode(), NOW) for one in (alert, grown, own)])
    taken = [
        Notice(
            id=one.id, event=event(one), opened_s=NOW.timestamp(), incident=name * 32, body=f"{one.text}\nsignals: x"
        )
        for one, name in ((grown, "f"), (own, "a"))
    ]
    client.insert_rows("alert_states", COLUMNS, [state_row(one, time.time()) for one in taken])
    asyncio.run(kept(line, taken))
    client.close()
    policy = Policy(org_id="borg", scope="user", name=f"{MARK}-user_id", daily_limit_micro=5)
    member = Member(org_id="borg", name=f"{MARK}-user_id", groups=(f"{MARK}-group",))
    write(line, [policy_set(policy), member_set(member)])
    access.put(line, Block(org_id="borg", scope="user", name=f"{MARK}-user_id", reason=f"{MARK} reason"))
    access.put(line, RateLimit(org_id="borg", scope="api_key", name=f"{MARK}-key", requests=1, window_s=1))
    registry.create_token(line, "borg", f"{MARK}-token", NOW, 22)
    registry.create_key(line, "borg", "admin", f"{MARK}-key", NOW)
    registry.label_keys(line, "borg", [f"{MARK}-api_key_id", "k-a"], f"{MARK}-label", f"{MARK}-owner")


async def kept(line: Settings, notices: list[Notice]) -> None:
    journal = Journal(line)
    await journal.start()
    await journal.put(notices)
    await journal.stop()


def user_token(user: str, **claims: Any) -> str:
    return jwt.encode({"sub": user, "exp": int(time.time()) + 600, **claims}, JWT_SECRET, "HS256")


# -- no word of another organisation -----------------------------------------------------------------------------------

PUBLIC = {"/ping", "/health", "/livez", "/readyz"}


def routes() -> list[tuple[str, str]]:
    """Return every method and path that the router answers."""
    found = [route for route in answers.routes() if isinstance(route, Route)]
    return sorted({(method, one.path) for one in found for method in (one.methods or {"GET"}) if method != "HEAD"})


def bodies_of(path: str) -> list[dict[str, Any] | None]:
    """Return bodies that a path could take."""
    found: dict[str, dict[str, Any]] = {
        "active": {"active": False},
        "members": {"groups": ["x"]},
        "server-keys": {"name": "n", "role": "read"},
        "tokens": {"name": "n"},
        "rotate": {"overlap_s": 0},
        "labels": {"label": "stolen"},
        "blocks": {"reason": "r"},
        "rate": {"requests": 9, "window_s": 9},
        "cost-policies": {"daily_limit_micro_eur": 1},
        "/policies": {"scope": "user", "name": f"{MARK}-user_id", "daily_limit_micro": 1},
        "feedback": {"verdict": "real"},
        "mutes": {"scope": "user", "name": f"{MARK}-user_id", "for_s": 60},
    }
    right = [body for part, body in found.items() if part in path]
    return [None, *right, *({**body, "org_id": "borg"} for body in right)]


def test_a_key_reads_and_changes_nothing_of_another_organisation(place: Place) -> None:
    """Every route, with the names and ids of another organisation, by an admin who may do all in his own."""
    rows = read(place.line)
    ids = [row.id for row in rows.values() if hasattr(row, "id") and getattr(row, "org_id", "") == "borg"]
    names = {"id": [*ids, "0f" * 16, "f" * 32, f"{MARK}-api_key_id"]}
    names |= {"user": [f"{MARK}-user_id"], "kind": ["user", "key", "group"], "scope": ["user", "group", "org"]}
    names |= {"name": [f"{MARK}-user_id"], "month": ["2026-10"]}
    queries = ("", f"?user={MARK}-user_id", "?org=borg")
    confirmed, person = {**ADMIN_A, "x-confirm-reset": "borg"}, {"authorization": user_token("ann")}
    before = _theirs(place.line)
    asked = 0
    for method, path in routes():
        if path in PUBLIC:
            continue
        for filled in _filled(path, names):
            for query in queries if method == "GET" else ("",):
                for body in [None] if method == "GET" else bodies_of(path):
                    for head in (person,) if "/billing/" in path else (confirmed,):
                        answer = place.client.request(method, filled + query, json=body, headers=head)
                        asked += 1
                        sent = json.dumps(body) + filled + query
                        said = answer.text
                        for word in re.findall(rf"{MARK}[\w -]*", sent):
                            said = said.replace(word, "")
                        assert MARK not in said, (method, filled, query, body)
                        assert answer.status_code < 500, (method, filled, query, body, answer.text)
    assert asked > 200
    assert _theirs(place.line) == before


def _filled(path: str, names: dict[str, list[str]]) -> list[str]:
    found = [path]
    for name in re.findall(r"\{(\w+)(?::path)?\}", path):
        found = [re.sub(rf"\{{{name}(:path)?\}}", value, one) for one in found for value in names[name]]
    return found


def _theirs(line: Settings) -> tuple[Any, ...]:
    """Return all that is stored of the other organisation."""
    client = connect(line)
    calls = client.query("SELECT event_id, revision, status FROM usage_events FINAL WHERE org_id = 'borg' ORDER BY 1")
    client.close()
    kept = {key: value for key, value in entries(line).items() if b"borg" in key}
    rows = {key: row for key, row in read(line).items() if getattr(row, "org_id", "") == "borg"}
    return calls, kept, rows


# -- what each answer says ---------------------------------------------------------------------------------------------


def test_todays_cost_for_keys_and_machines(place: Place) -> None:
    zone = ZoneInfo("Pacific/Kiritimati") if NOW.hour < 1 else ZoneInfo("UTC")
    path = f"/api/costs/today?zone={zone.key}"
    document = place.get(path, authorization="Bearer read-key")
    assert (document["zone"], document["day"]) == (zone.key, f"{NOW.astimezone(zone):%Y-%m-%d}")
    assert document["from"].endswith("T00:00:00" + ("+14:00" if zone.key != "UTC" else "+00:00"))
    rows = {(one["model"], one["api_key_id"]): one for one in document["rows"]}
    assert rows["gpt-4o", "k-a"]["usd_est"] == 0.0045
    assert rows["gpt-4o", "k-a"]["calls"] == 3
    assert "nameless" in {one["model"] for one in document["rows"]}, "calls without an organisation are the home's"
    totals = document["totals"]
    assert (totals["calls"], totals["unpriced"], totals["usd_at_risk"], totals["corrected"]) == (4, 1, 0.007, 1)
    assert totals["age_s"] >= 60

    provider, good = place.provider, place.provider.token()
    assert place.get(path, authorization=f"Bearer {good}")["totals"] == totals | {"age_s": pytest.approx(90, abs=3_600)}
    now = int(time.time())
    assert place.get(path, authorization=f"Bearer {provider.token(exp=now - 20)}"), "clocks may differ by so much"
    signed = good.rpartition(".")[0]
    wrong = {
        "audience": provider.token(aud="somebody-else"),
        "issuer": provider.token(iss="https://evil.example.org"),
        "expired": provider.token(exp=now - 120),
        "not yet": provider.token(nbf=now + 120),
        "no expiry": provider.token(exp=None),
        "nobody": provider.token(sub=""),
        "no signature": f"{signed}.",
        "another signature": f"{signed}.{'A' * 342}",
        "none": jwt.encode({"sub": "x", "exp": now + 60, "aud": AUDIENCE, "iss": ISSUER}, None, "none"),
        "shared secret": user_token("robot", aud=AUDIENCE, iss=ISSUER),
        "no token": "a.b.c",
    }
    for why, token in wrong.items():
        answer = place.client.get(path, headers={"authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json"), why
    # a public key taken for a shared secret: HS256 over the same bytes
    header = {"alg": "HS256", "kid": "one", "typ": "JWT"}
    forged = _forged(header, {"sub": "x", "exp": now + 60, "aud": AUDIENCE, "iss": ISSUER}, provider.public_pem())
    assert place.client.get(path, headers={"authorization": f"Bearer {forged}"}).status_code == 401
    fetched = provider.fetched
    unknown = provider.token().split(".")
    for number in range(20):
        head = _encoded({"alg": "RS256", "kid": f"made-up-{number}"})
        place.get(path, 401, authorization=f"Bearer {head}.{unknown[1]}.{unknown[2]}")
    assert provider.fetched <= fetched + 1, "made-up key ids are no lever on the provider"
    provider.down = True
    assert place.get(path, authorization=f"Bearer {provider.token()}")["totals"]["calls"] == 4
    place.get(path, 401, authorization="Bearer wrong")
    place.get("/api/costs/today?zone=Mars/Olympus", 400, authorization="Bearer read-key")
    assert "modle" in place.get("/api/v1/spend?modle=x", 400, authorization="Bearer read-key")["detail"]
    secret = f"sk-proj-{'a1' * 20}"
    refused = place.get(f"/api/v1/spend?key={secret}", 400, authorization="Bearer read-key")["detail"]
    assert ("give the id of the key, never the key" in refused, secret in refused) == (True, False)
    place.get("/data", 403, authorization="Bearer read-key")


def _encoded(document: dict[str, Any]) -> str:
    return jwt.utils.base64url_encode(json.dumps(document).encode()).decode()


def _forged(header: dict[str, Any], claims: dict[str, Any], secret_: bytes) -> str:
    text = f"{_encoded(header)}.{_encoded(claims)}"
    return f"{text}.{jwt.utils.base64url_encode(hmac.digest(secret_, text.encode(), 'sha256')).decode()}"


def test_a_billing_page(place: Place) -> None:
    path, empty = "/api/v1/billing/usage/tokens", {"total_tokens": 0, "cost_rub": 0.0, "requests_count": 0}
    for token in (user_token("nobody"), f"Bearer {user_token('nobody')}"):
        document = place.get(f"{path}/summary", authorization=token)
        assert document == {"success": True, "data": dict.fromkeys(("today", "this_month", "all_time"), empty)}
        listed = place.get(path, authorization=token)["data"]
        assert (listed["items"], listed["total"], listed["pages"], listed["totals"]) == ([], 0, 0, empty)
        for part in ("by-model", "by-agent", "daily"):
            assert place.get(f"{path}/{part}", authorization=token)["data"]["items"] == []
    ann = user_token("ann")
    everything = place.get(f"{path}/summary", authorization=ann)["data"]["all_time"]
    # 0.45 RUB are known; the call of 25,000 nano-USD and the one of no organisation have no rate, one has no cost
    assert everything == {"total_tokens": 1_210, "cost_rub": 0.45, "requests_count": 4, "fx": "partial", "unpriced": 1}
    usd = place.get(f"{path}/summary?currency=USD", authorization=ann)["data"]["all_time"]
    assert usd == {"total_tokens": 1_210, "cost_usd": 0.0045, "requests_count": 4, "unpriced": 1}
    page = place.get(f"{path}?limit=3&page=2", authorization=ann)["data"]
    assert (len(page["items"]), page["total"], page["pages"], page["page"]) == (1, 4, 2, 2)
    assert page["totals"] == everything
    by_model = place.get(f"{path}/by-model?currency=eur", authorization=ann)["data"]["items"]
    assert by_model[0]["ai_model"] == "gpt-4o"
    assert by_model[1] == {
        "ai_provider": "openai", "ai_model": "nameless", "total_tokens": 0, "cost_eur": None, "requests_count": 1,
        "fx": "none",
    }  # fmt: skip
    days = place.get(f"{path}/daily?zone=Asia/Tokyo&from=2d", authorization=ann)
    assert sum(day["requests_count"] for day in days["data"]["items"]) == 4
    answer = place.client.get(f"{path}/summary?zone=Asia/Tokyo", headers={"authorization": ann})
    assert answer.headers["x-tollmeter-zone"] == "Asia/Tokyo"
    assert int(answer.headers["x-tollmeter-age-s"]) >= 60
    theirs = place.get(f"{path}/summary", authorization=user_token("ann", org_id="borg"))["data"]["all_time"]
    assert theirs["requests_count"] == 1
    place.get(f"{path}?user=bob", 403, authorization=ann)
    place.get(f"{path}?currency=xyz", 400, authorization=ann)
    place.get(f"{path}?limit=0", 400, authorization=ann)
    place.get(f"{path}/summary", 401, authorization="")
    now = int(time.time())
    for claims in ({"exp": now - 90}, {"sub": "  "}, {"exp": None}):
        wrong = {name: value for name, value in {"sub": "ann", "exp": now + 60, **claims}.items() if value is not None}
        place.get(f"{path}/summary", 401, authorization=jwt.encode(wrong, JWT_SECRET, "HS256"))
    place.get(f"{path}/summary", 401, authorization=jwt.encode({"sub": "ann", "exp": now + 60}, None, "none"))
    place.get(f"{path}/summary", 401, authorization=jwt.encode({"sub": "ann", "exp": now + 60}, "w" * 32, "HS256"))
    assert place.get(f"{path}/summary", authorization=place.provider.token(sub="ann"))["data"]["all_time"] == everything


def test_an_admin_of_pushed_usage(place: Place) -> None:
    client = place.client
    made = client.post("/ingest/tokens", json={"name": "shop"}, headers=ADMIN_A)
    assert made.status_code == 201
    token = made.json()
    assert list(token) == ["id", "name", "value", "active", "created_at"]
    assert re.fullmatch(r"[A-Za-z0-9]{22}", token["value"])
    call = {"tracking_token": token["value"], "model": "gpt-4o", "prompt_tokens": 1, "completion_tokens": 1}
    post = {"json": {**call, "total_tokens": 2}, "headers": {"x-ingest-key": "ingest-key"}}
    assert client.post("/ingest", **post).status_code == 201, "known at once to the server that made it"
    assert [one["name"] for one in place.get("/ingest/tokens")["tokens"]] == ["shop"]
    off = client.patch(f"/ingest/tokens/{token['id']}/active", json={"active": False}, headers=ADMIN_A)
    assert (off.status_code, off.json()["active"]) == (200, False)
    assert client.post("/ingest", **post).status_code == 403
    for body in ({"active": 1}, {"active": "no"}, {}, {"active": True, "x": 1}):
        answer = client.patch(f"/ingest/tokens/{token['id']}/active", json=body, headers=ADMIN_A)
        assert answer.status_code == 400, body
    assert client.delete(f"/ingest/tokens/{token['id']}", headers=ADMIN_A).status_code == 204
    assert client.delete(f"/ingest/tokens/{token['id']}", headers=ADMIN_A).status_code == 404
    assert client.get("/ingest/tokens", headers={"x-ingest-key": "ingest-key"}).status_code == 403

    data = place.get("/data?model=gpt-4o&limit=2")
    assert (data["total"], data["pages"], len(data["data"])) == (3, 2, 2)
    assert data["totals"]["usd_est"] == 0.0045
    (under,) = place.get(f"/data?token={'t' * 22}")["data"]
    assert (under["id"], under["tracking_token"], under["total_tokens"]) == (event_id(1), "t" * 22, 1_200)
    assert place.get("/data?until=2020-01-01")["total"] == 0
    assert [one["model"] for one in place.get("/models")["models"]] == ["gpt-4o", "nameless"]
    answer = client.delete("/reset", headers=ADMIN_A)
    assert (answer.status_code, "x-confirm-reset: aorg" in answer.json()["detail"]) == (428, True)
    text = client.get("/api/v1/calls.csv?from=1h", headers=ADMIN_A)
    assert text.headers["content-type"].startswith("text/csv")
    lines = text.text.splitlines()
    assert len(lines) == 5
    assert "'=search" in text.text


def a_default_budget_is_for_whoever_has_none(place: Place) -> None:
    """Set, shown where it binds, beaten by a user's own, taken away."""
    client = place.client
    default = {"scope": "user", "applies": "each_member", "currency": "EUR", "daily_limit_micro": 7_000_000}
    put = client.put("/api/v1/policies", json=default, headers=ADMIN_A)
    assert (put.status_code, put.json()["policy_id"]) == (200, "aorg/user//each_member/EUR")
    (limit,) = place.get("/api/v1/ai/spend/ann")["limits"]
    assert (limit["policy_id"], limit["scope"], limit["name"]) == ("aorg/user//each_member/EUR", "user", "ann")
    assert (limit["limit"], limit["applies"], limit["unit"]) == (7_000_000_000, "each_member", "EUR")
    assert place.get("/api/v1/ai/spend/ann")["cost_limit_today_micro_eur"] == 7_000_000
    own = {"scope": "user", "name": "ann", "currency": "EUR", "daily_limit_micro": 1_000_000}
    assert client.put("/api/v1/policies", json=own, headers=ADMIN_A).status_code == 200
    assert [one["policy_id"] for one in place.get("/api/v1/ai/spend/ann")["limits"]] == ["aorg/user/ann/pool/EUR"]
    assert client.delete("/api/v1/policies?scope=user&name=ann", headers=ADMIN_A).json() == {"deleted": 1}
    for wrong in ({**default, "scope": "model"}, {**default, "name": "*", "applies": "pool"}):
        assert client.put("/api/v1/policies", json=wrong, headers=ADMIN_A).status_code in (400, 409), wrong
    gone = client.delete("/api/v1/policies?scope=user&name=&applies=each_member", headers=ADMIN_A)
    assert gone.json() == {"deleted": 1}
    assert "limits" not in place.get("/api/v1/ai/spend/ann")


def test_limits_keys_and_prices(place: Place) -> None:
    client = place.client
    made = client.post("/api/v1/server-keys", json={"name": "board", "role": "read"}, headers=ADMIN_A)
    assert made.status_code == 201
    key = made.json()
    board = {"authorization": f"Bearer {key['secret']}"}
    assert place.get("/api/v1/spend?by=user,day&from=1h", **board)["totals"]["calls"] == 4
    place.get("/api/v1/policies", 403, **board)
    admin = client.post("/api/v1/server-keys", json={"name": "boss", "role": "admin"}, headers=ADMIN_A).json()
    boss = {"x-api-key": admin["secret"]}
    more = {"name": "n", "role": "ingest", "may_set_identity": True}
    assert client.post("/api/v1/server-keys", json=more, headers=boss).status_code == 403
    call = {"model_sent": "gpt-4o", "input_tokens": 1, "output_tokens": 1, "org_id": "borg", "event_id": "strange"}
    assert client.post("/ingest", json=call, headers=boss).status_code == 201
    assert "aorg" in {one["org_id"] for one in events(place.line)}
    assert "borg" not in {one["org_id"] for one in events(place.line)}
    assert client.delete(f"/api/v1/server-keys/{admin['id']}", headers=ADMIN_A).status_code == 204
    again = client.post(f"/api/v1/server-keys/{key['id']}/rotate", json={"overlap_s": 0}, headers=ADMIN_A).json()
    place.get("/api/v1/spend", 401, **board)
    fresh = {"authorization": f"Bearer {again['secret']}"}
    assert place.get("/api/v1/calls?top=1", **fresh)["rows"][0]["est_cost"] == 0.0045
    client.patch(f"/api/v1/server-keys/{key['id']}/active", json={"active": False}, headers=ADMIN_A)
    place.get("/api/v1/calls", 401, **fresh)
    (listed,) = place.get("/api/v1/server-keys")["keys"]
    assert (listed["active"], "secret" in listed, "digest" in listed) == (False, False, False)
    eventually(lambda: place.get("/api/v1/server-keys")["keys"][0]["used_at"], 30)

    put = client.put("/api/v1/cost-policies/user/ann", json={"daily_limit_micro_eur": 5_000_000}, headers=ADMIN_A)
    assert put.json() == {"scope": "user", "name": "ann", "daily_limit_micro_eur": 5_000_000, "warn_threshold_pct": 80}
    status = place.get("/api/v1/ai/spend/ann")
    assert (status["cost_limit_today_micro_eur"], status["currency"]) == (5_000_000, "EUR")
    assert status["cost_used_month_micro_eur"] == 4_000
    assert place.get("/api/v1/ai/spend/nobody", 404)["detail"] == "user not found"
    assert client.delete("/api/v1/cost-policies/org", headers=ADMIN_A).json()["detail"] == "cannot delete org policy"
    assert client.delete("/api/v1/cost-policies/user/ann", headers=ADMIN_A).status_code == 204
    assert place.get("/api/v1/cost-policies/org") == {"scope": "org", "name": "", "warn_threshold_pct": 80}
    wrong = client.put(
        "/api/v1/policies", json={"scope": "user", "name": "x", "daily_limit_micro": 1.5}, headers=ADMIN_A
    )
    assert (wrong.status_code, wrong.json()["detail"].partition(":")[0]) == (400, "daily_limit_micro")
    assert client.put("/api/v1/members/user/ann", json={"groups": ["web"]}, headers=ADMIN_A).status_code == 200
    assert place.get("/api/v1/members")["members"] == [{"kind": "user", "name": "ann", "groups": ["web"]}]
    assert client.put("/api/v1/blocks/ip/10.0.0.0/8", json={"reason": "leak"}, headers=ADMIN_A).status_code == 200
    assert [one["name"] for one in place.get("/api/v1/blocks")["blocks"]] == ["10.0.0.0/8"]
    assert client.put("/api/v1/blocks/ip/nowhere", json={"reason": "x"}, headers=ADMIN_A).status_code == 400
    assert client.delete("/api/v1/blocks/ip/10.0.0.0/8", headers=ADMIN_A).status_code == 204
    allowed = {"allowed": [" GPT-4o", "ours"], "downgrade_to": "gpt-4o"}
    put = client.put("/api/v1/allowed-models/key/k/1", json=allowed, headers=ADMIN_A)
    rule = {"rule": "models:aorg/api_key/k%2F1", "org_id": "aorg", "scope": "api_key", "name": "k/1"}
    rule |= {"allowed": ["gpt-4o", "ours"], "downgrade_to": "gpt-4o"}
    assert put.json() == {**rule, "meant": {" GPT-4o": "gpt-4o"}, "unknown": ["ours"]}
    assert place.get("/api/v1/allowed-models")["allowed_models"] == [rule]
    for path, bad in (("user/ann", {"allowed": []}), ("user/ann", {**allowed, "downgrade_to": "o1"}), ("org", {})):
        assert client.put(f"/api/v1/allowed-models/{path}", json=bad, headers=ADMIN_A).status_code == 400
    assert client.put("/api/v1/allowed-models/ip/x", json=allowed, headers=ADMIN_A).status_code == 404
    assert client.delete("/api/v1/allowed-models/key/k/1", headers=ADMIN_A).status_code == 204
    assert place.get("/api/v1/allowed-models")["allowed_models"] == []
    a_default_budget_is_for_whoever_has_none(place)
    put = client.put("/api/v1/rate-limits/key/*", json={"requests": 5, "window_s": 60}, headers=ADMIN_A)
    assert (put.status_code, put.json()["org_id"]) == (200, "aorg")
    _incidents(place)
    today = place.get("/api/v1/ai/usage/summary?zone=Asia/Tokyo")["this_month"]
    assert {"estimated", "corrected", "usd_at_risk", "unpriced", "age_s"} <= today.keys()
    place.get("/api/v1/ai/prices", 409)  # PRICE has published none on this line
    publish(place.line, [real_book()])
    assert len({json.dumps(one) for one in place.get("/api/v1/ai/prices")["prices"]}) > 1_000
    for wrong_body in (b"{", b"[]", b"7"):
        answer = client.put("/api/v1/members/user/ann", content=wrong_body, headers=ADMIN_A)
        assert answer.status_code == 400
    assert client.put("/api/v1/members/user/ann", content=b" " * 70_000, headers=ADMIN_A).status_code == 413


def _incidents(place: Place) -> None:
    """The organisation's one anomaly is one incident, with the text that people got, and takes a word about it."""
    (alert,) = place.get("/api/v1/alerts")["alerts"]
    (incident,) = place.get("/api/v1/incidents")["incidents"]
    assert place.get("/api/v1/alerts?limit=1")["more"] is place.get("/api/v1/incidents?limit=1")["more"] is False
    assert "there are none" in place.get("/api/v1/blocks?scope=user", 400)["detail"]
    assert (incident["id"], incident["alerts"], incident["cost_nano"]) == ("a" * 32, [alert["id"]], 3 * 10**9)
    assert (incident["text"], incident["evidence"]) == ("own incident", ["signals: x"])
    path = f"/api/v1/incidents/{'a' * 32}/feedback"
    for body, status in (
        ({}, 400),
        ({"verdict": "perhaps"}, 400),
        ({"verdict": "real", "for_s": 5}, 400),
        ({"verdict": "expected", "for_s": 0}, 400),
    ):
        assert place.client.post(path, json=body, headers=ADMIN_A).status_code == status, body
    before = time.time()
    done = place.client.post(path, json={"verdict": "expected", "for_s": 3_600, "reason": "r"}, headers=ADMIN_A)
    assert (done.status_code, done.json()["kinds"]) == (200, ["fan_out"])
    until = datetime.fromisoformat(done.json()["until"]).timestamp()
    assert before + 3_600 <= until <= time.time() + 3_600
    (said,) = feedback(place.line)
    assert (said.verdict, said.org, said.reason, said.by) == ("expected", "aorg", "r", "key API_KEY")


@pytest.mark.parametrize("page", ["http.md", "json.md"])
def test_commands_of_the_pages_work_as_printed(place: Place, page: str) -> None:
    """Each block of curl commands, sent to this server with its keys."""
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    found = [block for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if "curl " in block]
    assert found
    keys = {"API_KEY": "admin-key", "INGEST_KEY": "ingest-key", "PATH": os.environ["PATH"]}
    for block in found:
        program = block.replace("http://127.0.0.1:5001", str(place.client.base_url).rstrip("/"))
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", program], env=keys, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        assert '"totals"' in done.stdout or '"accepted":2' in done.stdout, done.stdout
