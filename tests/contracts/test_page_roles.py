"""Every page and every change by everybody who may ask: an admin, a reader, a user with a token, nobody.

Another organisation and another user have a thing of each kind, all with a mark: what an answer must not hold is found.
"""

import asyncio
import csv
import io
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import jwt
import pytest
from starlette.routing import Route

from tests.alert_events import alert as anomaly
from tests.alert_events import event
from tests.priced_rows import event_id, insert, row
from tests.serving import KEYS, Serving
from tests.workers import Workers
from tollmeter.admin import access, model_rules, registry, secret
from tollmeter.broker.policies import history, member_set, policy_set, read_rules, write
from tollmeter.schemas.access import Block
from tollmeter.schemas.alert import Alert
from tollmeter.schemas.model_rules import ModelRule
from tollmeter.schemas.policy import Member, Policy
from tollmeter.server import pages
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect
from tollmeter.streams.notify.commands import feedback, mute, mutes
from tollmeter.streams.notify.journal import Journal
from tollmeter.streams.notify.notice import Mute, Notice
from tollmeter.streams.notify.states import COLUMNS
from tollmeter.streams.notify.states import row as state_row

pytestmark = pytest.mark.stack
NOW = datetime.now(UTC).replace(microsecond=0)
JWT_SECRET = "a-secret-of-users-that-is-long-enough"
THEIRS, BOBS = "ofborg", "ofbob"
"""Marks of what is another organisation's, and of what is another user's of the same one."""
OWN, BOB, BORG = event_id(1), event_id(2), event_id(3)
EVERYBODY, KEYS_ONLY, ADMIN, OPEN = ("admin", "read", "user"), ("admin", "read"), ("admin",), "open"
TABLE: dict[tuple[str, str], tuple[str, ...] | str] = {
    ("GET", "/dashboard"): OPEN,
    ("GET", "/dashboard/"): OPEN,
    ("GET", "/dashboard/sign-in"): OPEN,
    ("POST", "/dashboard/sign-in"): OPEN,
    ("POST", "/dashboard/sign-out"): OPEN,
    ("GET", "/dashboard/static/{name}"): OPEN,
    ("GET", "/dashboard/now"): EVERYBODY,
    ("GET", "/dashboard/spend"): EVERYBODY,
    ("GET", "/dashboard/spend.csv"): EVERYBODY,
    ("GET", "/dashboard/calls"): EVERYBODY,
    ("GET", "/dashboard/calls.csv"): EVERYBODY,
    ("GET", "/dashboard/calls/{id}"): EVERYBODY,
    ("GET", "/dashboard/limits"): EVERYBODY,
    ("GET", "/dashboard/alerts"): EVERYBODY,
    ("GET", "/dashboard/invoice"): KEYS_ONLY,
    ("GET", "/dashboard/tokens"): KEYS_ONLY,
    ("GET", "/dashboard/prices"): KEYS_ONLY,
    ("GET", "/dashboard/health"): KEYS_ONLY,
    ("POST", "/dashboard/limits"): ADMIN,
    ("POST", "/dashboard/limits/unblock"): ADMIN,
    ("POST", "/dashboard/limits/raise"): ADMIN,
    ("POST", "/dashboard/alerts/{id}/ack"): ADMIN,
    ("POST", "/dashboard/alerts/{id}/mute"): ADMIN,
    ("POST", "/dashboard/alerts/unmute"): ADMIN,
    ("POST", "/dashboard/alerts/{id}/feedback"): ADMIN,
    ("POST", "/dashboard/tokens"): ADMIN,
    ("POST", "/dashboard/tokens/{id}"): ADMIN,
    ("POST", "/dashboard/keys"): ADMIN,
    ("POST", "/dashboard/keys/{id}"): ADMIN,
}
"""Who may ask for what; a route that is not here fails the test."""
QUERIES = ("", "?org=borg", "?org=*", f"?user=bob-{BOBS}&by=user,key,ip,feature", "?part=live", "?part=rows&sort=cost")


@pytest.fixture(name="server")
def serving(workers: Workers, line: Settings, tmp_path: Path) -> Iterator[str]:
    """The address of a server with two organisations, and two users in the first one."""
    line.data_dir.mkdir(parents=True, exist_ok=True)
    secret.ensure(line.data_dir)
    fill(line)
    made = Serving(workers, tmp_path / "spool")
    with made.start(JWT_SECRET=JWT_SECRET):
        yield made.url


def fill(line: Settings) -> None:
    common = {"event_time": NOW, "received_at": NOW, "status": "OK", "price_status": "PRICED", "provider": "openai"}
    own = {
        "org_id": "default",
        "user_id": "ann",
        "group_id": "team",
        "model": "gpt-4o",
        "model_sent": "gpt-4o",
        "request_id": "same",
    }
    columns = ("user_id", "api_key_id", "client_ip", "operation_name", "service", "agent", "model", "model_sent")

    def marked(mark: str, **more: str) -> dict[str, str]:
        return {name: f"{name}-{mark}" for name in columns} | {"user_id": f"bob-{mark}", "request_id": "same"} | more

    client = connect(line)
    rows = [
        row(1, **common, **own, cost_nano=4_500_000),
        row(2, **common, **marked(BOBS, org_id="default"), cost_nano=9_000_000),
        row(3, **common, **marked(THEIRS, org_id="borg"), cost_nano=9_000_000),
        row(4, **common, **marked(THEIRS, org_id="borg", user_id="ann"), cost_nano=9_000_000),
        row(5, **common, **{**own, "org_id": ""}, cost_nano=1_000),
    ]
    insert(client, rows)
    policies = [
        Policy(org_id="default", scope="user", name="ann", daily_limit_micro=5_000_000, timezone="Asia/Tokyo"),
        Policy(org_id="default", scope="user", name=f"bob-{BOBS}", daily_limit_micro=5),
        Policy(org_id="borg", scope="user", name=f"bob-{THEIRS}", daily_limit_micro=5),
        Policy(org_id="default", scope="group", name="team", monthly_limit_micro=9_000, applies="pool"),
        Policy(org_id="default", scope="group", name="floor", daily_limit_micro=4_000_000, applies="each_member"),
        Policy(org_id="default", scope="group", name=f"room-{BOBS}", daily_limit_micro=7, applies="pool"),
    ]
    names = ("priced_partition", "policy_id", "stamp", "deleted", "policy")
    client.insert_rows("watch_policies", names, [(0, one.policy_id, 1, 0, one.model_dump_json()) for one in policies])
    alerts = [alert(1, "default", "ann", "own alert"), alert(2, "default", f"bob-{BOBS}", f"{BOBS} alert")]
    alerts += [alert(3, "borg", f"bob-{THEIRS}", f"{THEIRS} alert"), alert(4, "borg", "ann", f"{THEIRS} alert")]
    incidents = [incident(5, "default", f"{BOBS} evidence"), incident(6, "borg", f"{THEIRS} evidence")]
    client.insert_rows("alerts", ("event", "appended_at"), [(one.wire().decode(), NOW) for one in alerts])
    client.insert_rows("alerts", ("event", "appended_at"), [(json.dumps(one.event), NOW) for one in incidents])
    client.insert_rows("alert_states", COLUMNS, [state_row(one, time.time()) for one in incidents])
    client.close()
    asyncio.run(taken(line, incidents))
    groups = {("user", "ann"): ("team",), ("group", "team"): ("floor",), ("user", f"bob-{BOBS}"): (f"room-{BOBS}",)}
    members = [Member(org_id="default", kind=kind, name=name, groups=some) for (kind, name), some in groups.items()]
    write(line, [*(policy_set(one) for one in policies), *(member_set(one) for one in members)])
    for org, mark in (("default", BOBS), ("borg", THEIRS)):
        access.put(line, Block(org_id=org, scope="user", name=f"bob-{mark}", reason=f"{mark} reason"))
        mute(line, Mute(org=org, scope="user", name=f"bob-{mark}", until_s=time.time() + 600, by=mark), off=False)
    access.put(line, Block(scope="client_ip", name="192.0.2.9", reason="of all"))
    registry.create_token(line, "borg", f"token-{THEIRS}", NOW, 22)
    registry.create_key(line, "borg", "admin", f"key-{THEIRS}", NOW)


def alert(number: int, org: str, name: str, text: str) -> Alert:
    fixed = {"kind": "budget", "severity": "warning", "scope": "user", "period": "2026-11", "source": "t"}
    return Alert(id=f"{number:032x}", org_id=org, name=name, text=text, received_at=NOW, **fixed)  # type: ignore[arg-type]


def incident(number: int, org: str, evidence: str) -> Notice:
    """Return what notify has taken: an anomaly of a key, whose incident has an id of fives or sixes."""
    made = anomaly("fan_out", number=number, org=org, at=NOW, text=f"incident of {org}")
    body = f"incident of {org}\nsignals: {evidence}"
    return Notice(id=made.id, event=event(made), opened_s=NOW.timestamp(), incident=f"{number}" * 32, body=body)


async def taken(line: Settings, notices: list[Notice]) -> None:
    journal = Journal(line)
    await journal.start()
    await journal.put(notices)
    await journal.stop()


def token(user: str, **claims: object) -> str:
    return jwt.encode({"sub": user, "exp": int(time.time()) + 600, **claims}, JWT_SECRET, "HS256")


def form_of(client: httpx.Client, path: str) -> str:
    found = re.search(r'name="form" value="(\w+)"', client.get(path).text)
    assert found is not None
    return found[1]


def signed_in(server: str, key: str) -> httpx.Client:
    client = httpx.Client(base_url=server, headers={"accept": "text/html"}, timeout=60)
    if key:
        answer = client.post("/dashboard/sign-in", data={"form": form_of(client, "/dashboard/sign-in"), "key": key})
        assert answer.status_code == 303, answer.text
    return client


def addresses(path: str) -> list[str]:
    """Return what to ask for at a route: each call by its ids, each alert by its id; and all queries."""
    if "{id}" in path and "calls" in path:
        return [path.format(id=one) for one in (OWN, BOB, BORG, "same", event_id(4))]
    return [path.format(id=f"{3:032x}", name="page.css")]


def test_who_may_ask_for_what_and_sees_nothing_of_others(server: str, line: Settings) -> None:
    routes = [one for one in pages.routes() if isinstance(one, Route)]
    there = {(method, one.path) for one in routes for method in (one.methods or set()) - {"HEAD"}}
    assert there == set(TABLE)
    keys = {"admin": KEYS["API_KEY"], "read": KEYS["READ_KEY"], "user": token("ann"), "none": ""}
    seen: dict[str, str] = {}
    for role, key in keys.items():
        client = signed_in(server, key)
        form = form_of(client, "/dashboard/sign-in" if role == "none" else "/dashboard/calls")
        seen[role] = ""
        for (method, path), whose in TABLE.items():
            if whose == OPEN:
                continue
            for address in addresses(path):
                for query in QUERIES if method == "GET" else ("",):
                    where = f"{role} {method} {address}{query}"
                    answer = client.request(method, address + query, data={"form": form} if method == "POST" else None)
                    check(answer, role in whose, role, where)
                    if answer.status_code == 200:
                        seen[role] += answer.text
        client.close()
    assert "own alert" in seen["user"]
    assert BOBS in seen["read"], "the mark of another user is there to be found"
    assert len(mutes(line, time.time())) == 2
    user_sees_his_own_calls(server)
    tokens_that_are_none_open_nothing(server)


def check(answer: httpx.Response, may: bool, role: str, where: str) -> None:
    if role == "none":
        assert answer.status_code in (303, 401), where
        assert answer.status_code == 401 or "/dashboard/sign-in" in answer.headers["location"], where
    elif may:
        assert answer.status_code in (200, 303, 400, 404, 409), f"{where}: {answer.status_code} {answer.text[:300]}"
    else:
        assert answer.status_code == 403, f"{where}: {answer.status_code}"
    assert THEIRS not in answer.text, where
    assert role != "user" or BOBS not in answer.text, where
    assert "Traceback" not in answer.text, where


def user_sees_his_own_calls(server: str) -> None:
    client = signed_in(server, token("ann"))
    rows = list(csv.DictReader(io.StringIO(client.get("/dashboard/calls.csv?user=bob&org=borg").text)))
    assert sorted((one["event_id"], one["org_id"]) for one in rows) == [(OWN, "default"), (event_id(5), "")]
    assert "0.0045 USD" in client.get("/dashboard/spend?span=24h").text
    assert client.get(f"/dashboard/calls/{OWN}").status_code == 200
    assert client.get(f"/dashboard/calls/{event_id(5)}").status_code == 200, "calls without an organisation are home's"
    for other in (BOB, BORG, event_id(4)):
        assert client.get(f"/dashboard/calls/{other}").status_code == 404
    text = client.get("/dashboard/now").text
    assert "Tokens and keys" not in text
    limits = client.get("/dashboard/limits").text
    assert "user ann of default" in limits
    assert re.search(r"group team of default</td><td>month.{0,200}50\.0 %", limits), "0.0045 of 0.009 USD by his group"
    assert "floor" not in limits, "he has a policy of his own, which a default of a group does not bind"
    client.close()
    elsewhere = signed_in(server, token("ann", org_id="borg"))
    found = csv.DictReader(io.StringIO(elsewhere.get("/dashboard/calls.csv").text))
    assert [one["event_id"] for one in found] == [event_id(4)]
    elsewhere.close()


def tokens_that_are_none_open_nothing(server: str) -> None:
    client = httpx.Client(base_url=server, headers={"accept": "text/html"}, timeout=60)
    form = form_of(client, "/dashboard/sign-in")
    soon = int(time.time()) + 600
    for wrong in (
        jwt.encode({"sub": "ann", "exp": int(time.time()) - 600}, JWT_SECRET, "HS256"),
        jwt.encode({"sub": "ann", "exp": soon}, "w" * 40, "HS256"),
        jwt.encode({"sub": "ann", "exp": soon}, None, "none"),
        jwt.encode({"exp": soon}, JWT_SECRET, "HS256"),
        jwt.encode({"sub": " ", "exp": soon}, JWT_SECRET, "HS256"),
    ):
        answer = client.post("/dashboard/sign-in", data={"form": form, "key": wrong})
        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
        assert client.get("/dashboard/calls.csv", headers={"authorization": f"Bearer {wrong}"}).status_code == 401
    bearer = {"authorization": f"Bearer {token('ann')}"}
    rows = list(csv.DictReader(io.StringIO(client.get("/dashboard/calls.csv?user=bob", headers=bearer).text)))
    assert {one["user_id"] for one in rows} == {"ann"}
    client.close()


def limits_are_raised_until_midnight(server: str, line: Settings) -> None:
    client = signed_in(server, KEYS["API_KEY"])
    page = client.get("/dashboard/limits?scope=user&name=ann&org=default").text
    which = "default/user/ann/pool/USD day/money"
    assert f'value="{which}" selected' in page
    assert "5.00 USD" in page
    fields = {
        "form": form_of(client, "/dashboard/limits"),
        "which": which,
        "amount": "9",
        "by": "eve",
        "reason": "launch",
    }
    for wrong, status in (
        ({"form": "0" * 32}, 403),
        ({"reason": " "}, 400),
        ({"amount": "5"}, 409),
        ({"amount": "x"}, 400),
    ):
        assert client.post("/dashboard/limits/raise", data={**fields, **wrong}).status_code == status, wrong
    theirs = f"borg/user/bob-{THEIRS}/pool/USD day/money"
    assert client.post("/dashboard/limits/raise", data={**fields, "which": theirs}).status_code == 409
    assert history(line, "borg") == []
    assert client.post("/dashboard/limits/raise", data=fields).status_code == 303
    ((policy_id, made),) = history(line, "default")
    assert (policy_id, made.limit, made.amount) == ("default/user/ann/pool/USD", "day/money", 9_000_000)
    assert (made.by, made.reason) == ("eve (key API_KEY)", "launch")
    tokyo_day_ms = 86_400_000  # Tokyo has no daylight saving and is nine hours ahead
    assert (made.until_ms + 9 * 3_600_000) % tokyo_day_ms == 0
    assert 0 < made.until_ms - made.since_ms <= tokyo_day_ms
    assert read_rules(line).policies[policy_id].adjustments == (made,)
    page = client.get("/dashboard/limits").text
    assert "launch" in page
    assert '<td class="number">9.00</td>' in page, "the bar is of the raised limit"
    client.close()


def rules_about_models_are_shown(server: str, line: Settings) -> None:
    """The organisation's own, each with what becomes of other models; a hostile name is text."""
    hostile = ModelRule(org_id="default", scope="group", name="<b>web", allowed=("gpt-4o",), downgrade_to="gpt-4o")
    theirs = ModelRule(org_id="borg", scope="org", allowed=(f"only-{THEIRS}",))
    for rule in (hostile, theirs, ModelRule(org_id="default", scope="user", name="ann", allowed=("o3", "gpt-4o-mini"))):
        model_rules.put(line, rule)
    client = signed_in(server, KEYS["API_KEY"])
    page = client.get("/dashboard/limits").text
    assert "group &lt;b&gt;web of default" in page
    assert "become gpt-4o" in page
    assert re.search(r"<td>user ann of default</td><td[^>]*>o3, gpt-4o-mini</td><td>are refused</td>", page)
    assert f"only-{THEIRS}" not in page
    assert "<b>web" not in page
    client.close()


def alerts_are_muted_and_heard_again(server: str, line: Settings) -> None:
    client = signed_in(server, KEYS["API_KEY"])
    fields = {"form": form_of(client, "/dashboard/alerts"), "hours": "4", "by": "eve", "reason": "known"}
    own, theirs = f"/dashboard/alerts/{1:032x}/mute", f"/dashboard/alerts/{3:032x}/mute"
    assert client.post(own, data={**fields, "form": ""}).status_code == 403
    assert client.post(own, data={**fields, "hours": "9999"}).status_code == 400
    assert client.post(theirs, data=fields).status_code == 404
    before = time.time()
    assert client.post(own, data=fields).status_code == 303
    (made,) = [one for one in mutes(line, before) if one.name == "ann"]
    assert (made.kind, made.org, made.scope, made.by, made.reason) == (
        *("budget", "default", "user"),
        "eve (key API_KEY)",
        "known",
    )
    assert before + 4 * 3_600 <= made.until_s <= time.time() + 4 * 3_600
    assert "its like muted until" in client.get("/dashboard/alerts").text
    for org, name, status in (("borg", f"bob-{THEIRS}", 404), ("default", "ann", 303), ("default", "ann", 404)):
        what = {
            "form": fields["form"],
            "kind": "budget" if name == "ann" else "",
            "scope": "user",
            "name": name,
            "org": org,
        }
        assert client.post("/dashboard/alerts/unmute", data=what).status_code == status
    assert {one.org for one in mutes(line, time.time())} == {"default", "borg"}
    client.close()


def incidents_are_judged_by_whom_and_why(server: str, line: Settings) -> None:
    client, reader = signed_in(server, KEYS["API_KEY"]), signed_in(server, KEYS["READ_KEY"])
    page = reader.get("/dashboard/alerts").text
    assert f"signals: {BOBS} evidence" in page
    assert "say what it was" not in page, "whoever only reads says nothing"
    fields = {"form": form_of(client, "/dashboard/alerts"), "said": "expected-30", "by": "eve", "reason": "<b>batch"}
    own, theirs = (f"/dashboard/alerts/{number * 32}/feedback" for number in ("5", "6"))
    assert client.post(own, data={**fields, "form": ""}).status_code == 403
    assert client.post(own, data={**fields, "said": "maybe"}).status_code == 400
    assert client.post(theirs, data=fields).status_code == 404
    before = time.time()
    assert client.post(own, data=fields).status_code == 303
    (made,) = feedback(line)
    assert (made.incident, made.verdict, made.by, made.reason) == (
        "5" * 32,
        "expected",
        "eve (key API_KEY)",
        "<b>batch",
    )
    assert before + 30 * 86_400 <= made.until_s <= time.time() + 30 * 86_400
    page = client.get("/dashboard/alerts").text
    assert "expected, quiet until" in page
    assert "&lt;b&gt;batch" in page
    assert client.post(own, data={**fields, "said": "real"}).status_code == 303
    assert [(one.verdict, one.until_s) for one in feedback(line)] == [("real", 0.0)]
    client.close()
    reader.close()


def block_of_all_is_not_one_organisations_to_end(server: str, line: Settings) -> None:
    client = signed_in(server, KEYS["API_KEY"])
    fields = {"form": form_of(client, "/dashboard/limits"), "scope": "client_ip", "name": "192.0.2.9", "org": "*"}
    assert client.post("/dashboard/limits/unblock", data=fields).status_code == 409
    assert "192.0.2.9" in {one.name for one in access.blocks(line)}
    client.close()


def key_is_shown_once_and_ends_its_sessions(server: str, line: Settings) -> None:
    admin = signed_in(server, KEYS["API_KEY"])
    form = form_of(admin, "/dashboard/tokens")
    made = admin.post("/dashboard/keys", data={"form": form, "name": "<b>ops</b>", "role": "read", "org": "borg"})
    assert made.status_code == 200
    found = re.search(r"tmk_\w{40}", made.text)
    assert found is not None
    assert found[0] not in admin.get("/dashboard/tokens").text
    assert "<b>ops" not in made.text
    (key,) = [one.key for one in registry.keys(line, "default")]
    assert (key.name, key.role, found[0] in key.model_dump_json()) == ("<b>ops</b>", "read", False)
    reader = signed_in(server, found[0])
    assert reader.get("/dashboard/calls").status_code == 200
    again = admin.post(f"/dashboard/keys/{key.id}", data={"form": form, "do": "rotate"})
    fresh = re.search(r"tmk_\w{40}", again.text)
    assert fresh is not None
    assert fresh[0] != found[0]
    assert admin.post(f"/dashboard/keys/{key.id}", data={"form": form, "do": "off"}).status_code == 303
    assert reader.get("/dashboard/calls").status_code == 303
    assert reader.get("/dashboard/calls.csv").status_code == 401
    assert admin.post(f"/dashboard/keys/{key.id}", data={"form": form, "do": "sing"}).status_code == 400
    (theirs,) = [one.key for one in registry.keys(line, "borg")]
    assert admin.post(f"/dashboard/keys/{theirs.id}", data={"form": form, "do": "delete"}).status_code == 404
    assert admin.post(f"/dashboard/keys/{key.id}", data={"form": form, "do": "delete"}).status_code == 303
    assert [one.key.id for one in registry.keys(line)] == [theirs.id]
    admin.close()
    reader.close()


def test_changes_are_by_whom_and_why_and_of_the_own_organisation(server: str, line: Settings) -> None:
    limits_are_raised_until_midnight(server, line)
    rules_about_models_are_shown(server, line)
    alerts_are_muted_and_heard_again(server, line)
    incidents_are_judged_by_whom_and_why(server, line)
    block_of_all_is_not_one_organisations_to_end(server, line)
    key_is_shown_once_and_ends_its_sessions(server, line)
