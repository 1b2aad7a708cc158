"""Bills in the real engine: imported as whole days, once; compared by the command as by the rules; refused whole."""

import json
import os
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.bills import FETCHED, November, costs_page, november, usage_page
from tests.laws.test_bills import FALSE, FOUND, by_place, compared, judge, ours
from tests.priced_rows import insert, row
from tollmeter.admin.bills import store
from tollmeter.admin.bills.reconcile import ours_of
from tollmeter.cli.bills import bills
from tollmeter.cli.output import Finding
from tollmeter.cli.reconcile import compare_all, reconcile
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect

pytestmark = pytest.mark.stack

SEED = 52
SPAN = (date(2026, 11, 1), date(2026, 12, 1))
ASKED = ("--provider", "openai", "--month", "2026-11")


def rows_of(made: November) -> list[dict[str, Any]]:
    """Return the calls of the ledger as priced rows."""
    rows = []
    for number, call in enumerate(made.ours):
        fresh, read, write, output = call.tokens
        single = dict(zip(("input", "cache_read", "cache_write", "output"), call.tokens, strict=True))
        rates = {"input": 0, "cache_read": 1, "cache_write": 2, "output": 3}
        from tests.bills import RATES

        nano = {f"cost_{name}_nano": count * RATES[call.model][rates[name]] for name, count in single.items()}
        rows.append(
            row(
                number,
                event_time=call.at,
                received_at=call.at,
                org_id="o",
                provider="openai",
                model=call.model,
                api_key_id=call.key,
                status=call.status,
                usage_source=call.usage,
                price_status="PRICED",
                input_tokens=fresh + read + write,
                cache_read_tokens=read,
                cache_write_tokens=write,
                output_tokens=output,
                cost_nano=call.nano,
                cost_other_nano=0,
                **nano,
            )
        )
    return rows


@pytest.fixture(scope="module")
def made() -> November:
    return november(SEED)


@pytest.fixture(scope="module", name="seeded")
def seeded_settings(ledger_settings: Settings, made: November, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    client = connect(ledger_settings)
    rows = rows_of(made)
    insert(client, rows, offset=1)
    others: dict[str, Any] = {"event_time": datetime(2026, 11, 5, tzinfo=UTC), "cost_nano": 10**9, "org_id": "o"}
    insert(client, [row(10**6, **others, provider="anthropic", model="x")], offset=2)
    insert(client, [row(10**6 + 1, **others, provider="openai", model="gpt-4o", billing_scope="USER")], offset=3)
    client.close()
    folder = tmp_path_factory.mktemp("bills")
    for name, page in (("usage", usage_page(made)), ("costs", costs_page(made))):
        (folder / f"{name}.json").write_text(json.dumps(page, default=float), encoding="utf-8")
    taken(ledger_settings, folder / "usage.json")
    taken(ledger_settings, folder / "costs.json")
    return ledger_settings


def run(settings: Settings, command: Any, *words: str | Path) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words], obj=settings)


def taken(settings: Settings, *words: str | Path) -> dict[str, Any]:
    result = run(settings, bills, "import", *words, "--fetched", FETCHED.isoformat(), "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_query_adds_up_what_a_plain_sum_does(seeded: Settings, made: November) -> None:
    client = connect(seeded)
    assert ours_of(client, "openai", *SPAN) == ours(made)
    client.close()


def test_the_command_finds_what_the_rules_find(seeded: Settings, made: November) -> None:
    done = run(seeded, reconcile, *ASKED, "--json")
    assert done.exit_code == 1, done.output
    document = json.loads(done.stdout)
    plain = compared(made, usage_page(made), costs_page(made))
    share, false = judge(made, plain)
    assert share >= FOUND
    assert max(false.values()) < FALSE * plain.billed
    told: dict[Any, int] = {}
    for one in document["differences"]:
        place = (one["class"], date.fromisoformat(one["day"]), one["key"])
        told[place] = told.get(place, 0) + one["amount_nano"]
    expected = {place: usd for place, usd in by_place(plain).items() if abs(usd) > Decimal("1e-6")}
    for place, usd in expected.items():
        assert abs(told[place] - usd * 10**9) < 1_000, place
    assert all(one["likely_cause"] and one["next_step"] for one in document["differences"])
    assert sum(one["amount_nano"] for one in document["classes"][1:]) == pytest.approx(
        document["billed_nano"] - document["ours_nano"], abs=20
    )


def test_all_bills_since_a_month_are_compared_as_one_is(seeded: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    one = json.loads(run(seeded, reconcile, *ASKED, "--json").stdout)
    capsys.readouterr()
    with pytest.raises(Finding, match="closed days differ"):
        compare_all(seeded, {}, date(2026, 11, 1), alert=False, as_json=True)
    (found,) = json.loads(capsys.readouterr().out)["compared"]
    assert (found["provider"], found["month"], found["gaps"]) == ("openai", "2026-11", len(one["gaps"]))
    compare_all(seeded, {}, date(2026, 12, 1), alert=False, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"compared": []}
    for words, why in (((), "say whose bill"), (("--recent", "--provider", "openai"), "--recent takes all bills")):
        assert why in run(seeded, reconcile, *words).output


@pytest.mark.parametrize("by", ["day", "model", "key", "project"])
def test_sums_by_anything_are_the_whole(seeded: Settings, by: str) -> None:
    document = json.loads(run(seeded, reconcile, *ASKED, "--by", by, "--json").stdout)
    for side in ("billed_nano", "ours_nano"):
        assert abs(sum(one[side] for one in document["rows"]) - document[side]) < 100
    text = run(seeded, reconcile, *ASKED, "--by", by)
    assert "key_shadow" in text.output
    assert "next:" in text.stdout


def test_calls_behind_a_difference_are_named(seeded: Settings, made: November) -> None:
    document = json.loads(run(seeded, reconcile, *ASKED, "--json").stdout)
    named = [one for one in document["differences"] if one["class"] == "retries_aborted" and one["event_ids"]]
    by_id = {one["event_id"]: one for one in rows_of(made)}
    assert named
    for one in named:
        assert {by_id[event]["status"] for event in one["event_ids"]} == {"CANCELLED"}
        assert {by_id[event]["api_key_id"] for event in one["event_ids"]} == {one["key"]}


def test_taken_again_nothing_changes(seeded: Settings, tmp_path: Path, made: November) -> None:
    file = tmp_path / "costs.json"
    page = costs_page(made)
    file.write_text(json.dumps(page, default=float), encoding="utf-8")
    assert taken(seeded, file)["days"] == {"new": 0, "replaced": 0, "unchanged": 30, "kept": 0}
    page["data"][3]["results"] = page["data"][3]["results"][:1]
    file.write_text(json.dumps(page, default=float), encoding="utf-8")
    assert taken(seeded, file)["days"] == {"new": 0, "replaced": 1, "unchanged": 29, "kept": 0}
    client = connect(seeded)
    found, heads = store.lines_of(client, "openai", "", *SPAN)
    assert len([line for line in found["default/openai.costs"] if line.day == date(2026, 11, 4)]) == 1
    assert len(heads) == 60
    revisions = client.query(
        "SELECT count() AS rows FROM provider_costs WHERE day = '2026-11-04' AND source LIKE '%costs'"
    )
    assert revisions[0]["rows"] == 1, "replaced lines are gone"
    client.close()
    file.write_text(json.dumps(costs_page(made), default=float), encoding="utf-8")
    taken(seeded, file)


def _lines_only(client: ClickHouse, count: int) -> None:
    """Write lines of a day without the day, as an import that was killed in between."""
    rows = [
        ("openai", "default", "openai.costs", "2026-11-04", 2**62, number, *[""] * 6, None, "", 5, "USD", 5)
        for number in range(count)
    ]
    columns = [name for name in store.COLUMNS if name in store.COLUMNS]
    order = (
        "provider",
        "account",
        "source",
        "day",
        "revision",
        "line",
        "key_ref",
        "principal",
        "project",
        "model",
        "line_item",
        "meter",
        "quantity",
        "unit",
        "amount",
        "currency",
        "amount_usd",
    )
    assert set(order) == set(columns)
    client.insert_rows("provider_costs", order, rows)


def test_an_import_that_died_changes_nothing(seeded: Settings) -> None:
    before = run(seeded, reconcile, *ASKED, "--json").stdout
    client = connect(seeded)
    _lines_only(client, 3)
    assert run(seeded, reconcile, *ASKED, "--json").stdout == before
    client.command("DELETE FROM provider_costs WHERE revision = 4611686018427387904")
    client.close()


def refused(settings: Settings, *words: str | Path) -> str:
    """Import what must be refused: one line, exit code 2, and nothing changed."""
    client = connect(settings)
    count = "SELECT count() AS rows, sum(cityHash64(*)) AS content FROM provider_cost_days"
    before = client.query(count)
    done = run(settings, bills, "import", *words)
    assert (done.exit_code, client.query(count)) == (2, before), done.output
    client.close()
    said = done.stderr.strip()
    assert len(said.splitlines()) == 1
    return said


def test_what_cannot_be_a_bill_is_refused_in_one_line(seeded: Settings, tmp_path: Path, made: November) -> None:
    def file(name: str, document: Any) -> Path:
        path = tmp_path / name
        text = document if isinstance(document, str) else json.dumps(document, default=float)
        path.write_text(text, encoding="utf-8")
        return path

    costs, usage = costs_page(made), usage_page(made)
    whole = file("costs.json", costs)
    assert "no bill: Incorrect API key" in refused(
        seeded, file("error.json", {"error": {"message": "Incorrect API key", "type": "invalid_request_error"}})
    )
    assert "more pages follow" in refused(seeded, file("cut.json", costs | {"has_more": True, "next_page": "p2"}))
    assert "breaks off" in refused(seeded, file("half.json", whole.read_text(encoding="utf-8")[:5_000]))
    assert "is there twice" in refused(seeded, whole, file("again.json", costs))
    assert "one report at a time" in refused(seeded, file("both.json", [*costs["data"][:1], *usage["data"][1:2]]))
    odd = json.loads(json.dumps(costs, default=float))
    odd["data"][0]["results"][0]["amount"]["currency"] = "gbp"
    assert "GBP" in refused(seeded, file("gbp.json", odd))
    assert "bills of openai so far are of default" in refused_account(seeded, whole)
    assert "no bill of anthropic" in run(seeded, reconcile, "--provider", "anthropic", "--month", "2026-11").stderr


def test_a_bill_of_another_organisation_takes_the_place_of_none(
    seeded: Settings, tmp_path: Path, made: November
) -> None:
    """Reports of an organisation do not say whose they are; keys and projects do."""
    page = json.loads(json.dumps(usage_page(made), default=float))
    for bucket in page["data"]:
        for result in bucket["results"]:
            result |= {"api_key_id": f"other-{result['api_key_id']}", "project_id": "proj_other"}
    path = tmp_path / "other.json"
    path.write_text(json.dumps(page), encoding="utf-8")
    said = refused(seeded, path)
    assert "which the bill of openai for these days does not know" in said
    assert "--account NAME takes it as another organisation's, --account default as the same one's" in said
    assert taken(seeded, path, "--account", "org-other")["days"]["new"] == 30
    client = connect(seeded)
    client.command("DELETE FROM provider_cost_days WHERE account = 'org-other'")
    client.close()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--provider", "anthropic"], "this is a bill of openai, not of anthropic"),
        (["--account", "a", "--currency", "EUR"], "of a CSV with --map"),
        (["--map", "day=Day", "--map", "amount=Cost"], "--map needs --provider"),
        (["--map", "day=Day", "--map", "amount=Cost", "--provider", "x"], "is JSON: --map says"),
    ],
)
def test_words_that_do_not_fit_the_file(
    seeded: Settings, tmp_path: Path, made: November, words: list[str], why: str
) -> None:
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(costs_page(made), default=float), encoding="utf-8")
    assert why in refused(seeded, path, *words)


def test_a_provider_has_one_name_in_any_case(seeded: Settings, tmp_path: Path, made: November) -> None:
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(costs_page(made), default=float), encoding="utf-8")
    assert taken(seeded, path, "--provider", " OpenAI ")["provider"] == "openai"


def refused_account(settings: Settings, file: Path) -> str:
    from dataclasses import replace

    from tollmeter.admin.bills.reading import read
    from tollmeter.streams.rules.bills.lines import BillError

    client = connect(settings)
    with pytest.raises(BillError) as error:
        store.account_of(client, replace(read([file]), account="org-2"), "")
    client.close()
    return str(error.value)


def test_half_a_month_is_said(seeded: Settings, made: November, tmp_path: Path) -> None:
    page = costs_page(made)
    path = tmp_path / "half.json"
    path.write_text(json.dumps(page | {"data": page["data"][:15]}, default=float), encoding="utf-8")
    taken(seeded, path, "--account", "org-half")
    done = run(seeded, reconcile, *ASKED, "--account", "org-half", "--json")
    notes = json.loads(done.stdout)["notes"]
    assert "15 of 30 days are billed: 2026-11-16 to 2026-11-30 not compared" in notes
    client = connect(seeded)
    client.command("DELETE FROM provider_cost_days WHERE account = 'org-half'")
    client.close()


def test_the_real_usage_file(seeded: Settings) -> None:
    file = Path(os.environ.get("TOLLMETER_TRACES", "")) / "openai_usage_api" / "usage_completions_daily.json"
    if not file.exists():
        pytest.skip("no traces here")
    taken(seeded, file)
    client = connect(seeded)
    (sums,) = client.query(
        "SELECT sumIf(quantity, meter IN ('input', 'cache_read', 'cache_write')) AS i, "
        "sumIf(quantity, meter = 'output') AS o, sumIf(quantity, meter = 'requests') AS r "
        "FROM provider_bills WHERE day < '2026-01-01' AND source LIKE '%completions'"
    )
    assert (sums["i"], sums["o"], sums["r"]) == (16_951_009, 729_421, 19_347)
    client.close()
    done = run(seeded, reconcile, "--provider", "openai", "--month", "2025-01", "--json")
    assert "part of the day" in " ".join(json.loads(done.stdout)["notes"])
