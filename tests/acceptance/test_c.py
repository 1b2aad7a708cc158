"""Cost limits of organisations, groups and users: rows C1 to C11. Amounts in EUR at the stack's made-up rates."""

from datetime import UTC, datetime
from typing import Any

from tests.acceptance.checks import ROW, Check
from tests.acceptance.rates import eur_nano
from tests.acceptance.shop import Shop
from tests.acceptance.stack import Answer, Line
from tests.acceptance.world import cost_nano, event

pytestmark = ROW

FIELDS = """
cost_used_today_micro_eur cost_limit_today_micro_eur cost_used_month_micro_eur cost_limit_month_micro_eur
cost_remaining_today_micro_eur cost_remaining_month_micro_eur warn_threshold_pct currency billing_scope_org
by_provider_keys requests_used_today tokens_used_month requests_limit tokens_limit requests_remaining tokens_remaining
"""
STATUS = FIELDS.split()
LIMITS = [name for name in STATUS if "limit_" in name or "remaining_" in name]
EUR = ("--currency", "EUR")
DAILY = "llm cost limit exceeded: daily cost limit reached"
MONTHLY = "llm cost limit exceeded: monthly cost limit reached"


def policy(line: Line, org: str, scope: str, name: str, *options: str) -> Any:
    """Set a policy in EUR; return its document."""
    named = ["--name", name] if name else []
    create = ["--create"] if scope == "user" else []
    return line.json("policy", "set", "--org", org, "--scope", scope, *named, *EUR, *create, *options)


def call(org: str, user: str, output: int = 10_000, **more: Any) -> dict[str, Any]:
    """Return a call of gpt-4o: 10,000 output tokens are 0.10 USD."""
    return event(org_id=org, user_id=user, output_tokens=output, **more)


def micro_up(nano: int) -> int:
    """Return nano as micro, rounded up as what is used is."""
    return -(-nano // 1_000)


def eur(output: int, input_: int = 0) -> int:
    """Return what such a call of today costs in nano-EUR."""
    return eur_nano(cost_nano("gpt-4o", input_, output) or 0, datetime.now(UTC).date())


def test_c1(check: Check, line: Line, shop: Shop) -> None:
    org = check.org
    with check.step("organisation, group and user, in integer micro-EUR, warning at 80 %"):
        for scope, name in (("org", ""), ("group", "blue"), ("user", "ann")):
            made = policy(line, org, scope, name, "--daily", "1.5", "--monthly", "9")
            assert (made["daily_limit_micro"], made["monthly_limit_micro"]) == (1_500_000, 9_000_000)
            assert (made["currency"], made["warn_threshold_pct"]) == ("EUR", 80)
    with check.step("a warning of 0 or less means 80"):
        assert policy(line, org, "group", "red", "--daily", "1", "--warn-pct", "0")["warn_threshold_pct"] == 80
        assert policy(line, org, "group", "red", "--daily", "1", "--warn-pct", "-5")["warn_threshold_pct"] == 80
    with check.step("each member is limited for himself, or all together as a pool"):
        line.ok("policy", "set", "--org", f"{org}-e", *EUR, "--applies", "each_member", "--daily", "0.1")
        line.arrive([call(f"{org}-e", "ann", 20_000)])
        question = {"org": f"{org}-e", "provider": "openai", "max_output_tokens": 10}
        shop.denied(user="ann", **question)
        assert shop.guard.check("gpt-4o", user="bob", **question)
        line.ok("policy", "set", "--org", f"{org}-p", *EUR, "--applies", "pool", "--daily", "0.1")
        line.arrive([call(f"{org}-p", "ann", 20_000)])
        question["org"] = f"{org}-p"
        shop.denied(user="bob", **question)
    with check.step("guard, status, explain and alerts name which"):
        named = {
            "guard": shop.denied(user="ann", **question).body,
            "explain": line.json("policy", "explain", "--org", f"{org}-e", "--user", "ann")["budgets"][0],
            "status": line.json("policy", "status", "--org", f"{org}-e", "--user", "ann"),
            "alert": line.alerts(org_id=f"{org}-e")[0]["data"],
        }
        assert {where: found.get("applies") for where, found in named.items()} == {
            "guard": "pool",
            "explain": "each_member",
            "status": "each_member",
            "alert": "each_member",
        }


def test_c2(check: Check, line: Line, shop: Shop) -> None:
    org = check.org
    line.ok("member", "set", "--org", org, "--user", "ann", "--in", "blue", "--in", "red")
    member = ("--applies", "each_member")
    policy(line, org, "org", "", *member, "--daily", "5", "--monthly", "50", "--warn-pct", "90")
    policy(line, org, "group", "blue", *member, "--daily", "2", "--monthly", "60", "--warn-pct", "70")
    policy(line, org, "group", "red", *member, "--monthly", "40")

    def effective() -> tuple[int | None, int | None, int]:
        status = line.json("policy", "status", "--org", org, "--user", "ann")
        day, month = (status.get(f"cost_limit_{kind}_micro_eur") for kind in ("today", "month"))
        return day, month, status["warn_threshold_pct"]

    with check.step("the tightest day, the tightest month and the lowest warning of organisation and groups"):
        assert effective() == (2_000_000, 40_000_000, 70)
    with check.step("limits of 0 or less are absent, and never win"):
        policy(line, org, "group", "red", *member, "--daily", "0", "--monthly", "-1")
        assert effective() == (2_000_000, 50_000_000, 70)
    with check.step("the user's own policy wins whole"):
        policy(line, org, "user", "ann", "--monthly", "70")
        assert effective() == (None, 70_000_000, 80)
    with check.step("no policy: no limit, warning at 80"):
        line.ok("member", "set", "--org", f"{org}-n", "--user", "eve")
        status = line.json("policy", "status", "--org", f"{org}-n", "--user", "eve")
        assert (status["warn_threshold_pct"], [name for name in LIMITS if name in status]) == (80, [])
    with check.step("a group that only the call names limits as one of the membership does"):
        theirs = f"{org}-g"
        policy(line, theirs, "group", "interns", *member, "--daily", "0.01", "--create")
        line.arrive([event(org_id=theirs, user_id="zoe", output_tokens=2_000)])
        question: dict[str, Any] = {"org": theirs, "provider": "openai", "max_output_tokens": 10, "user": "zoe"}
        deny = shop.denied(groups=["interns"], **question)
        assert (deny.body["error"], deny.body["reason"]) == ("CostLimitExceeded", "used")
        assert deny.body["policy_id"].startswith(f"{theirs}/group/interns/each_member/")
        assert shop.guard.check("gpt-4o", **question), "without the group nothing limits the call"
        explained = line.json("policy", "explain", "--org", theirs, "--user", "zoe", "--group", "interns")
        assert [one["policy_id"] for one in explained["budgets"]] == [deny.body["policy_id"]]


def test_c3(check: Check, line: Line) -> None:
    org = check.org
    policy(line, org, "user", "ann", "--daily", "0.10", "--monthly", "3")
    line.arrive(
        [
            call(org, "ann", 1_234, input_tokens=1_000, billing_scope="ORG", api_key_id="k1"),
            call(org, "ann", 3_000, billing_scope="USER"),
            call(org, "ann", 0, status="BLOCKED", usage_source="NONE"),
            call(org, "bob", 50_000),
        ]
    )
    used, own = micro_up(eur(1_234, 1_000)), micro_up(eur(3_000))
    status = line.json("policy", "status", "--org", org, "--user", "ann")
    with check.step("used, limit and remaining of today and this month"):
        assert (status["cost_used_today_micro_eur"], status["cost_used_month_micro_eur"]) == (used, used)
        assert (status["cost_limit_today_micro_eur"], status["cost_limit_month_micro_eur"]) == (100_000, 3_000_000)
        assert status["cost_remaining_today_micro_eur"] == 100_000 - used
        assert status["cost_remaining_month_micro_eur"] == 3_000_000 - used
    with check.step("exactly the keys that clients know"):
        assert [name for name in status if name in STATUS] == STATUS
        assert (status["currency"], status["billing_scope_org"]) == ("EUR", True)
        assert all(status[name] == 0 for name in STATUS[-4:])
    with check.step("requests and tokens count all of the user's calls, whoever pays"):
        assert (status["requests_used_today"], status["tokens_used_month"]) == (2, 1_000 + 1_234 + 3_000)
    mine = line.json("policy", "status", "--org", org, "--user", "ann", "--own-keys")
    with check.step("own keys: own spend, no limits"):
        assert (mine["cost_used_today_micro_eur"], mine["billing_scope_org"]) == (own, False)
        assert "cost_limit_today_micro_eur" not in mine
        assert "cost_limit_month_micro_eur" not in mine
    with check.step("own keys: remaining from the limits and own use"):
        assert mine["cost_remaining_today_micro_eur"] == 100_000 - own
        assert mine["cost_remaining_month_micro_eur"] == 3_000_000 - own
    with check.step("remaining is never below 0"):
        line.arrive([call(org, "ann", 20_000)])
        again = line.json("policy", "status", "--org", org, "--user", "ann")
        assert again["cost_remaining_today_micro_eur"] == 0
    with check.step("no keys at all: by_provider_keys is absent"):
        line.ok("member", "set", "--org", org, "--user", "idle")
        assert "by_provider_keys" not in line.json("policy", "status", "--org", org, "--user", "idle")


def test_c4(check: Check, line: Line) -> None:
    org = check.org
    calls = [call(org, "ann", 1_000 * number, api_key_id=f"0123456789abc{number:03}") for number in range(1, 24)]
    calls += [call(org, "ann", 50_000), call(org, "ann", 40_000, api_key_id="short", billing_scope="USER")]
    line.arrive(calls)
    status = line.json("policy", "status", "--org", org, "--user", "ann")
    keys = status["by_provider_keys"]
    with check.step("dearest first, fingerprint, label, micro-EUR, EUR and scope of each"):
        named = [key for key in keys if key["fingerprint"]]
        names = ["fingerprint", "label", "cost_month_micro_eur", "cost_month_eur", "billing_scope"]
        assert [list(key) for key in keys] == [names] * len(keys)
        assert named[0] == {
            "fingerprint": "short",
            "label": "openai ···short",
            "cost_month_micro_eur": micro_up(eur(40_000)),
            "cost_month_eur": micro_up(eur(40_000)) / 10**6,
            "billing_scope": "USER",
        }
        assert (named[1]["fingerprint"], named[1]["label"]) == ("0123456789abc023", "openai ···89abc023")
        amounts = [key["cost_month_micro_eur"] for key in named]
        assert amounts == sorted(amounts, reverse=True)
    with check.step("calls without a key are a row, labelled by the provider"):
        (none,) = [key for key in keys if key["fingerprint"] == "" and key["label"] == "openai"]
        assert none["cost_month_micro_eur"] == micro_up(eur(50_000))
    with check.step("beyond the dearest twenty one line `other`; the lines add up to the month"):
        (other,) = [key for key in keys if key["label"] == "other"]
        assert (other["fingerprint"], len(keys)) == ("", 21)
        total = micro_up(sum(eur(one["output_tokens"]) for one in calls))
        assert abs(sum(key["cost_month_micro_eur"] for key in keys) - total) <= len(keys)


def test_c5(check: Check, line: Line, shop: Shop) -> None:
    org = check.org
    line.ok("policy", "set", "--org", org, *EUR, "--daily", "0.05")
    line.arrive([call(org, "ann", 50_000, billing_scope="USER")])
    line.folded(org, 1)
    with check.step("calls on own keys do not count against the organisation"):
        status = line.json("policy", "explain", "--org", org)["budgets"]
        assert {budget["used"] for budget in status} == {0}
        assert line.alerts(org_id=org) == []
    with check.step("unknown counts as the organisation's"):
        line.arrive([call(org, "ann", 10_000, billing_scope="UNKNOWN")])
        question: dict[str, Any] = {"org": org, "provider": "openai", "max_output_tokens": 10}
        shop.denied(user="ann", **question)
    with check.step("never refused by its limits, also of a user whom nobody knows"):
        assert shop.guard.check("gpt-4o", user="nobody-knows", billing_scope="USER", **question)


def test_c6(check: Check, line: Line, shop: Shop) -> None:
    org = check.org
    line.ok("policy", "set", "--org", org, "--scope", "user", "--name", "ann", "--create", "--monthly", "0.1")
    line.arrive([call(org, "ann", 10_000)])  # exactly the limit
    with check.step("used ≥ limit is refused with type and text; the month's"):
        status, body = shop.refused(org, user_id="ann", most=10)
        assert (status, body["refused"], body["message"]) == (402, "CostLimitExceeded", MONTHLY)
    with check.step("daily first where both are spent"):
        line.ok("policy", "set", "--org", org, "--scope", "user", "--name", "ann", "--daily", "0.1", "--monthly", "0.1")
        line.until(lambda: (shop.refusal(org, user_id="ann", most=10) or (0, {}))[1].get("message") == DAILY)
    with check.step("as an exception of that name in Python"):
        said = line.python(
            "from tollmeter import Guard\n"
            "with Guard() as guard:\n"
            "    assert guard.ready(60), guard.problem\n"
            "    try:\n"
            f"        guard.check('gpt-4o', org='{org}', user='ann', max_output_tokens=10).raise_if_denied()\n"
            "    except Exception as error:\n"
            "        print(f'{type(error).__name__}: {error}')"
        )
        assert said.out.strip() == f"CostLimitExceeded: {DAILY}", said.err


def test_c7(check: Check, line: Line) -> None:
    org = check.org
    with check.step("where the organisation has no policy: no limits, warning at 80"):
        absent = line.run("policy", "get", "--org", org, "--json")
        assert (absent.document, "warn 80 %" in absent.err) == ([], True)
    with check.step("set again it is replaced"):
        for daily in ("1", "2"):
            policy(line, org, "group", "blue", "--daily", daily)
        (found,) = line.json("policy", "get", "--org", org, "--scope", "group", "--name", "blue")
        assert found["daily_limit_micro"] == 2_000_000
    with check.step("a group's and a user's are deleted; an absent one is no error"):
        for _ in range(2):
            line.ok("policy", "delete", "--org", org, "--scope", "group", "--name", "blue")
        assert line.run("policy", "get", "--org", org, "--scope", "group", "--name", "blue", "--json").document == []
    with check.step("cannot delete org policy"):
        policy(line, org, "org", "", "--daily", "1")
        refused = line.run("policy", "delete", "--org", org, "--scope", "org")
        assert refused.code == 2
        assert "cannot delete org policy" in refused.err
    with check.step("membership is data and decides limits; the call's own group decides attribution"):
        policy(line, org, "group", "red", "--applies", "each_member", "--daily", "0.5")
        line.ok("member", "set", "--org", org, "--user", "ann", "--in", "red")
        line.arrive([call(org, "ann", 100, group_id="green")])
        status = line.json("policy", "status", "--org", org, "--user", "ann")
        assert status["cost_limit_today_micro_eur"] == 500_000
        assert [row["group_id"] for row in line.sql(f"SELECT group_id FROM usage WHERE org_id = '{org}'")] == ["green"]


def _served(line: Line, path: str, **headers: str) -> Answer:
    """Return the answer to a key, once the server knows it."""
    line.until(lambda: line.http("GET", path, **headers).status != 401)
    return line.http("GET", path, **headers)


def test_c8(check: Check, line: Line) -> None:
    with check.step("spend status of a user over HTTP"):
        line.ok("member", "set", "--org", check.org, "--user", "ann")
        made = line.json("server-key", "create", "--org", check.org, "--role", "admin", "--name", "billing")
        mine = {"x_api_key": made["secret"]}
        answer = _served(line, "/api/v1/ai/spend/ann", **mine)
        assert (answer.status, answer.document["currency"]) == (200, "EUR")
        assert line.http("GET", "/api/v1/ai/spend/ann", x_api_key=line.environment["API_KEY"]).status == 404
    with check.step("usage summary and price list"):
        answer = line.http("GET", "/api/v1/ai/usage/summary", **mine)
        assert answer.status == 200, answer.body.decode()
        totals = answer.document["this_month"]
        assert (totals["calls"], totals["usd_est"]) == (0, 0.0)
        listed = line.http("GET", "/api/v1/ai/prices?model=gpt-4o&provider=openai", **mine).document["prices"]
        rates = [one["usd_per_mtok"] for one in listed if not one["context"] and "above_input" not in one]
        assert {"input_tokens": 2.5, "cache_read_tokens": 1.25, "output_tokens": 10.0}.items() <= rates[0].items()
    with check.step("`user not found` where nobody knows the user"):
        answer = line.http("GET", "/api/v1/ai/spend/nobody-knows", x_api_key=line.environment["API_KEY"])
        assert answer.status == 404
        assert "user not found" in answer.body.decode()


def test_c9(check: Check, line: Line) -> None:
    org = check.org
    line.ok("member", "set", "--org", org, "--user", "ann", "--in", "blue")
    policy(line, org, "org", "", "--applies", "each_member", "--daily", "5")
    policy(line, org, "group", "blue", "--applies", "each_member", "--daily", "2")
    line.arrive([call(org, "ann", 10_000)])
    document = line.json("policy", "explain", "--org", org, "--user", "ann")
    with check.step("the limit that binds, its policy and what is used"):
        (budget,) = document["budgets"]
        assert budget["policy_id"] == f"{org}/group/blue/each_member/EUR"
        assert budget["used"] == eur(10_000)
    with check.step("what lost, to which, and why"):
        (lost,) = document["lost"]
        assert (lost["policy_id"], lost["to"]) == (f"{org}/org//each_member/EUR", budget["policy_id"])
        assert lost["reason"] == "smaller_limit"
    with check.step("in words for people"):
        assert "smaller limit" in line.ok("policy", "explain", "--org", org, "--user", "ann")


def test_c10(check: Check, line: Line, shop: Shop) -> None:
    org = check.org
    with check.step("an answer without usage is estimated and says so"):
        shop.served(org, model="mute", user_id="ann", most=10)
        shop.producer.flush(30)
        line.landed(f"org_id = '{org}'", 1)
        (row,) = line.sql(f"SELECT * FROM usage WHERE org_id = '{org}'")
        assert (row["usage_source"], row["input_tokens"], row["output_tokens"]) == ("ESTIMATED", 100, 10)
    with check.step("replaced when it becomes known; totals follow"):
        sets = ("--set", "input_tokens=812", "--set", "output_tokens=97", "--set", "usage_source=PROVIDER")
        line.ok("correct", row["event_id"], "--set", "model_used=gpt-4o", "--set", "model_sent=gpt-4o", *sets)
        (known,) = line.sql(f"SELECT * FROM usage WHERE org_id = '{org}'")
        assert (known["usage_source"], known["input_tokens"], known["output_tokens"]) == ("PROVIDER", 812, 97)
        assert known["cost_nano"] == cost_nano("gpt-4o", 812, 97)
        day = f"SELECT cost_nano FROM usage_windows FINAL WHERE org_id = '{org}' AND scope = 'org' AND level = 'day'"
        line.until(lambda: line.one(day) == known["cost_nano"])


def test_c11(check: Check, line: Line, shop: Shop) -> None:
    answer = shop.ask(check.org, user_id="ann", request_id=f"{check.org}-1")
    with check.step("the SDK's answer carries usage, cost, price status and the request's id"):
        named = {
            name: answer.headers[f"x-tollmeter-{name}"]
            for name in (
                "request-id",
                "input-tokens",
                "output-tokens",
                "cost-nano",
                "price-status",
                "usage-source",
            )
        }
        assert named == {
            "request-id": f"{check.org}-1",
            "input-tokens": "1000",
            "output-tokens": "300",
            "cost-nano": "5000000",
            "price-status": "PRICED",
            "usage-source": "PROVIDER",
        }
    with check.step("the ledger says the same"):
        shop.producer.flush(30)
        line.landed(f"org_id = '{check.org}'", 1)
        assert line.one(f"SELECT cost_nano FROM usage WHERE org_id = '{check.org}'") == 5_000_000
    with check.step("answers through the proxy carry the same"):
        through = line.proxied(check.org, request_id=f"{check.org}-2")
        assert {name: through.headers[f"x-tollmeter-{name}"] for name in named} == named | {
            "request-id": f"{check.org}-2"
        }
        line.landed(f"org_id = '{check.org}' AND request_id = '{check.org}-2' AND cost_nano = 5000000", 1)
