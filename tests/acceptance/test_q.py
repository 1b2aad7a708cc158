"""What people asked for in 2026: rows Q1 to Q10."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.acceptance.beside import ALONE
from tests.acceptance.checks import ROW, Check
from tests.acceptance.shop import ASK, Shop
from tests.acceptance.stack import KEYS, Line
from tests.acceptance.world import UNKNOWN, event, wire
from tollmeter.producers.guard.guard import Allow

pytestmark = ROW

INGEST = {"x_ingest_key": KEYS["INGEST_KEY"]}


def attributes(**values: Any) -> list[dict[str, Any]]:
    """Return attributes as OTLP/JSON writes them."""
    kinds = {int: "intValue", float: "doubleValue", str: "stringValue"}
    return [
        {"key": name.replace("__", "."), "value": {kinds[type(value)]: str(value) if type(value) is int else value}}
        for name, value in values.items()
    ]


def test_q1(check: Check, line: Line) -> None:
    now = str(int(datetime.now(UTC).timestamp() * 1e9))
    record = {
        "timeUnixNano": now,
        "body": {"stringValue": "claude_code.api_request"},
        "attributes": [
            *attributes(
                event__name="api_request", model="claude-sonnet-4-5-20250929", input_tokens=100, output_tokens=70
            ),
            *attributes(cache_read_tokens=2_000, cache_creation_tokens=500, cost_usd=0.0035, event__sequence=7),
            *attributes(session__id=f"{check.org}-s", user__email="dev@example.org"),
        ],
    }
    resource = {"attributes": attributes(service__name="claude-code", repository="shop")}
    logs = {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record]}]}]}
    with check.step("Claude Code's log records become calls per developer and session"):
        assert line.http("POST", "/v1/logs", logs, **INGEST).status == 200
        line.landed(f"session_id = '{check.org}-s' AND user_id = 'dev@example.org' AND input_tokens = 2600", 1)
    with check.step("calls paid by a subscription are SUBSCRIPTION, never spend; their list price is shown beside it"):
        paid = dict(record)
        paid["attributes"] = [*record["attributes"], *attributes(subscription__type="max", prompt__id="next")]
        logs["resourceLogs"][0]["scopeLogs"] = [{"logRecords": [paid]}]
        assert line.http("POST", "/v1/logs", logs, **INGEST).status == 200
        line.landed(f"session_id = '{check.org}-s' AND price_status = 'SUBSCRIPTION' AND cost_nano = 0", 1)
    with check.step("cost per developer, repository, session and model"):
        found = line.json("report", "spend", "--by", "user,repository,session,model")["rows"]
        (mine,) = [row for row in found if row["session_id"] == f"{check.org}-s"]
        # 100 at 3, 2000 read at 0.30, 500 written at 3.75, 70 out at 15 USD per million: 0.003825
        assert (mine["user_id"], mine["repository"], mine["calls"]) == ("dev@example.org", "shop", 2)
        assert (mine["usd_est"], mine["subscription_calls"], mine["usd_subscription_value"]) == (0.0038, 1, 0.0038)
    with check.step("Codex CLI and Gemini CLI, each by its own names"):
        told = [
            attributes(event__name="codex.sse_event", event__kind="response.completed", model="gpt-5-codex")
            + attributes(input_token_count=900, cached_token_count=600, output_token_count=90, auth_mode="Chatgpt")
            + attributes(conversation__id=f"{check.org}-x"),
            attributes(event__name="gemini_cli.api_response", model="gemini-2.5-pro", session__id=f"{check.org}-g")
            + attributes(input_token_count=1_000, output_token_count=10, thoughts_token_count=25),
        ]
        records = [{"timeUnixNano": now, "attributes": one} for one in told]
        logs["resourceLogs"][0]["scopeLogs"] = [{"logRecords": records}]
        assert line.http("POST", "/v1/logs", logs, **INGEST).status == 200
        line.landed(f"session_id = '{check.org}-x' AND price_status = 'SUBSCRIPTION' AND input_tokens = 900", 1)
        line.landed(f"session_id = '{check.org}-g' AND price_status = 'PRICED' AND output_tokens = 35", 1)


def test_q2(check: Check, line: Line, shop: Shop) -> None:
    org = check.org
    start = int(datetime.now(UTC).timestamp() * 1e9)
    span = {
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": "eee19b7ec3c1b174",
        "name": "chat gpt-4o",
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + 10**9),
        "attributes": [
            *attributes(
                gen_ai__operation__name="chat", gen_ai__provider__name="openai", gen_ai__request__model="gpt-4o"
            ),
            *attributes(gen_ai__response__model="gpt-4o", gen_ai__usage__input_tokens=1_000),
            *attributes(gen_ai__usage__output_tokens=200, gen_ai__conversation__id=org),
        ],
    }
    with check.step("OTLP traces"):
        traces = {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"spans": [span]}]}]}
        assert line.http("POST", "/v1/traces", traces, **INGEST).status == 200
        line.landed(f"session_id = '{org}' AND cost_nano = 4500000", 1)
    with check.step("LiteLLM's generic_api callback"):
        payload = {
            "id": f"{org}-l",
            "litellm_call_id": f"{org}-l",
            "call_type": "acompletion",
            "status": "success",
            "custom_llm_provider": "openai",
            "model": "gpt-4o",
            "prompt_tokens": 1_000,
            "completion_tokens": 200,
            "total_tokens": 1_200,
            "response_cost": 0.0045,
            "startTime": start / 1e9,
            "endTime": start / 1e9 + 1,
        }
        assert line.http("POST", "/ingest/litellm", [payload], **INGEST).status in (200, 202)
        line.landed(f"request_id = '{org}-l'", 1)
    with check.step("CloudEvents at OpenMeter's path"):
        envelope = {
            "specversion": "1.0",
            "type": "litellm_tokens",
            "id": f"{org}-c",
            "source": "litellm-proxy",
            "subject": org,
            "data": {"model": "gpt-4o", "prompt_tokens": 1_000, "completion_tokens": 200, "total_tokens": 1_200},
        }
        answer = line.http("POST", "/api/v1/events", envelope, content_type="application/cloudevents+json", **INGEST)
        assert answer.status in (202, 204)
        line.landed(f"user_id = '{org}'", 1)
    with check.step("a metering proxy by its base URL"):
        headers = {"x-tollmeter-org": org, "x-tollmeter-session": f"{org}-p"}
        address = f"{line.server}/proxy/openai/v1"
        with openai.OpenAI(api_key=KEYS["INGEST_KEY"], base_url=address, default_headers=headers) as client:
            reply = client.chat.completions.create(model="gpt-4o", messages=ASK, max_tokens=50)
            assert reply.choices[0].message.content
            stream = client.chat.completions.create(model="gpt-4o", messages=ASK, max_tokens=50, stream=True)
            assert list(stream)
        line.landed(f"session_id = '{org}-p' AND org_id = '{org}' AND status = 'OK'", 2)
    with check.step("`tollmeter run -- python app.py`"):
        assert line.run("run", "--", "python", "-c", "print('ran')").out.strip() == "ran"


def loop(shop: Shop, org: str, most: int = 40, **caller: Any) -> tuple[int, int, dict[str, Any]]:
    """Call like an agent that loops until one call is refused; return how many were served, status and body."""
    for served in range(most):
        refused = shop.refusal(org, **caller)
        if refused is not None:
            return served, *refused
    raise AssertionError(f"{most} calls were served")


def test_q3(check: Check, line: Line, shop: Shop) -> None:
    org = check.org
    question: dict[str, Any] = {"org": org, "provider": "openai", "max_output_tokens": 10}
    twice = {"output_tokens": 2_000}  # of gpt-4o at 10 USD a million: 0.02 USD
    with check.step("a default budget for every user that has none"):
        default = line.json("policy", "set", "--org", org, "--scope", "user", "--default", "--daily", "0.01")
        assert default["policy_id"] == f"{org}/user//each_member/USD"
        line.arrive([event(org_id=org, user_id="ann", **twice)])
        deny = shop.denied(user="ann", **question)
        said = deny.body
        assert (deny.http_status, said["error"]) == (402, "CostLimitExceeded")
        assert said["message"] == "llm cost limit exceeded: daily cost limit reached"
        assert (said["scope"], said["name"], said["applies"]) == ("user", "ann", "each_member")
        assert (said["policy_id"], said["reason"]) == (default["policy_id"], "used")
        assert (said["limit"], said["used"], said["remaining"]) == (10_000_000, 20_000_000, 0)
        for other in ("bob", "Ann"):  # each for himself, and a name in another case is another user
            assert shop.guard.check("gpt-4o", user=other, **question), other
    with check.step("told once, at the warning and at the limit"):
        steps = line.until(lambda: {one["id"]: one["data"] for one in line.alerts(org_id=org, name="ann")})
        assert sorted(one["threshold_pct"] for one in steps.values()) == [20, 50, 80, 100]
    with check.step("an own policy wins whole, and `explain` says so"):
        line.ok("policy", "set", "--org", org, "--scope", "user", "--name", "bob", "--monthly", "1", "--create")
        line.arrive([event(org_id=org, user_id="bob", **twice)])
        mine = line.json("policy", "explain", "--org", org, "--user", "bob")
        assert [(one["policy_id"], one["used"]) for one in mine["budgets"]] == [
            (f"{org}/user/bob/pool/USD", 20_000_000)
        ]
        assert [(one["policy_id"], one["reason"]) for one in mine["lost"]] == [(default["policy_id"], "own_policy")]
        assert shop.guard.check("gpt-4o", user="bob", **question)
        (hers,) = line.json("policy", "explain", "--org", org, "--user", "ann")["budgets"]
        assert (hers["policy_id"], hers["used"], hers["percent"]) == (default["policy_id"], 20_000_000, 200)
        assert "the default for each user" in hers["why"]
    with check.step("for keys and agents, too; calls on a user's own key never count"):
        for scope, field in (("api_key", "api_key_id"), ("agent", "agent")):
            theirs = {"org": f"{org}-{scope}", "provider": "openai", "max_output_tokens": 10}
            line.ok("policy", "set", "--org", theirs["org"], "--scope", scope, "--default", "--daily", "0.01")
            own = event(org_id=theirs["org"], billing_scope="USER", **{field: "y"}, **twice)
            line.arrive([own, event(org_id=theirs["org"], **{field: "x"}, **twice)])
            assert shop.denied(**{field: "x"}, **theirs).body["name"] == "x"
            assert shop.guard.check("gpt-4o", **{field: "y"}, **theirs)
            assert shop.guard.check("gpt-4o", **{field: "x"}, billing_scope="USER", **theirs)
    with check.step("a default that is taken away binds nobody any more"):
        line.ok("policy", "delete", "--org", org, "--scope", "user", "--default")
        line.until(lambda: isinstance(shop.guard.check("gpt-4o", user="ann", **question), Allow))
    with check.step("a budget per session: an agent that loops is stopped before its next call"):
        line.ok("policy", "set", "--org", org, "--scope", "session", "--default", "--daily", "0.02")
        line.until(lambda: line.json("policy", "explain", "--org", org, "--session", "loop")["budgets"])
        asked = shop.asked()
        served, status, body = loop(shop, org, session_id="loop", most=60)
        assert status == 402
        assert (body["scope"], body["name"], body["policy_id"]) == (
            "session",
            "loop",
            f"{org}/session//each_member/USD",
        )
        assert (body["limit"], body["applies"]) == (20_000_000, "each_member")
        assert shop.asked() - asked == served > 0, "what was refused never left"
        line.landed(f"org_id = '{org}' AND session_id = 'loop' AND status = 'BLOCKED' AND cost_nano = 0", 1)
        line.landed(f"org_id = '{org}' AND session_id = 'loop' AND status = 'OK'", served)
        spent = line.one(
            f"SELECT sum(cost_nano) FROM usage_events FINAL WHERE org_id = '{org}' AND session_id = 'loop'"
        )
        assert 0 < int(spent) <= 20_000_000
        assert shop.refusal(org, session_id="other") is None
    with check.step("a budget per run"):
        line.ok("policy", "set", "--org", org, "--scope", "run", "--default", "--monthly", "0.01")
        line.arrive([event(org_id=org, trace_id="r1", **twice)])
        assert shop.denied(trace_id="r1", **question).body["message"].endswith("monthly cost limit reached")
        assert shop.guard.check("gpt-4o", trace_id="r2", **question)
    with check.step("a budget per agent"):
        line.ok("policy", "set", "--org", f"{org}-a", "--scope", "agent", "--name", "bot", "--monthly", "0.01")
        line.arrive([event(org_id=f"{org}-a", agent="bot", **twice)])
        question["org"] = f"{org}-a"
        shop.denied(agent="bot", **question)
        assert shop.guard.check("gpt-4o", agent="other", **question)
    with check.step("tried out on what was"):
        (tried,) = line.json("policy", "try", "--org", org, "--scope", "run", "--default", "--daily", "0.01")["limits"]
        assert (tried["highest"]["run"], tried["highest"]["used"]) == ("r1", 20_000_000)
    with check.step('"*" is refused, as it would limit nobody'):
        done = line.run("policy", "set", "--org", org, "--scope", "agent", "--name", "*", "--daily", "1")
        assert done.code == 2
        assert "--default" in done.err


def test_q4(check: Check, line: Line, shop: Shop) -> None:
    org = check.org
    line.ok("policy", "set", "--org", org, "--daily", "0.01")
    line.arrive([event(org_id=org, output_tokens=2_000)])
    question: dict[str, Any] = {"org": org, "provider": "openai", "max_output_tokens": 10}
    shop.denied(**question)
    adjust = ("--org", org, "--by", "ann", "--reason")

    def raised(seconds: int) -> datetime:
        """Raise the limit for so long; return when it was."""
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        line.ok("policy", "raise", *adjust, "launch", "--daily", "1", "--until", until.isoformat())
        return until

    with check.step("raised until a time, with who and why, and over by itself"):
        raised(15)
        line.until(lambda: isinstance(shop.guard.check("gpt-4o", **question), Allow))
        shop.denied(**question)
        told = line.until(lambda: [one for one in line.alerts(org_id=org) if one["data"].get("threshold_pct") == 100])
        assert {one["data"]["limit_nano"] for one in told} == {10_000_000}
    with check.step("reset: what was used so far no longer counts"):
        line.ok("policy", "reset", *adjust, "refund")
        line.until(lambda: isinstance(shop.guard.check("gpt-4o", **question), Allow))
        line.arrive([event(org_id=org, output_tokens=2_000)])
        shop.denied(**question)
    with check.step("a raise is ended before its time, with who and why"):
        raised(3_600)
        line.until(lambda: isinstance(shop.guard.check("gpt-4o", **question), Allow))
        line.ok("policy", "put-back", *adjust, "over early")
        shop.denied(**question)
        again = line.run("policy", "put-back", *adjust, "over early")
        assert (again.code, "nothing to put back" in again.err + again.out) == (1, True)
    with check.step("what cannot be reset is said, and nothing is changed"):
        for scope, words in (
            (("--name", "rolls", "--rolling", "5=1"), "hours that roll"),
            (("--name", "each", "--daily", "1", "--applies", "each_member"), "limits each member"),
        ):
            line.ok("policy", "set", "--org", org, "--scope", "group", *scope)
            done = line.run("policy", "reset", "--org", org, "--scope", "group", *scope[:2], "--reason", "x")
            assert (done.code, words in done.err, "Traceback" in done.err) == (2, True, False), done.err
    with check.step("the history is kept"):
        line.ok("policy", "set", "--org", org, "--no-limits")
        kept = line.json("policy", "history", "--org", org)
        assert [one["reason"] for one in kept] == ["launch", "refund", "launch", "over early"]
        assert {one["by"] for one in kept} == {"ann"}
        assert kept[1]["added"] >= 20_000


def test_q5(check: Check, line: Line, shop: Shop) -> None:
    org, mini = check.org, "gpt-4o-mini"
    ann = ("--org", org, "--scope", "user", "--name", "ann")
    with check.step("a model that is not allowed is refused with the allowed names; others may use it"):
        made = line.json("policy", "models", "set", *ann, "--allow", "OpenAI/GPT-4o-mini", "--create")
        assert (made["rule"], made["allowed"], made["unknown"]) == (f"models:{org}/user/ann", [mini], [])
        status, body = shop.refused(org, user_id="ann", model="gpt-4o", most=10)
        assert (status, body["refused"], body["model"]) == (403, "model_not_allowed", "gpt-4o")
        assert (body["allowed"], body["scope"], body["name"]) == ([mini], "user", "ann")
        assert shop.refusal(org, user_id="bob", model="gpt-4o", most=10) is None
        for name in (mini, "gpt-4o-mini-2024-07-18", "GPT-4o-mini"):
            assert shop.refusal(org, user_id="ann", model=name, most=10) is None, name
    with check.step("the refusal is an event: BLOCKED, of cost exactly 0, without tokens"):
        line.landed(f"org_id = '{org}' AND status = 'BLOCKED'", 1)
        asked = f"SELECT cost_nano, input_tokens, output_tokens, error_type FROM usage WHERE org_id = '{org}'"
        (row,) = line.sql(f"{asked} AND status = 'BLOCKED'")
        assert [int(row[name]) for name in ("cost_nano", "input_tokens", "output_tokens")] == [0, 0, 0]
        assert row["error_type"] == "model_not_allowed"
    with check.step("explain says which rule decides, and what becomes of a model"):
        explained = line.json("policy", "explain", "--org", org, "--user", "ann", "--model", "gpt-4o")["models"]
        assert (explained["verdict"], explained["allowed"]) == ("refused", [mini])
        assert explained["refused_by"] == [f"models:{org}/user/ann"]
    with check.step("a group's rule holds for its members, a user's own wins whole, a key's always holds"):
        line.ok("member", "set", "--org", org, "--user", "cem", "--in", "web")
        line.ok("policy", "models", "set", "--org", org, "--scope", "group", "--name", "web", "--allow", mini)
        shop.refused(org, user_id="cem", model="gpt-4o", most=10)
        line.ok("policy", "models", "set", "--org", org, "--scope", "user", "--name", "cem", "--allow", "*")
        shop.served(org, user_id="cem", model="gpt-4o", most=10)
        line.ok("policy", "models", "set", "--org", org, "--scope", "key", "--name", "k-5", "--allow", "gpt-4o")
        shop.refused(org, user_id="cem", api_key_id="k-5", model="o1", most=10)
    with check.step("or the call is made with a cheaper model; event and answer say what was asked and what served"):
        soft = ("--org", org, "--scope", "user", "--name", "dee", "--allow", mini, "--downgrade-to", mini, "--create")
        line.ok("policy", "models", *soft)
        answer = line.until(
            lambda: (got := shop.served(org, user_id="dee", model="gpt-4o", most=10)).parse().model == mini and got
        )
        assert answer.headers["x-tollmeter-model-asked"] == "gpt-4o"
        line.landed(f"org_id = '{org}' AND user_id = 'dee' AND fallback_from = 'gpt-4o' AND model_sent = '{mini}'", 1)
    with check.step("through the proxy, too"):
        line.until(lambda: line.proxied(org, 10, user="ann").status == 403)
        assert line.proxied(org, 10, user="ann").document["refused"] == "model_not_allowed"
        served = line.proxied(org, 10, user="dee")
        assert (served.status, served.document["model"]) == (200, mini)
        assert (served.headers["x-tollmeter-model-asked"], served.headers["x-tollmeter-model-sent"]) == ("gpt-4o", mini)
    with check.step("a name that nobody knows is said when the rule is set, and deleting ends it"):
        odd = line.json("policy", "models", "set", *ann, "--allow", "gpt-4oo")
        assert odd["unknown"] == ["gpt-4oo"]
        assert line.run("policy", "models", "set", *ann, "--allow", mini, "--downgrade-to", "o1").code == 2
        line.ok("policy", "models", "delete", *ann)
        shop.served(org, user_id="ann", model="gpt-4o", most=10)


def test_q6(check: Check, line: Line) -> None:
    line.arrive([event(org_id=check.org, user_id="ann", output_tokens=10_000) for _ in range(3)])
    with check.step("what a policy would have refused in 30 days, when and for whom"):
        trial = ("policy", "try", "--org", check.org, "--scope", "user", "--name", "ann", "--daily", "0.15")
        (tried,) = line.json(*trial)["limits"]  # each call costs 0.10 USD: the third one comes up against 0.15
        (refusal,) = tried["refusals"]
        assert (tried["calls"], refusal["refused"], refusal["spared_nano"]) == (3, 1, 100_000_000)
        assert refusal["first_refused"]
        each = line.json("policy", "try", "--org", check.org, "--applies", "each_member", "--daily", "0.15")
        assert [one["user"] for one in each["limits"][0]["refusals"]] == ["ann"]
    with check.step("a budget that no traffic can reach is named"):
        (tried,) = line.json("policy", "try", "--org", check.org, "--daily", "1000000")["limits"]
        assert tried["can_be_reached"] is False
        assert "would have reached it" in tried["words"]


def test_q7(check: Check, line: Line) -> None:
    # 23:30 UTC yesterday is today in Berlin
    at = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(minutes=30)
    line.arrive([event(at, org_id=check.org, output_tokens=10_000)])
    with check.step("reports take a zone, with half-open local days, and print it"):
        shown = line.ok("report", "spend", "--by", "day", "--zone", "Europe/Berlin", "--org", check.org)
        assert f"{(at + timedelta(hours=1)).date()}" in shown
        assert "Europe/Berlin" in shown
    with check.step("a zone in every report and export"):
        for command in (["report", "today"], ["report", "operations"], ["report", "summary"], ["report", "calls"]):
            assert "Europe/Berlin" in line.ok(*command, "--zone", "Europe/Berlin"), command
        day = f"{(at + timedelta(hours=1)).date()}"
        exported = line.ok("export", "--day", day, "--zone", "Europe/Berlin", "--org", check.org, "--format", "json")
        assert len(exported.splitlines()) == 1
    with check.step("a zone over HTTP"):
        answer = line.http("GET", "/api/costs/today?zone=Europe/Berlin", authorization=f"Bearer {KEYS['READ_KEY']}")
        assert answer.document["zone"] == "Europe/Berlin"
        assert answer.document["from"].endswith(("T00:00:00+01:00", "T00:00:00+02:00"))
    with check.step("pages have the same local days, with the zone beside the total"):
        key = line.json("server-key", "create", "--org", check.org, "--role", "read", "--name", "zones")["secret"]
        berlin = (at + timedelta(hours=1)).date()
        for zone, local, total in (
            ("Europe/Berlin", berlin, "0.1000 USD"),
            ("Europe/Berlin", berlin - timedelta(days=1), "0.0000 USD"),
            ("UTC", berlin, "0.0000 USD"),
        ):
            asked = f"/dashboard/spend?by=day&zone={zone}&from={local}&until={local + timedelta(days=1)}"
            page = line.http("GET", asked, x_api_key=key).body.decode()
            assert f"<b>{total}</b>" in page, (zone, local)
            assert f"{local} 00:00 to {local + timedelta(days=1)} 00:00 {zone}" in page
    with check.step("a budget's day is the local one"):
        zone = "Asia/Tokyo"
        line.ok("policy", "set", "--org", check.org, "--daily", "1", "--timezone", zone)
        (budget,) = line.json("policy", "explain", "--org", check.org)["budgets"]
        assert zone in json.dumps(budget)


NOTHING = ("0.0000 USD", "0", "0", "nothing heard yet")


def test_q8(check: Check, line: Line) -> None:
    with check.step("every total says its age"):
        for command in (["report", "spend"], ["report", "operations"], ["report", "today"]):
            assert "age" in json.dumps(line.json(*command)), command
    with check.step("every total says how much is estimated, unpriced, at risk, corrected"):
        for command in (["report", "spend"], ["report", "operations"], ["report", "today"]):
            text = json.dumps(line.json(*command))
            assert all(word in text for word in ("estimated", "unpriced", "at_risk", "corrected")), command
    with check.step("over HTTP, too"):
        for path in ("/api/costs/today", "/api/v1/spend", "/api/v1/operations", "/api/v1/calls"):
            totals = line.http("GET", path, authorization=f"Bearer {KEYS['READ_KEY']}").document["totals"]
            assert {"age_s", "estimated", "unpriced", "usd_at_risk", "corrected"} <= totals.keys(), path
    with check.step("on pages, too, beside each total, and an age of nothing is no age"):
        line.arrive(
            [
                event(org_id=check.org, output_tokens=10_000),
                event(org_id=check.org, output_tokens=10_000, usage_source="ESTIMATED"),
                event(org_id=check.org, model_sent=UNKNOWN, input_tokens=10),
            ]
        )
        for org, told in ((check.org, ("0.2000 USD", "1", "1", r"\d+ s old")), (f"{check.org}-none", NOTHING)):
            key = line.json("server-key", "create", "--org", org, "--role", "read", "--name", "ages")["secret"]
            for path in ("/dashboard/spend?span=24h", "/dashboard/calls"):
                page = line.http("GET", path, x_api_key=key).body.decode()
                total, unpriced, estimated, age = told
                assert f"<b>{total}</b>" in page, (org, path)
                assert f"<b>{unpriced}</b><span>calls without a known price, not in it; at risk" in page
                assert f"<b>{estimated}</b><span>calls with estimated counts, in it; 0 corrected" in page
                assert re.search(rf'<b class="(fresh|unknown)">{age}</b><span>newest event of the ledger', page)


def test_q9(check: Check, line: Line) -> None:
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }
    line.arrive([event(org_id=check.org, request_id=f"r-{check.org}", output_tokens=10_000)])
    made = line.json("server-key", "create", "--org", check.org, "--role", "read", "--name", "assistant")
    key = {"TOLLMETER_READ_KEY": made["secret"]}
    with check.step("tools spend_by, why, top_calls and budgets over MCP"):
        environment = line.environment | key
        assert {"spend_by", "why", "top_calls", "budgets"} <= asyncio.run(names(environment, line.folder))
    with check.step("a real client asks all four, for the organisation of its key alone"):
        line.ok("policy", "set", "--org", check.org, "--daily", "1")
        asked = [
            ("spend_by", {"by": ["org"], "since": "1h"}),
            ("top_calls", {}),
            ("why", {"id": f"r-{check.org}"}),
            ("budgets", {}),
        ]
        spend, top, why, budgets = asyncio.run(tools(environment, line.folder, asked))
        assert [row["org_id"] for row in spend["rows"]] == [check.org]
        assert spend["totals"]["usd_est"] == 0.1
        assert [call["request_id"] for call in top["rows"]] == [f"r-{check.org}"]
        assert why["calls"][0]["cost_nano"] == 100_000_000
        assert line.until(lambda: asyncio.run(tools(environment, line.folder, [asked[3]]))[0]["budgets"])
        assert all(one["org_id"] == check.org for one in budgets["budgets"])
    with check.step("allowed_models says which models a call may use, by which rules"):
        line.ok("policy", "models", "set", "--org", check.org, "--allow", "gpt-4o-mini")
        key_rule = ("--scope", "key", "--name", "k-9", "--allow", "o3", "--allow", "gpt-4o-mini")
        line.ok("policy", "models", "set", "--org", check.org, *key_rule)
        asked = [
            ("allowed_models", {"user": "ann", "model": "gpt-4o"}),
            ("allowed_models", {"user": "ann", "provider": "openai", "model": "gpt-4o-mini-2024-07-18"}),
            ("allowed_models", {"api_key": "k-9", "model": "o3"}),
        ]
        refused, allowed, both = asyncio.run(tools(environment, line.folder, asked))
        rule, own = f"models:{check.org}/org/", f"models:{check.org}/api_key/k-9"
        assert (refused["verdict"], refused["allowed"], refused["refused_by"]) == ("refused", ["gpt-4o-mini"], [rule])
        assert (allowed["verdict"], allowed["refused_by"]) == ("allowed", [])
        assert ([one["rule"] for one in both["rules"]], both["refused_by"]) == ([own, rule], [rule])
        assert both["allowed"] == ["gpt-4o-mini"]
    with check.step("without a key that reads nothing is answered"):
        for wrong in ({}, {"TOLLMETER_READ_KEY": "tmk_nobody"}):
            done = line.run("mcp", text=json.dumps(hello) + "\n", **wrong)
            assert (done.code, done.out) == (2, "")
            assert "TOLLMETER_READ_KEY" in done.err


@asynccontextmanager
async def assistant(environment: dict[str, str], folder: Path) -> AsyncIterator[ClientSession]:
    """Speak with the command by the protocol's own client library."""
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "tollmeter", "mcp"], env=environment, cwd=str(folder)
    )
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        yield session


async def names(environment: dict[str, str], folder: Path) -> set[str]:
    async with assistant(environment, folder) as session:
        return {tool.name for tool in (await session.list_tools()).tools}


async def tools(environment: dict[str, str], folder: Path, asked: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    async with assistant(environment, folder) as session:
        results = [await session.call_tool(name, arguments) for name, arguments in asked]
    assert not any(result.is_error for result in results), results
    return [result.structured_content for result in results]


@ALONE
def test_q10(check: Check, line: Line) -> None:
    line.refresh()
    line.produce("usage.events", wire([event(org_id=check.org, api_key_id="acc-top", output_tokens=1_000)]))
    for dimension in ("key", "user", "model", "ip"):
        with check.step(f"live by {dimension}"):
            line.until(lambda by=dimension: line.json("top", "--once", "--by", by, "--org", check.org)["rows"])
            (row,) = line.json("top", "--once", "--by", dimension, "--org", check.org)["rows"]
            assert (row["calls"], row["cost_nano"]) == (1, 10_000_000)
    with check.step("also with ClickHouse away"):
        pid = line.state["processes"]["front"]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            shown = line.json("top", "--once", "--by", "key", "--org", check.org)
            assert [row["name"] for row in shown["rows"]] == ["acc-top"]
        finally:
            os.kill(pid, signal.SIGCONT)
    with check.step("what our own programs wrote in all these rows, nobody took for a stranger's"):
        assert line.alerts(kind="foreign_record") == []
