"""Tokens and money on a billing page: rows B1 to B4."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from tests.acceptance import tokens
from tests.acceptance.beside import ALONE
from tests.acceptance.checks import ROW, Check
from tests.acceptance.rates import eur_nano, rub_nano
from tests.acceptance.stack import Line
from tests.acceptance.world import cost_nano, event

pytestmark = ROW

COLUMNS = (
    "user_id agent_id ai_provider ai_model prompt_tokens completion_tokens total_tokens cost_usd cost_rub created_at"
)
EMPTY = {"total_tokens": 0, "cost_rub": 0.0, "requests_count": 0}


def test_b1(check: Check, line: Line) -> None:
    user, at = f"{check.org}-u", datetime.now(UTC) - timedelta(minutes=5)
    calls = [
        event(at, org_id=check.org, user_id=user, agent="bot", input_tokens=1_000, output_tokens=200),
        event(
            at, org_id=check.org, user_id=user, model_sent="dall-e-3", operation="image", extra_units={"images": 1.0}
        ),
        event(at, org_id=check.org, user_id=user, model_sent="no-such-model-7", input_tokens=10),
        event(
            at,
            org_id=check.org,
            user_id=user,
            provider="anthropic",
            model_sent="claude-sonnet-4-5",
            input_tokens=100,
            output_tokens=10,
        ),
    ]
    line.arrive(calls)
    rows = {row["ai_model"]: row for row in line.sql(f"SELECT * FROM token_usage WHERE user_id = '{user}'")}
    with check.step("exactly the ten columns"):
        assert [" ".join(row) for row in rows.values()] == [COLUMNS] * 4
    with check.step("counts, provider and agent of a chat"):
        row = rows["gpt-4o"]
        assert (row["agent_id"], row["ai_provider"], row["prompt_tokens"]) == ("bot", "openai", 1_000)
        assert (row["completion_tokens"], row["total_tokens"]) == (200, 1_200)
        assert rows["claude-sonnet-4-5"]["ai_provider"] == "anthropic"
    with check.step("cost in USD and, at the day's rate, in RUB"):
        nano = cost_nano("gpt-4o", 1_000, 200) or 0
        assert Decimal(str(rows["gpt-4o"]["cost_usd"])) * 10**9 == nano
        assert Decimal(str(rows["gpt-4o"]["cost_rub"])) * 10**9 == rub_nano(nano, at.date())
    with check.step("an image is priced per image, with no tokens"):
        image = rows["dall-e-3"]
        assert (image["total_tokens"], Decimal(str(image["cost_usd"]))) == (0, Decimal("0.04"))
    with check.step("an unknown cost is NULL, never 0"):
        assert (rows["no-such-model-7"]["cost_usd"], rows["no-such-model-7"]["cost_rub"]) == (None, None)
    with check.step("a total that the sender states larger than the sum is kept"):
        larger = event(at, org_id=check.org, user_id=f"{user}-2", input_tokens=10, output_tokens=20, total_tokens=45)
        line.arrive([larger])
        assert line.one(f"SELECT total_tokens FROM token_usage WHERE user_id = '{user}-2'") == 45


def test_b2(check: Check, line: Line) -> None:
    user = f"{check.org}-u"
    token = tokens.user_token(user, check.org)
    path = "/api/v1/billing/usage/tokens"
    with check.step("zeros, never an error, for a user without calls; the token with or without Bearer"):
        for value in (token, f"Bearer {token}"):
            answer = line.http("GET", f"{path}/summary", authorization=value)
            assert answer.status == 200
            assert answer.document == {
                "success": True,
                "data": dict.fromkeys(("today", "this_month", "all_time"), EMPTY),
            }
    at = datetime.now(UTC)
    line.arrive([event(at, org_id=check.org, user_id=user, input_tokens=1_000, output_tokens=200)])
    rub = rub_nano(cost_nano("gpt-4o", 1_000, 200) or 0, at.date()) / 10**9
    with check.step("tokens, RUB and requests of today, this month and all time"):
        data = line.http("GET", f"{path}/summary", authorization=token).document["data"]
        expected = {"total_tokens": 1_200, "cost_rub": round(rub, 4), "requests_count": 1}
        assert data == dict.fromkeys(("today", "this_month", "all_time"), expected)
    with check.step("a paged list in the same envelope"):
        document = line.http("GET", path, authorization=token).document
        assert document["success"] is True
        assert user in json.dumps(document["data"])
    with check.step("by model, by agent, by day"):
        for part in ("by-model", "by-agent", "daily"):
            answer = line.http("GET", f"{path}/{part}", authorization=token)
            assert (answer.status, answer.document["success"]) == (200, True), part
    with check.step("another currency by `currency`"):
        eur = line.http("GET", f"{path}/summary?currency=EUR", authorization=token).document["data"]["today"]
        assert "cost_eur" in eur
    with check.step("no token, no data; one's own calls only"):
        assert line.http("GET", f"{path}/summary").status == 401
        other = line.http("GET", f"{path}/summary", authorization=tokens.user_token("somebody-else"))
        assert other.document["data"]["all_time"] == EMPTY


@ALONE
def test_b3(check: Check, line: Line) -> None:
    other = {
        "TOLLMETER_CLICKHOUSE_DATABASE": f"db_{check.org.replace('-', '_')}",
        "TOLLMETER_TOPIC_PREFIX": f"{check.org}.",
    }

    def tables(database: str) -> list[str]:
        answer = line.query(f"SHOW TABLES FROM {database}", user="default")
        assert answer.status == 200, answer.body
        return sorted(answer.body.decode().split())

    with check.step("a running stack has every table, without anybody's doing"):
        assert {"usage_events", "usage", "token_usage", "usage_windows", "alerts"} <= set(tables("tollmeter"))
        assert line.one("SELECT count() FROM schema_migrations") > 0
    with check.step("another database gets the same by `setup`, and a second time nothing is to do"):
        line.ok("setup", **other)
        assert tables(other["TOLLMETER_CLICKHOUSE_DATABASE"]) == tables("tollmeter")
        line.ok("setup", **other)
    with check.step("a table that was dropped is there again after the next start"):
        dropped = line.query(f"DROP VIEW {other['TOLLMETER_CLICKHOUSE_DATABASE']}.token_usage", user="default")
        assert dropped.status == 200, dropped.body
        line.ok("setup", **other)
        assert "token_usage" in tables(other["TOLLMETER_CLICKHOUSE_DATABASE"])
    with check.step(
        "on the running stack it is there again by itself, the ledger filled from the log, and somebody told"
    ):
        calls = [event(org_id=check.org, input_tokens=1_000) for _ in range(3)]
        line.arrive(calls)
        whole = tables("tollmeter")
        line.written("DROP VIEW token_usage")
        line.written("DROP TABLE usage_events SYNC")
        line.until(lambda: tables("tollmeter") == whole)
        line.landed(f"org_id = '{check.org}'", 3, 3)
        mine = "user_id = '' AND ai_model = 'gpt-4o' AND created_at > now() - INTERVAL 1 HOUR"
        assert line.one(f"SELECT count() FROM token_usage WHERE {mine}") >= 3
        assert line.one(f"SELECT sum(cost_nano) FROM usage WHERE org_id = '{check.org}'") == 3 * 2_500_000
        line.until(lambda: line.alerts(kind="table_missing"))
        line.until(lambda: not line.run("verify", "--json").document["differences"], 3)


def test_b4(check: Check, line: Line) -> None:
    now = datetime.now(UTC)
    days = [now - timedelta(days=back) for back in range(4)]
    calls = [event(at, org_id=check.org, input_tokens=1_000, output_tokens=200) for at in days]
    old_at = now - timedelta(days=40)
    rows = line.arrive([*calls, event(old_at, org_id=check.org, input_tokens=1_000)])
    nano = cost_nano("gpt-4o", 1_000, 200) or 0
    with check.step("EUR and RUB at the rate of the call's own day"):
        for at, call in zip(days, calls, strict=True):
            row = rows[call["event_id"]]
            assert row["cost_eur_nano"] == eur_nano(nano, at.date()), at
            assert row["cost_rub_nano"] == rub_nano(nano, at.date()), at
    with check.step("the day of the rate stands in the row"):
        for name in ("fx_date", "fx_eur_date", "fx_rub_date"):
            assert {rows[call["event_id"]][name] for call in calls} == {f"{at.date()}" for at in days}
    with check.step("NULL where no rate of that time is known, never a guess"):
        (old,) = [row for row in rows.values() if row["output_tokens"] == 0]
        assert (old["cost_nano"], old["cost_eur_nano"], old["cost_rub_nano"]) == (2_500_000, None, None)
    with check.step("when rates come late, amounts of past days are filled in by corrections, each by its own day"):
        file, day = line.data.parent / f"{check.org}.csv", old_at.date()
        file.write_text(f"Date,USD,\n{day - timedelta(days=2)},1.25,\n", encoding="utf-8")
        said = line.json("prices", "fx", "update", str(file))
        assert said["added"] == 1
        where = (
            f"SELECT * FROM usage WHERE org_id = '{check.org}' AND output_tokens = 0 AND revision > {old['revision']}"
        )
        (new,) = line.until(lambda: line.sql(where))
        assert (new["cost_eur_nano"], new["cost_rub_nano"], new["cost_nano"]) == (2_000_000, None, 2_500_000)
        assert (new["fx_eur_date"], new["fx_rub_date"]) == (f"{day - timedelta(days=2)}", None)
        assert line.json("prices", "fx", "fill")["filled"] == 0
        spend = line.json("report", "spend", "--org", check.org, "--since", "60d")
        assert spend["totals"]["corrected"] == 1
    with check.step("PRICE takes late rates over by itself: the next call of that day has its amount at once"):

        def priced() -> int | None:
            call = event(old_at, org_id=check.org, input_tokens=2_000)
            amount: int | None = line.arrive([call])[call["event_id"]]["cost_eur_nano"]
            return amount

        assert line.until(priced) == 4_000_000
