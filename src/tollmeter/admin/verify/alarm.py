"""What an unattended check finds becomes alerts: one a day for each kind of difference, however often it is found."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from tollmeter.admin.verify.count import Difference
from tollmeter.broker.client import kafka_producer
from tollmeter.schemas import topics
from tollmeter.schemas.alert import CONTENT_TYPE, Alert, alert_id
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.streams.rules.windows.epochs import PIPELINE

KIND = "verify_difference"
SOURCE = "tollmeter/verify"
LAG = "waiting_for_"
"""What only waits is no difference: whether the line lags is watched elsewhere."""
PRODUCERS_FAULT = frozenset({"id_with_several_times", "resend_with_other_content"})


RAN, CLEAN = "verify", "verify_clean"


def note(ledger: ClickHouse, began: datetime, *, clean: bool) -> None:
    """Keep that a check began then and is over, beside how far the rollup is. Raises `Unavailable`, `Rejected`."""
    rows = [(name, began) for name in ((RAN, CLEAN) if clean else (RAN,))]
    ledger.insert_rows("rollup_progress", ("name", "covered_until"), rows)


def alerts(differences: Iterable[Difference], now: datetime) -> list[Alert]:
    """Return one alert for each name, about the whole of it."""
    by_name: dict[str, list[Difference]] = defaultdict(list)
    for difference in differences:
        if not difference.name.startswith(LAG):
            by_name[difference.name].append(difference)
    day = f"{now:%Y-%m-%d}"
    return [
        Alert(
            id=alert_id(KIND, name, day),
            kind=KIND,
            severity="warning" if name in PRODUCERS_FAULT else "critical",
            org_id="",
            scope=PIPELINE,
            name=name,
            period=day,
            received_at=now,
            text=f"verify: {name} at {len(found)} places, first {found[0].where}: {found[0].detail}"[:500],
            facts={"places": len(found), "amount": sum(one.amount for one in found), "first": found[0].where},
            source=SOURCE,
        )
        for name, found in sorted(by_name.items())
    ]


async def send(settings: Settings, raised: Iterable[Alert]) -> None:
    """Return when every alert is acknowledged."""
    async with kafka_producer(settings) as producer:
        for alert in raised:
            await producer.send_and_wait(
                settings.topic(topics.ALERTS),
                alert.wire(),
                key=f"{PIPELINE}/{alert.name}".encode(),
                partition=0,
                headers=CONTENT_TYPE,
            )
