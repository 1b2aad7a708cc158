"""A monthly budget with fallback: rows E1 to E5."""

import json
from pathlib import Path
from typing import Any

from tests.acceptance.checks import ROW, Check
from tests.acceptance.rates import DATED, OWN_PROVIDER
from tests.acceptance.shop import ASK, KEY, Shop
from tests.acceptance.stack import Line
from tests.acceptance.world import World, event
from tests.fake_provider import serving
from tollmeter.producers.fallback.chain import Client, FallbackChain
from tollmeter.producers.fallback.config import FallbackConfig
from tollmeter.producers.fallback.native import NativeClient, Target
from tollmeter.producers.http.meter import Meter

pytestmark = ROW

DOUBTS = {"refused", "unpriced", "usd_at_risk", "estimated", "corrected", "failed"}
ROOT = Path(__file__).parents[2]


def budget(line: Line, org: str, *options: str) -> None:
    """Give a provider ten dollars a month, to be told of when less than five remain."""
    named = ("--org", org, "--scope", "provider", "--name", "openai")
    line.ok("policy", "set", *named, "--monthly", "10", "--alert-remaining", "5", *options)


def test_e1(check: Check, line: Line, shop: Shop, world: World) -> None:
    org = check.org
    budget(line, org)
    # gpt-4o at 2.50 and 10 USD per million: 36,307 in and 8,923 out are 0.1799975 USD, in 126 calls
    calls = [event(org_id=org, input_tokens=288, output_tokens=70) for _ in range(125)]
    line.arrive([*calls, event(org_id=org, input_tokens=307, output_tokens=173)])
    report = line.run("report", "budget", "--org", org)
    lines = report.out.strip().split("\n")
    with check.step("calls, tokens, cost, period, budget, spent and remaining in plain lines"):
        said = "\n".join(lines)
        for part in ("calls: 126", "tokens: 45,230", "estimated cost: $0.18", "budget: $10.00", "remaining: $9.82"):
            assert part in said
        assert "period: 20" in said
        assert report.out.isascii()
    with check.step("the last line is the verdict: OK"):
        assert lines[-1].startswith("OK ")
        assert "126 calls, 45,230 tokens, $0.18 spent, $9.82 remaining" in lines[-1]
        assert report.code == 0
        assert "provider openai answers" not in said, "no key, no call"
    for _ in range(6):
        line.arrive([event(org_id=org, output_tokens=85_000)])
    with check.step("less than five dollars remain: ALERT, exit code 1"):
        short = line.run("report", "budget", "--org", org)
        assert short.out.strip().split("\n")[-1].startswith("ALERT ")
        assert short.code == 1
    with check.step("an alert when less than five dollars remain"):
        line.folded(org, 132)
        assert len(line.alerts(org_id=org, kind="remaining")) == 1
    with check.step("the verdict's words are a setting"):
        french = line.run("report", "budget", "--org", org, TOLLMETER_VERDICT_ALERT="ALERTE")
        assert french.out.strip().split("\n")[-1].startswith("ALERTE "), french.err.strip()
    with check.step("told daily at an hour that is a setting"):
        log = line.data / "logs" / "notify.log"
        line.until(lambda: "provider openai of world" in log.read_text(encoding="utf-8"), 6)
    with check.step("the report says whether the provider answers, where a key is configured"):
        keys = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"{shop.provider.url}/v1"}
        asked = line.run("report", "budget", "--org", org, **keys).out.strip().split("\n")
        assert asked[-2].startswith("provider openai answers: gpt-4o-mini, "), asked
        assert asked[-1].startswith("ALERT provider openai of"), asked
        away = line.run("report", "budget", "--org", org, **keys | {"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}).out
        assert "provider openai does not answer: " in away
        assert KEY not in "".join(asked) + away


def test_e2(check: Check, line: Line) -> None:
    org = check.org
    # 3 USD per million input tokens: 0.125, 0.06 and 0.004 USD
    named = {"provider": OWN_PROVIDER, "model_sent": DATED, "org_id": org}
    line.arrive(
        [
            event(feature=f"{org}-a", input_tokens=41_666, output_tokens=0, **named),
            event(feature=f"{org}-b", input_tokens=20_000, **named),
            event(feature=f"{org}-a", output_tokens=0, input_tokens=0, **named),
            event(feature=f"{org}-c", input_tokens=41_667, **named),
            event(feature=f"{org}-d", input_tokens=1_000, **named),
        ]
    )
    rows = line.json("report", "operations", "--provider", OWN_PROVIDER)["rows"]
    mine = [row for row in rows if row["operation_name"].startswith(org)]
    with check.step("the four keys, in order and first, and dearest first"):
        assert [list(row)[:4] for row in rows] == [["operation_name", "calls", "total_tokens", "cost_usd"]] * len(rows)
        assert {name for row in rows for name in list(row)[4:]} <= DOUBTS
        assert [row["operation_name"][-1] for row in mine] == ["c", "a", "b", "d"]
    with check.step("calls and tokens of this month"):
        assert [(row["calls"], row["total_tokens"]) for row in mine] == [
            (1, 41_667),
            (2, 41_666),
            (1, 20_000),
            (1, 1_000),
        ]
    with check.step("two decimals, half-up"):
        # 0.125001 and 0.124998; a half exactly: 0.06; 0.003
        assert [row["cost_usd"] for row in mine] == [0.13, 0.12, 0.06, 0.0]
        tie = [event(feature=f"{org}-tie", input_tokens=5_000, **named)]  # 0.015 USD
        line.arrive(tie)
        (row,) = [
            row
            for row in line.json("report", "operations", "--provider", OWN_PROVIDER)["rows"]
            if row["operation_name"] == f"{org}-tie"
        ]
        assert row["cost_usd"] == 0.02


def chain(shop: Shop, org: str, openai: str, model: str, ollama: str) -> Any:
    """Return OpenAI, else Ollama, else Gemini, for operation summarise."""
    config = FallbackConfig.model_validate(
        {
            "clients": {
                "openai": {"model": model, "timeout_s": 20},
                "ollama": {"model": "llama3.2"},
                "gemini": {"model": "gemini-2.5-flash"},
            },
            "operations": {"summarise": ["openai", "ollama", "gemini"]},
        }
    )
    meter = Meter(shop.producer, shop.guard, fields={"org_id": org})
    clients = {
        "openai": Client(NativeClient(Target("openai", openai, KEY), meter)),
        "ollama": NativeClient(Target("ollama", ollama), meter),
        "gemini": NativeClient(Target("gemini", shop.provider.url, KEY), meter),
    }
    return FallbackChain(config, clients)


def test_e3(check: Check, line: Line, shop: Shop) -> None:
    org, url = check.org, shop.provider.url

    def rows(where: str) -> list[dict[str, Any]]:
        shop.producer.flush(30)
        return line.until(
            lambda: line.sql(f"SELECT * FROM usage WHERE org_id = '{where}' AND status = 'OK' ORDER BY event_time")
        )

    with check.step("the first serves while it can"):
        assert chain(shop, f"{org}-0", f"{url}/v1", "gpt-4o", url).run("summarise", messages=ASK).model == "gpt-4o"
    with check.step("the next on a failure and on a spent quota; the event says fallback_from"):
        reply = chain(shop, f"{org}-1", "http://127.0.0.1:1/v1", "gpt-4o", url).run("summarise", messages=ASK)
        assert reply.model == "llama3.2"
        assert chain(shop, f"{org}-2", f"{url}/v1", "quota", url).run("summarise", messages=ASK).model == "llama3.2"
        (row,) = rows(f"{org}-1")
        assert (row["fallback_from"], row["model_sent"], row["operation_name"]) == ("gpt-4o", "llama3.2", "summarise")
    with check.step("the last when the second fails, too"):
        away = "http://127.0.0.1:1"
        reply = chain(shop, f"{org}-4", f"{away}/v1", "gpt-4o", away).run("summarise", messages=ASK)
        assert reply.model == "gemini-2.5-flash"
    with check.step("a local call is metered, as FREE"):
        (row,) = rows(f"{org}-1")
        assert (row["price_status"], row["cost_nano"], row["input_tokens"] > 0) == ("FREE", 0, True)
    with check.step("the next when the budget is spent"):
        named = ("--org", f"{org}-3", "--scope", "provider", "--name", "openai")
        line.ok("policy", "set", *named, "--monthly", "0.01")
        line.arrive([event(org_id=f"{org}-3", output_tokens=10_000)])
        shop.refused(f"{org}-3", most=10)
        assert chain(shop, f"{org}-3", f"{url}/v1", "gpt-4o", url).run("summarise", messages=ASK).model == "llama3.2"
    with check.step("the order per operation is a file"):
        shown = (ROOT / "examples" / "fallback.yaml").read_text(encoding="utf-8")
        assert "summarise: [openai, ollama, gemini]" in shown


def test_e4(check: Check, line: Line) -> None:
    with serving() as provider:
        with check.step("one tiny call that prints model and tokens"):
            done = line.run("probe", "openai", "--url", f"{provider.url}/v1", OPENAI_API_KEY=KEY)
            assert done.code == 0, done.err
            assert "gpt-4o-mini" in done.out
            assert "1000" in done.out.replace(",", "")
            assert len(provider.asked) == 1
        with check.step("metered like any call, the key never shown"):
            line.until(lambda: line.sql("SELECT * FROM usage WHERE operation_name = 'probe' OR operation = 'probe'"))
            assert KEY not in done.out + done.err
        with check.step("not reachable is exit code 1 and one line"):
            away = line.run("probe", "openai", "--url", "http://127.0.0.1:1/v1", OPENAI_API_KEY=KEY)
            assert away.code == 1
            assert len((away.out + away.err).strip().splitlines()) == 1


def test_e5(check: Check, line: Line) -> None:
    org = check.org
    budget(line, org)
    # 500 in at 2.50 and 200 out at 10 USD per million: 0.00325 USD a document
    line.arrive([event(org_id=org, feature="documents", input_tokens=500, output_tokens=200) for _ in range(10)])
    document = line.json("report", "budget", "--org", org)
    (operation,) = document["budgets"][0]["operations"]
    with check.step("a hundred more documents cost 0.325 USD"):
        assert (operation["operation_name"], operation["calls"]) == ("documents", 10)
        assert (operation["mean_cost"], operation["cost_of_100"]) == (0.00325, 0.325)
    with check.step("what remains buys so many calls at the mean cost"):
        # 10 - 0.0325 = 9.9675 USD at 0.00325
        assert operation["remaining_buys"] == 3_066
        assert "3,066" in line.ok("report", "budget", "--org", org)
        assert json.dumps(document)
