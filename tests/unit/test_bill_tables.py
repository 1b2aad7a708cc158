"""Tables that people have: read as what they say, or refused in a line that says what to do; nothing is guessed."""

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_bill_files import CUR, _bucket, file, table
from tollmeter.admin.bills import mapped
from tollmeter.admin.bills.reading import read
from tollmeter.streams.rules.bills.lines import BillError

WORDS = ("day=Day", "model=Model", "amount=Cost")
PLAIN = "Day,Model,Cost\n2026-11-03,m,1.50\n"
AZURE = {
    "Date": "11/03/2026",
    "BillingAccountId": "acc",
    "MeterCategory": "Azure OpenAI",
    "MeterName": "gpt-4o 0806 Inp glbl Tokens",
    "UnitOfMeasure": "1K",
    "Quantity": "12.5",
    "CostInBillingCurrency": "0.03125",
    "BillingCurrency": "USD",
}
GOOGLE = {
    "billing_account_id": "B-1",
    "service": {"description": "Gemini API"},
    "sku": {"description": "Gemini 2.5 Flash Input Token Count Text"},
    "usage_start_time": "2026-11-03 08:00:00 UTC",
    "cost": 0.9,
    "currency": "USD",
}


def amounts(path: Path, *words: str, currency: str = "", decimal: str = "") -> list[tuple[str, Decimal | None]]:
    bill = read([path], "mistral", mapped.mapping(words or WORDS, currency, decimal))
    return [(line.currency, line.amount) for line in bill.lines]


@pytest.mark.parametrize(
    ("content", "decimal", "amount"),
    [
        (PLAIN, "", "1.50"),
        ("\ufeff" + PLAIN, "", "1.50"),
        (PLAIN.replace("\n", "\r\n"), "", "1.50"),
        (PLAIN.replace("\n", "\r"), "", "1.50"),
        (PLAIN.rstrip(), "", "1.50"),
        (PLAIN.replace("\n", ",,\n"), "", "1.50"),
        (PLAIN.replace(",", ";"), "point", "1.50"),
        (PLAIN.replace(",", "\t"), "point", "1.50"),
        ("Day;Model;Cost\n2026-11-03;m;1.234,56\n", "comma", "1234.56"),
        ("Day;Model;Cost\n03.11.2026;m;1.234\n", "comma", "1234"),
        ("Day;Model;Cost\n3.11.2026;m;-0,5\n", "comma", "-0.5"),
        ('Day,Model,Cost\n2026-11-03,m,"1,5"\n', "comma", "1.5"),
        ('Day,Model,Cost\n"2026-11-03","a ""b"", c",1e2\n', "", "1e2"),
    ],
)
def test_a_spreadsheet_may_have_saved_it(tmp_path: Path, content: str, decimal: str, amount: str) -> None:
    for name, stored in (("f.csv", content.encode()), ("f.csv.gz", gzip.compress(content.encode()))):
        assert amounts(file(tmp_path, name, stored), decimal=decimal) == [("USD", Decimal(amount))]


@pytest.mark.parametrize(
    ("content", "decimal", "why"),
    [
        (PLAIN.replace(",", ";"), "", "';' separates its columns"),
        (PLAIN.replace(",", "\t"), "", r"'\t' separates its columns"),
        ('Day,Model,Cost\n2026-11-03,m,"1,5"\n', "", "say --decimal comma"),
        ('Day,Model,Cost\n2026-11-03,m,"1,234.56"\n', "point", "no separator of thousands"),
        ("Day;Model;Cost\n2026-11-03;m;12.50\n", "comma", "no number with a decimal comma"),
        ("Day;Model;Cost\n2026-11-03;m;1,234.56\n", "comma", "no number with a decimal comma"),
        (PLAIN.replace("2026-11-03", "11/03/2026"), "", "may be two days"),
        (PLAIN.replace("2026-11-03", "November"), "", "is no time"),
        (PLAIN + "Total,,1.50\n", "", "line 3: 'Total' is no time"),
        (PLAIN + "2026-11-04,m,\n", "", "line 3: neither an amount nor a count"),
        (PLAIN.replace("1.50", "1.50 USD"), "", "is no number"),
        (PLAIN.replace("1.50", "$1.50"), "", "is no number"),
        (PLAIN.replace("1.50", "1_50"), "", "is no number"),
        (PLAIN.replace("1.50", "٣"), "", "is no number"),
        (PLAIN.replace("1.50", "nan"), "", "is no number"),
        (PLAIN.replace("1.50", "1e13"), "", "cannot be"),
        (PLAIN.replace("2026", "0026"), "", "is out of range"),
        (PLAIN.replace("2026", "2149"), "", "is out of range"),
        (PLAIN.replace("Day,", "Day,Cost,").replace("03,", "03,2,"), "", "column 'Cost' is there twice"),
        (PLAIN.replace("Cost", "Cost (EUR)"), "", "no column 'Cost'"),
        ("Day,Model,Cost,Currency\n2026-11-03,m,1.50,EUR\n", "", "--map currency=Currency"),
        (PLAIN.encode("utf-16"), "", "UTF-16: save it as CSV UTF-8"),
        (PLAIN.replace("m,", "Gerät,").encode("latin-1"), "", "not UTF-8"),
        (b"PK\x03\x04 workbook", "", "save the sheet as CSV UTF-8"),
        (b"%PDF-1.7", "", "a PDF"),
        ("<!doctype html><title>Sign in</title>", "", "a web page"),
        ("", "", "is empty"),
        (" \r\n", "", "is empty"),
        (gzip.compress(b""), "", "is empty"),
        (gzip.compress(PLAIN.encode())[:-9], "", "cannot be read"),
        ("Day,Model,Cost\n", "", "no row in it"),
        ("Day,Model,Cost\n2026-11-03,m\n", "", "more or fewer cells"),
        ('Day,Model,Cost\n2026-11-03,"m,1.50\n', "", "no CSV"),
    ],
)
def test_what_would_be_a_guess_is_refused(tmp_path: Path, content: str | bytes, decimal: str, why: str) -> None:
    with pytest.raises(BillError) as error:
        amounts(file(tmp_path, "f", content), decimal=decimal)
    assert why in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["Cost (EUR)", "Betrag €", "amount in cents", "cost_gbp GBP"])
def test_an_amount_is_in_dollars_only_where_nothing_says_otherwise(tmp_path: Path, name: str) -> None:
    path = file(tmp_path, "f.csv", PLAIN.replace("Cost", name))
    words = ("day=Day", "model=Model", f"amount={name}")
    with pytest.raises(BillError, match="say --currency"):
        amounts(path, *words)
    assert amounts(path, *words, currency="eur") == [("EUR", Decimal("1.50"))]


def test_counts_are_whole(tmp_path: Path) -> None:
    path = file(tmp_path, "f.csv", "Day,In,Calls\n2026-11-03,1.234,2\n")
    words = ("day=Day", "prompt=In", "requests=Calls")
    with pytest.raises(BillError, match="is no count"):
        amounts(path, *words)
    bill = read([path], "mistral", mapped.mapping(words, decimal="comma"))
    assert [(line.meter, line.quantity, line.unit) for line in bill.lines] == [
        ("prompt", Decimal(1234), "tokens"),
        ("requests", Decimal(2), "requests"),
    ]


@pytest.mark.parametrize(
    ("words", "currency", "why"),
    [
        ((*WORDS, "amount=Other"), "", "amount is 'Cost' already"),
        ((*WORDS, "currency=Cur"), "EUR", "one of them says it"),
    ],
)
def test_what_is_said_twice(words: tuple[str, ...], currency: str, why: str) -> None:
    with pytest.raises(BillError, match=why):
        mapped.mapping(words, currency)


def test_a_table_of_a_provider_that_a_spreadsheet_saved_is_refused(tmp_path: Path) -> None:
    path = file(tmp_path, "a.csv", table([AZURE]).replace(",", ";").replace(".", ","))
    with pytest.raises(BillError, match="';' separates its columns"):
        read([path])


def _google(rows: list[dict[str, Any]]) -> str:
    return "\n".join(json.dumps(row) for row in rows)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (table([AZURE, AZURE | {"Quantity": "1"}]), table([AZURE | {"Quantity": "2"}, AZURE])),
        (table([CUR, CUR | {"line_item_usage_amount": 1}]), table([CUR | {"line_item_usage_amount": 2}, CUR])),
        (_google([GOOGLE, GOOGLE | {"cost": 1}]), _google([GOOGLE | {"cost": 2}, GOOGLE])),
    ],
    ids=["azure", "aws", "google"],
)
def test_files_that_overlap_are_refused(tmp_path: Path, first: str, second: str) -> None:
    paths = [file(tmp_path, name, text) for name, text in (("1", first), ("2", second))]
    with pytest.raises(BillError, match=r"2, line \d: .*1 has the same row"):
        read(paths)
    assert len(read(paths[:1]).lines) == 1


def test_parts_of_one_export_are_one_bill(tmp_path: Path) -> None:
    """A row that one file has twice is two charges."""
    parts = [table([AZURE, AZURE]), table([AZURE | {"Quantity": "1"}])]
    bill = read([file(tmp_path, f"{number}.csv", text) for number, text in enumerate(parts)])
    assert [line.quantity for line in bill.lines] == [Decimal(26_000)]


def test_two_files_of_a_day_that_nobody_can_tell_apart_are_refused(tmp_path: Path) -> None:
    paths = [file(tmp_path, name, PLAIN.replace("1.50", amount)) for name, amount in (("1", "1"), ("2", "2"))]
    with pytest.raises(BillError, match="both have 2026-11-03"):
        read(paths, "mistral", mapped.mapping(WORDS))


def test_an_hour_that_the_day_has_too_is_refused(tmp_path: Path) -> None:
    hour = _bucket() | {"start_time": 1_793_667_600, "end_time": 1_793_671_200}
    with pytest.raises(BillError, match="lies within the one before it"):
        read([file(tmp_path, "day.json", [_bucket()]), file(tmp_path, "hour.json", [hour])])


@pytest.mark.parametrize("wrong", [{"date": "0001-01-01"}, {"date": "2149-07-01"}, {"byok_usage_inference": "1e25"}])
def test_what_the_ledger_could_not_hold_is_refused(tmp_path: Path, wrong: dict[str, str]) -> None:
    row = {"date": "2026-11-03", "model": "m", "usage": 1, "requests": 1, "prompt_tokens": 1, "completion_tokens": 1}
    with pytest.raises(BillError, match="cannot be"):
        read([file(tmp_path, "a.json", {"data": [row | wrong]})])
