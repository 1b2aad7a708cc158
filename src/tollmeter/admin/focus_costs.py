"""Charges of a FOCUS file that no call shows: subscriptions, seats and fees as purchases, credits as credits.

One for each line and month that begins in the period, priced in its own currency, its cost in USD.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import polars as pl

_EXACT = Context(prec=76, rounding=ROUND_HALF_EVEN)
_PRICE_PLACES = 18
Row = dict[str, Any]


def charges(rows: Iterable[Row], schema: pl.Schema) -> pl.DataFrame:
    """Return the charges of `cost_lines.of_period` in the columns of a file; those of unknown value in USD are none."""
    made = [_charge(row) for row in rows if row["cost_nano"] is not None]
    return pl.DataFrame([pl.Series(name, [row.get(name) for row in made], kind) for name, kind in schema.items()])


def _charge(row: Row) -> Row:
    begin = datetime.strptime(row["month"], "%Y-%m").replace(tzinfo=UTC)
    end = (begin.replace(day=28) + timedelta(days=4)).replace(day=1)
    cost, account, provider = _units(row["cost_nano"]), row["org_id"] or "default", row["provider"]
    credit = row["unit_nano"] < 0
    return {
        **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), cost),
        "BillingAccountId": account,
        "BillingAccountName": account,
        "BillingAccountType": "Organization",
        "BillingCurrency": "USD",
        **dict.fromkeys(("BillingPeriodStart", "ChargePeriodStart"), begin),
        **dict.fromkeys(("BillingPeriodEnd", "ChargePeriodEnd"), end),
        "ChargeCategory": "Credit" if credit else "Purchase",
        "ChargeDescription": row["name"],
        "ChargeFrequency": "Recurring",
        **dict.fromkeys(("InvoiceIssuerName", "ProviderName", "PublisherName"), provider),
        "PricingCurrency": row["currency"],
        "PricingCurrencyEffectiveCost": _units(row["amount_nano"]),
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": f"{provider} subscriptions",
        "ServiceSubcategory": "Generative AI",
        "Tags": json.dumps({"cost_centre": row["cost_centre"]} if row["cost_centre"] else {}),
        **({} if credit else _price(row, cost)),
    }


def _price(row: Row, cost: Decimal) -> Row:
    """Return what a purchase was made at; a credit has no price, which is never below zero."""
    sku, quantity = f"{row['provider']}/{row['name']}", Decimal(row["quantity"])
    each = _EXACT.quantize(_EXACT.divide(cost, quantity), Decimal(1).scaleb(-_PRICE_PLACES))
    own = ("PricingCurrencyContractedUnitPrice", "PricingCurrencyListUnitPrice")
    return {
        **dict.fromkeys(("ContractedUnitPrice", "ListUnitPrice"), each),
        **dict.fromkeys(own, _units(row["unit_nano"])),
        "PricingCategory": "Standard",
        "PricingQuantity": quantity,
        "PricingUnit": "Units",
        "SkuId": sku,
        "SkuMeter": "Units",
        "SkuPriceId": f"{sku}/month",
    }


def _units(nano: int) -> Decimal:
    return Decimal(nano).scaleb(-9)
