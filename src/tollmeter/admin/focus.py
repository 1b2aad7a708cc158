"""The FOCUS export: one table of columns says what a file has, how it is written, and what every row of it must hold.

FinOps Open Cost and Usage Specification, versions 1.2 (57 columns) and 1.0 (43), https://focus.finops.org.
"""

import io
from collections.abc import Iterator
from typing import Literal, NamedTuple

import polars as pl

from tollmeter.admin.reports.asked import Asked
from tollmeter.schemas.escapes import csv_cell
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.price.book.providers import maker_of

VERSIONS = ("1.2", "1.0")
Kind = Literal["text", "decimal", "time", "json"]


class Column(NamedTuple):
    """A column: its type, whether it may be null, the first version that has it, its values where they are fixed."""

    name: str
    kind: Kind = "text"
    nullable: bool = True
    since: str = "1.0"
    allowed: tuple[str, ...] = ()


COLUMNS = (
    Column("AvailabilityZone"),
    Column("BilledCost", "decimal", False),
    Column("BillingAccountId", "text", False),
    Column("BillingAccountName"),
    Column("BillingAccountType", since="1.2"),
    Column("BillingCurrency", "text", False),
    Column("BillingPeriodEnd", "time", False),
    Column("BillingPeriodStart", "time", False),
    Column("CapacityReservationId", since="1.2"),
    Column("CapacityReservationStatus", since="1.2", allowed=("Used", "Unused")),
    Column("ChargeCategory", "text", False, allowed=("Usage", "Purchase", "Tax", "Credit", "Adjustment")),
    Column("ChargeClass", allowed=("Correction",)),
    Column("ChargeDescription"),
    Column("ChargeFrequency", allowed=("One-Time", "Recurring", "Usage-Based")),
    Column("ChargePeriodEnd", "time", False),
    Column("ChargePeriodStart", "time", False),
    Column("CommitmentDiscountCategory", allowed=("Spend", "Usage")),
    Column("CommitmentDiscountId"),
    Column("CommitmentDiscountName"),
    Column("CommitmentDiscountQuantity", "decimal", since="1.2"),
    Column("CommitmentDiscountStatus", allowed=("Used", "Unused")),
    Column("CommitmentDiscountType"),
    Column("CommitmentDiscountUnit", since="1.2"),
    Column("ConsumedQuantity", "decimal"),
    Column("ConsumedUnit"),
    Column("ContractedCost", "decimal", False),
    Column("ContractedUnitPrice", "decimal"),
    Column("EffectiveCost", "decimal", False),
    Column("InvoiceId", since="1.2"),
    Column("InvoiceIssuerName", "text", False),
    Column("ListCost", "decimal", False),
    Column("ListUnitPrice", "decimal"),
    Column("PricingCategory", allowed=("Standard", "Dynamic", "Committed", "Other")),
    Column("PricingCurrency", since="1.2"),
    Column("PricingCurrencyContractedUnitPrice", "decimal", since="1.2"),
    Column("PricingCurrencyEffectiveCost", "decimal", since="1.2"),
    Column("PricingCurrencyListUnitPrice", "decimal", since="1.2"),
    Column("PricingQuantity", "decimal"),
    Column("PricingUnit"),
    Column("ProviderName", "text", False),
    Column("PublisherName", "text", False),
    Column("RegionId"),
    Column("RegionName"),
    Column("ResourceId"),
    Column("ResourceName"),
    Column("ResourceType"),
    Column("ServiceCategory", "text", False, allowed=("AI and Machine Learning",)),
    Column("ServiceName", "text", False),
    Column("ServiceSubcategory", since="1.2", allowed=("Generative AI",)),
    Column("SkuId"),
    Column("SkuMeter", since="1.2"),
    Column("SkuPriceDetails", "json", since="1.2"),
    Column("SkuPriceId"),
    Column("SubAccountId"),
    Column("SubAccountName"),
    Column("SubAccountType", since="1.2"),
    Column("Tags", "json"),
)
"""In the order of the specification; categories and subcategories are those that this export uses."""
TIME = "%Y-%m-%dT%H:%M:%SZ"


def columns(version: str) -> tuple[Column, ...]:
    """Return the columns of a version."""
    return tuple(column for column in COLUMNS if column.since <= version)


def rows(client: ClickHouse, asked: Asked, version: str) -> pl.DataFrame:
    """Return the charges of a period. Raises `Unavailable`."""
    answer = client.arrow(load("focus"), asked.parameters())
    frame = pl.read_ipc_stream(io.BytesIO(answer))
    models = {sku: maker_of(sku.partition("/")[2]) for sku in frame["SkuId"].unique().to_list()}
    made = {sku: maker for sku, maker in models.items() if maker}
    publisher = pl.col("SkuId").replace_strict(made, default=pl.col("PublisherName"), return_dtype=pl.String)
    return frame.with_columns(PublisherName=publisher).select(column.name for column in columns(version))


def csv_text(frame: pl.DataFrame) -> str:
    """Return the rows as CSV: times as the specification writes them, numbers with a point, null as an empty cell."""
    times = [pl.col(name).dt.strftime(TIME) for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    texts = [_escaped(frame[name]) for name, kind in frame.schema.items() if kind == pl.String]
    return frame.with_columns(*times, *texts).write_csv(None)


def _escaped(texts: pl.Series) -> pl.Series:
    """Return texts as a spreadsheet only reads them; there are few different ones."""
    cells = {text: csv_cell(text) for text in texts.unique().drop_nulls().to_list()}
    changed = {text: cell for text, cell in cells.items() if cell != text}
    return texts.replace(changed) if changed else texts


def parquet(frame: pl.DataFrame) -> bytes:
    """Return the rows as Parquet: decimals exact, times in UTC."""
    out = io.BytesIO()
    frame.write_parquet(out)
    return out.getvalue()


def failures(frame: pl.DataFrame, version: str) -> list[str]:
    """Return what of the specification the rows break, a line each: columns, types, nulls, values, and sums."""
    wanted = columns(version)
    found = []
    if frame.columns != [column.name for column in wanted]:
        found.append(f"columns: {frame.columns}")
        return found
    for column in wanted:
        found += _column(frame, column)
    return [*found, *_together(frame, version)]


def _column(frame: pl.DataFrame, column: Column) -> Iterator[str]:
    series = frame[column.name]
    if series.dtype != pl.Null and not _is(series.dtype, column.kind):
        yield f"{column.name}: type {series.dtype}, not {column.kind}"
        return
    if not column.nullable and series.null_count():
        yield f"{column.name}: {series.null_count()} nulls"
    if series.dtype == pl.String:
        if (series.str.strip_chars() == "").any():
            yield f"{column.name}: empty text where null is meant"
        if column.allowed and not series.drop_nulls().is_in(column.allowed).all():
            yield f"{column.name}: a value beside {', '.join(column.allowed)}"
        if column.kind == "json" and not series.drop_nulls().str.contains(r"^\{.*\}$").all():
            yield f"{column.name}: no JSON object"


def _is(dtype: pl.DataType, kind: Kind) -> bool:
    if kind == "decimal":
        return isinstance(dtype, pl.Decimal)
    return isinstance(dtype, pl.Datetime) and dtype.time_zone == "UTC" if kind == "time" else dtype == pl.String


def _together(frame: pl.DataFrame, version: str) -> Iterator[str]:
    """Check what columns say of each other."""
    rules: dict[str, pl.Expr] = {
        "BillingCurrency is an ISO 4217 code": pl.col("BillingCurrency").str.contains(r"^[A-Z]{3}$"),
        "a charge lies within its billing period": (pl.col("ChargePeriodStart") >= pl.col("BillingPeriodStart"))
        & (pl.col("ChargePeriodEnd") <= pl.col("BillingPeriodEnd"))
        & (pl.col("ChargePeriodStart") < pl.col("ChargePeriodEnd")),
    }
    for cost, price in (("ListCost", "ListUnitPrice"), ("ContractedCost", "ContractedUnitPrice")):
        product = pl.col(price).cast(pl.Float64) * pl.col("PricingQuantity").cast(pl.Float64)
        gap = (product - pl.col(cost).cast(pl.Float64)).abs()
        unpriced = (pl.col("ChargeCategory") == "Credit") & pl.col(price).is_null()
        exact = gap <= 1e-9 + pl.col(cost).cast(pl.Float64).abs() * 1e-9
        rules[f"{cost} is unit price times quantity, where it is no credit"] = unpriced | exact
    for left, right in _TOGETHER:
        if right in frame.columns:
            rules[f"{left} and {right} are null together"] = pl.col(left).is_null() == pl.col(right).is_null()
    if version >= "1.2":
        rules["SkuPriceDetails needs SkuPriceId"] = (
            pl.col("SkuPriceId").is_not_null() | pl.col("SkuPriceDetails").is_null()
        )
    for text, rule in rules.items():
        count = frame.select((~rule.fill_null(value=False)).sum()).item() if frame.height else 0
        if count:
            yield f"{text}: not in {count} rows"


_TOGETHER = (
    ("ConsumedQuantity", "ConsumedUnit"),
    ("PricingQuantity", "PricingUnit"),
    ("ResourceId", "ResourceType"),
    ("SubAccountId", "SubAccountType"),
    ("RegionId", "RegionName"),
    ("SkuId", "SkuPriceId"),
    ("CommitmentDiscountId", "CommitmentDiscountStatus"),
    ("CapacityReservationId", "CapacityReservationStatus"),
    ("ListUnitPrice", "PricingCurrencyListUnitPrice"),
)
