"""Files of every provider become the same lines, digit by digit; what cannot be a bill is refused in a line."""

import csv
import gzip
import io
import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tollmeter.admin.bills import mapped, openai
from tollmeter.admin.bills.reading import read
from tollmeter.streams.rules.bills.lines import Bill, BillError, Line
from tollmeter.streams.rules.bills.names import model_names

DAY = date(2026, 11, 3)


def file(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        path.write_text(json.dumps(content), encoding="utf-8")
    return path


def table(rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def said(bill: Bill) -> list[tuple[str, str, Decimal | None, Decimal | None]]:
    return [(line.model, line.meter, line.quantity, line.amount_usd) for line in bill.lines]


CUR = {
    "bill_billing_period_start_date": "2026-11-01T00:00:00Z",
    "bill_payer_account_id": "111",
    "bill_invoice_id": "",
    "line_item_usage_start_date": "2026-11-03T05:00:00Z",
    "line_item_line_item_type": "Usage",
    "line_item_product_code": "AmazonBedrock",
    "line_item_usage_type": "USE1-Claude4.6Sonnet-input-tokens",
    "line_item_usage_amount": 1500.0,
    "line_item_unblended_cost": 0.0045,
    "line_item_currency_code": "USD",
    "line_item_iam_principal": "arn:aws:sts::111:assumed-role/app/s",
    "pricing_unit": "1K tokens",
}


@pytest.mark.parametrize("form", ["csv", "parquet", "csv.gz"])
def test_aws(tmp_path: Path, form: str) -> None:
    market = {
        "line_item_usage_type": "USE1-MP:USE1_CacheReadInputTokenCount-Units",
        "line_item_product_code": "abc123",
        "product_servicename": "Claude Sonnet 4.6 (Amazon Bedrock Edition)",
        "pricing_unit": "1M tokens",
        "line_item_usage_amount": 2.0,
    }
    other = {"line_item_product_code": "AmazonEC2", "line_item_usage_type": "BoxUsage", "product_servicename": "EC2"}
    rows = [CUR | {"product_servicename": "Amazon Bedrock"}, CUR | market, CUR | other]
    path = tmp_path / f"cur.{form}"
    if form == "parquet":
        pl.DataFrame(rows).write_parquet(path)
    else:
        text = table(rows).encode()
        path.write_bytes(gzip.compress(text) if form == "csv.gz" else text)
    bill = read([path])
    assert (bill.provider, bill.source, bill.account, bill.final) == ("aws", "aws.cur", "111", False)
    assert said(bill) == [
        ("Claude4.6Sonnet", "input", Decimal(1_500_000), Decimal("0.0045")),
        ("Claude Sonnet 4.6", "cache_read", Decimal(2_000_000), Decimal("0.0045")),
    ]
    names = model_names(bill.lines, {"claude-sonnet-4-6", "claude-opus-4-6", ""}, lambda name: name)
    assert set(names.values()) == {"claude-sonnet-4-6"}


def test_google(tmp_path: Path) -> None:
    row = {
        "billing_account_id": "B-1",
        "service": {"description": "Gemini API"},
        "sku": {"description": "Gemini 2.5 Flash Input Token Count Text"},
        "usage_start_time": "2026-11-03 08:00:00 UTC",
        "project": {"id": "shop"},
        "cost": 0.9,
        "currency": "EUR",
        "currency_conversion_rate": 0.9,
        "usage": {"amount": 3000000, "unit": "count"},
        "credits": [{"name": "promo", "amount": -0.09}],
    }
    bill = read(
        [file(tmp_path, "g.json", [row, {**row, "service": {"description": "BigQuery"}, "sku": {"description": "x"}}])]
    )
    assert said(bill) == [("Gemini 2.5 Flash", "input", Decimal(3_000_000), Decimal("0.9"))]
    assert bill.lines[0].amount == Decimal("0.81")
    lines = "\n".join(json.dumps(one) for one in (row, row))
    assert read([file(tmp_path, "g.jsonl", lines)]).lines[0].amount == Decimal("1.62")
    names = model_names(bill.lines, {"gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-2.5"}, lambda name: name)
    assert names == {"Gemini 2.5 Flash": "gemini-2.5-flash"}


def test_azure(tmp_path: Path) -> None:
    row = {
        "Date": "11/03/2026",
        "BillingAccountId": "acc",
        "MeterCategory": "Azure OpenAI",
        "MeterSubCategory": "Azure OpenAI GPT-4o",
        "MeterName": "gpt-4o 0806 Inp glbl Tokens",
        "UnitOfMeasure": "1K",
        "Quantity": "12.5",
        "CostInBillingCurrency": "0.03125",
        "BillingCurrency": "USD",
        "ResourceId": "/subscriptions/s/resource",
    }
    bill = read(
        [file(tmp_path, "a.csv", "\ufeff" + table([row, row | {"MeterCategory": "Storage", "MeterSubCategory": ""}]))]
    )
    assert said(bill) == [("gpt-4o 0806", "input", Decimal(12_500), Decimal("0.03125"))]
    assert model_names(bill.lines, {"gpt-4o", "gpt-4"}, lambda name: name) == {"gpt-4o 0806": "gpt-4o"}


def test_mapped(tmp_path: Path) -> None:
    rows = [
        {"When": "2026-11-03", "What": "m-1", "In": "10", "Usd": "0.1"},
        {"When": "2026-11-03", "What": "m-1", "In": "5", "Usd": "0.2"},
    ]
    columns = mapped.mapping(["day=When", "model=What", "prompt=In", "amount=Usd"])
    bill = read([file(tmp_path, "m.csv", table(rows))], "mistral", columns)
    assert said(bill) == [("m-1", "all", None, Decimal("0.3")), ("m-1", "prompt", Decimal(15), None)]
    with pytest.raises(BillError, match="no column 'Usd2'"):
        read([tmp_path / "m.csv"], "mistral", mapped.mapping(["day=When", "amount=Usd2"]))
    with pytest.raises(BillError, match="--provider"):
        read([tmp_path / "m.csv"], "", columns)
    for wrong in ("x=1", "day", "amount=Usd"):
        with pytest.raises(BillError, match="--map"):
            mapped.mapping([wrong])


@pytest.mark.parametrize(
    ("item", "split"),
    [
        ("gpt-4o-2024-08-06, input", ("gpt-4o-2024-08-06", "input")),
        ("gpt-4o-2024-08-06, cached input", ("gpt-4o-2024-08-06", "cache_read")),
        ("ft:gpt-4o:acme, output", ("ft:gpt-4o:acme", "output")),
        ("web search", ("", "other")),
        ("", ("", "other")),
    ],
)
def test_line_items_of_openai(item: str, split: tuple[str, str]) -> None:
    assert openai.split(item) == split


_DAY = {"starting_at": "2026-11-03T00:00:00Z", "ending_at": "2026-11-04T00:00:00Z"}


def _bucket(**result: Any) -> dict[str, Any]:
    made = {"object": "organization.costs.result", "amount": {"value": 1, "currency": "usd"}} | result
    return {"start_time": 1_793_664_000, "end_time": 1_793_750_400, "results": [made]}


def test_amounts_are_read_digit_by_digit(tmp_path: Path) -> None:
    text = json.dumps({"object": "page", "data": [_bucket()], "has_more": False})
    for written in ("0.123456789012345678", '"0.1234567890123456789012345"', "1e-7"):
        path = file(tmp_path, "c.json", text.replace('"value": 1', f'"value": {written}'))
        (line,) = read([path]).lines
        assert line.amount == round(Decimal(written.strip('"')), 18)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "is empty"),
        ("not json", "no row in it"),
        ("[]", "no bill in a form"),
        ("{}", "no bill in a form"),
        ('{"type": "error", "error": {"type": "overloaded_error"}}', "no bill: overloaded_error"),
        ([_bucket(amount={"value": 1})], "without a currency"),
        ([_bucket(amount={"value": None, "currency": "usd"})], "is no number"),
        ([_bucket(amount={"value": True, "currency": "usd"})], "is no number"),
        ([_bucket(amount={"value": "1e30", "currency": "usd"})], "cannot be"),
        ([_bucket(amount=5)], "no object with value"),
        ([_bucket(object="organization.usage.dreams.result")], "not known here"),
        ([_bucket() | {"end_time": 1_793_900_000}], "no part of one day"),
        ([_bucket() | {"results": []}], "no result in any bucket"),
        ([_bucket(), _bucket()], "is there twice"),
        ([_bucket(object="organization.usage.completions.result", input_tokens=1)], "no 'num_model_requests'"),
        (
            [
                {
                    "starting_at": "2026-11-03T00:00:00Z",
                    "ending_at": "2026-11-04T00:00:00Z",
                    "results": [{"amount": 5, "currency": "USD"}],
                }
            ],
            "is no text",
        ),
        (
            [
                {
                    "starting_at": "2026-11-03T00:00:00Z",
                    "ending_at": "2026-11-04T00:00:00Z",
                    "results": [{"output_tokens": 5}],
                }
            ],
            "no 'cache_creation'",
        ),
        (b"PAR1 broken", "no Parquet"),
        ("a,b\n1,2\n", "columns a, b"),
        (table([CUR | {"pricing_unit": "Hrs"}]), "in unit 'Hrs'"),
        (table([CUR, CUR | {"bill_payer_account_id": "222"}]), "several billing periods or payers (111, 222)"),
        (table([CUR]).replace("2026-11-03T05", "2026-13-03T05"), "is no time"),
        (table([CUR])[:-40] + "\n", "more or fewer cells"),
    ],
)
def test_what_is_no_bill(tmp_path: Path, content: Any, why: str) -> None:
    with pytest.raises(BillError) as error:
        read([file(tmp_path, "f", content)])
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_pages(tmp_path: Path) -> None:
    first = file(tmp_path, "1.json", {"data": [_bucket()], "has_more": True, "next_page": "x"})
    after = _bucket() | {"start_time": 1_793_750_400, "end_time": 1_793_836_800}
    last = file(tmp_path, "2.json", {"data": [after], "has_more": False, "next_page": None})
    with pytest.raises(BillError, match="more pages follow"):
        read([first])
    assert list(read([last, first]).days) == [DAY, date(2026, 11, 4)]
    assert list(read([last]).days) == [date(2026, 11, 4)]


def test_hours_are_days_when_they_are_whole(tmp_path: Path) -> None:
    hours = [
        _bucket() | {"start_time": 1_793_664_000 + 3_600 * n, "end_time": 1_793_667_600 + 3_600 * n} for n in range(24)
    ]
    assert read([file(tmp_path, "h.json", hours)]).days == {DAY: True}
    assert read([file(tmp_path, "p.json", hours[3:])]).days == {DAY: False}


def test_line_is_one_shape() -> None:
    assert Line(DAY, "input").amount is None


USAGE = {"object": "organization.usage.completions.result", "input_tokens": 9, "num_model_requests": 1}
CACHE = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}
ANSWERED = {"uncached_input_tokens": 1, "cache_read_input_tokens": 0, "output_tokens": 5, "cache_creation": CACHE}
ROUTED = {"date": "2026-11-03", "model": "m", "usage": 0.5, "prompt_tokens": 1, "completion_tokens": 1, "requests": 1}
GOOGLE = {
    "billing_account_id": "0A-1",
    "usage_start_time": "2026-11-03 08:00:00 UTC",
    "service.description": "Vertex AI",
    "sku.description": "Gemini 2.5 Pro Text Output - Predictions",
    "usage.amount": "5",
    "usage.unit": "count",
    "cost": "1.5",
    "currency": "EUR",
}
AZURE = {
    "Date": "11/05/2026",
    "BillingAccountId": "42",
    "MeterCategory": "Azure OpenAI",
    "MeterName": "gpt-4o 0806 Inp glbl Tokens",
    "UnitOfMeasure": "1K",
    "Quantity": "12.5",
    "CostInBillingCurrency": "10.00",
    "BillingCurrency": "USD",
}
PERIOD = {"BillingPeriodStartDate": "2026-11-01", "BillingPeriodEndDate": "2026-11-30"}
ITEM = CUR | {"identity_line_item_id": "i1", "identity_time_interval": "2026-11-03T05:00:00Z/2026-11-03T06:00:00Z"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(
            [_bucket() | {"results": 2 * _bucket()["results"]}], "is there twice", id="openai: a result twice"
        ),
        pytest.param([_bucket() | {"results": [USAGE]}], "no 'output_tokens'", id="openai: no output"),
        pytest.param(
            '{"data": [{"start_time": 1793664000, "end_time": 1793750400, "results": [{"object": '
            '"organization.costs.result", "amount": {"value": 10, "value": 1, "currency": "usd"}}]}]}',
            "there twice in one object",
            id="openai: two values of one amount",
        ),
        pytest.param([_DAY | {"results": [ANSWERED, ANSWERED]}], "is there twice", id="anthropic: a result twice"),
        pytest.param(
            [_DAY | {"results": [ANSWERED | {"cache_creation": {}}]}], "with counts", id="anthropic: no writes"
        ),
        pytest.param({"data": [ROUTED, ROUTED]}, "is there twice", id="openrouter: a row twice"),
        pytest.param({"data": [ROUTED | {"date": "2026-11-03T99:00"}]}, "is no date", id="openrouter: no time"),
        pytest.param({"data": [ROUTED | {"date": "2026-11-035"}]}, "is no date", id="openrouter: a day too long"),
        pytest.param(table([ITEM, ITEM]), "line item i1 is there twice", id="aws: an item twice"),
        pytest.param(
            table([CUR, CUR | {"line_item_usage_start_date": "2026-01-03T05:00:00Z"}]),
            "usage of 2026-01-03 in the bill of 2026-11",
            id="aws: usage of another month",
        ),
        pytest.param(
            table([CUR | {"line_item_currency_code": ""}]), "without line_item_currency_code", id="aws: no currency"
        ),
        pytest.param(table([CUR | {"bill_billing_period_start_date": "soon"}]), "is no time", id="aws: no period"),
        pytest.param(table([CUR])[:-3], "ends within a line", id="aws: cut off within the last cell"),
        pytest.param(
            table([{k: v for k, v in GOOGLE.items() if k != "currency"}]), "without currency", id="google: none"
        ),
        pytest.param(table([GOOGLE])[:-2], "ends within a line", id="google: cut off"),
        pytest.param(table([AZURE | {"Date": "11/05/20261"}]), "is no date", id="azure: a year too long"),
        pytest.param(
            table([AZURE | PERIOD | {"Date": "05/11/2026"}]),
            "not in the billing period",
            id="azure: days before months",
        ),
        pytest.param(table([AZURE | {"CostInUsd": "9.00"}]), "contradicts itself", id="azure: two amounts in USD"),
        pytest.param(table([AZURE | {"UnitOfMeasure": "1.2.3K"}]), "expected a number", id="azure: no unit"),
        pytest.param(table([AZURE | {"UnitOfMeasure": "0K"}]), "expected a number", id="azure: nothing each"),
        pytest.param(table([AZURE])[:-4], "ends within a line", id="azure: cut off"),
    ],
)
def test_a_wrong_amount_is_not_taken(tmp_path: Path, content: Any, why: str) -> None:
    """Damage that leaves the form whole: what would be counted twice, cut, dated or priced wrongly."""
    with pytest.raises(BillError, match=why):
        read([file(tmp_path, "f", content)])


def test_the_same_without_the_damage(tmp_path: Path) -> None:
    whole = (
        [_bucket() | {"results": [USAGE | {"output_tokens": 0}]}],
        [_DAY | {"results": [ANSWERED]}],
        {"data": [ROUTED]},
        table([ITEM, ITEM | {"identity_line_item_id": "i2"}]),
        table([GOOGLE]),
        table([AZURE | {"CostInUsd": "10.001"}]),
        table([AZURE | {"BillingPeriodStartDate": "11/01/2026", "BillingPeriodEndDate": "11/30/2026"}]),
        table([AZURE | {"Date": "2026-11-05T00:00:00Z"}]),
    )
    for number, content in enumerate(whole):
        assert read([file(tmp_path, f"f{number}", content)]).lines


def test_a_credit_of_another_month_is_of_the_month_that_bills_it(tmp_path: Path) -> None:
    """Its day would have the bill speak of months that it does not hold, and replace them by nothing."""
    credit = CUR | {"line_item_line_item_type": "Credit", "line_item_usage_start_date": "2026-09-14T00:00:00Z"}
    bill = read([file(tmp_path, "c.csv", table([CUR, credit]))])
    assert (min(bill.days), max(bill.days)) == (date(2026, 11, 1), DAY)
    assert sum(line.amount or 0 for line in bill.lines) == Decimal("0.009")


def test_a_quantity_is_rounded_where_its_column_ends(tmp_path: Path) -> None:
    odd = GOOGLE | {"usage.amount": "1.23456789051", "sku.description": "Gemini grounding"}
    (line,) = read([file(tmp_path, "g.csv", table([odd]))]).lines
    assert line.quantity == Decimal("1.234567891")
