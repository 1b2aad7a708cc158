"""What a bill shows becomes alerts: a closed day that differs too much, and each key that nobody here knows."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import NamedTuple

from tollmeter.admin.bills.reconcile import Reconciled
from tollmeter.admin.bills.told import nano
from tollmeter.admin.verify.alarm import send
from tollmeter.schemas.alert import Alert, alert_id
from tollmeter.schemas.money import nano_to_text
from tollmeter.settings import Settings
from tollmeter.streams.rules.bills.cells import ZERO
from tollmeter.streams.rules.bills.naming import DAY_BORDER, ROUNDING
from tollmeter.streams.rules.windows.epochs import PIPELINE

SOURCE = "tollmeter/reconcile"


class Gap(NamedTuple):
    """A closed day whose bill and ledger differ by more than the setting allows."""

    day: date
    billed_nano: int
    ours_nano: int
    gap_nano: int
    pct: float


def gaps(found: Reconciled, limit_pct: float) -> list[Gap]:
    """Return the closed days with a gap. Rounding and what only moved over midnight are none."""
    ours: dict[date, Decimal] = defaultdict(lambda: ZERO)
    net: dict[date, Decimal] = defaultdict(lambda: ZERO)
    gap: dict[date, Decimal] = defaultdict(lambda: ZERO)
    for cell, own in found.both.ours.items():
        ours[cell.day] += own.usd
    for one in found.result.differences:
        net[one.cell.day] += one.usd
        if one.kind not in (ROUNDING, DAY_BORDER):
            gap[one.cell.day] += abs(one.usd)
    made = []
    for day in sorted(gap):
        whole = max(ours[day], ours[day] + net[day])
        pct = float(100 * gap[day] / whole) if whole > 0 else 100.0
        if day < found.open_from and pct > limit_pct:
            made.append(Gap(day, nano(ours[day] + net[day]), nano(ours[day]), nano(gap[day]), round(pct, 3)))
    return made


def alerts(found: Reconciled, days: Iterable[Gap], now: datetime) -> list[Alert]:
    """Return one alert for each such day, and one for each unknown key; the same each time it is asked."""
    return [*(_gap(found, gap, now) for gap in days), *_shadow_keys(found, now)]


def _gap(found: Reconciled, gap: Gap, now: datetime) -> Alert:
    provider = found.asked.provider
    return Alert(
        id=alert_id("bill_gap", provider, f"{gap.day}"),
        kind="bill_gap",
        severity="warning",
        org_id="",
        scope=PIPELINE,
        name=provider,
        period=f"{gap.day}",
        received_at=now,
        text=f"{provider} bills {_usd(gap.billed_nano)} USD for {gap.day}, the ledger has {_usd(gap.ours_nano)}: "
        f"{gap.pct:.1f} % are not explained by rounding",
        facts={
            "provider": provider,
            "billed_nano": gap.billed_nano,
            "ours_nano": gap.ours_nano,
            "gap_nano": gap.gap_nano,
        },
        source=SOURCE,
    )


def _shadow_keys(found: Reconciled, now: datetime) -> Iterator[Alert]:
    provider, period = found.asked.provider, f"{found.asked.since:%Y-%m}"
    keys: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for one in found.result.differences:
        if one.cause == "unknown_key":
            keys[one.cell.key] += one.usd
    for key, usd in sorted(keys.items()):
        yield Alert(
            id=alert_id("shadow_key", provider, key, period),
            kind="shadow_key",
            severity="critical",
            org_id="",
            scope=PIPELINE,
            name=key,
            period=period,
            received_at=now,
            text=f"{provider} bills {_usd(nano(usd))} USD for key {key}, which no call here names: shadow or leaked?",
            facts={"provider": provider, "billed_nano": nano(usd)},
            source=SOURCE,
        )


def _usd(amount: int) -> str:
    return nano_to_text(amount, 2)


def raise_all(settings: Settings, raised: Sequence[Alert]) -> None:
    """Return when every alert is acknowledged."""
    if raised:
        asyncio.run(send(settings, raised))
