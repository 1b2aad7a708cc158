"""What the demo prints at the end: the reports that anyone can print, the alerts, the budgets, the sum."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import click

from tollmeter.admin.replay.told import Found
from tollmeter.admin.reports.asked import NO_FILTER
from tollmeter.admin.verify.alerts import Raised
from tollmeter.admin.verify.verdict import Verdict
from tollmeter.broker.policies import list_policies
from tollmeter.cli import report
from tollmeter.cli.ledger import reading
from tollmeter.cli.output import out, print_table
from tollmeter.cli.verify import line, tell
from tollmeter.installing import how_to_get
from tollmeter.schemas.money import NANO_PER_USD
from tollmeter.schemas.policy import Policy
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load, moment
from tollmeter.streams.notify.evidence import whom

TOP = 10


def show(settings: Settings, alerts: list[Raised], incidents: Sequence[Found], verdict: Verdict) -> None:
    """Print top calls, model × key, alerts with delays, incidents, budgets, and how the counts compare."""
    with click.Context(report.report, obj=settings) as context:
        context.invoke(report.calls, top=TOP)
        context.invoke(report.spend, top=TOP)
    print_table("alerts", [_alert(event, delay) for event, delay in alerts])
    print_table("incidents: what people are told of what is unlike a key itself", [_incident(one) for one in incidents])
    with reading(settings) as client:
        print_table("budgets", [row for policy in list_policies(settings) for row in _budget(client, policy)])
    tell(verdict)


def sums(document: dict[str, Any], verdict: Verdict) -> None:
    """Print the last lines: speed, delay, and the sum whose terms are counted each on its own."""
    delay = document["alert_delay_p95_s"]
    out.print(
        f"{document['events_per_second']:,} events/s from the first sent to the last row in the ledger; "
        f"{document['alerts']} alerts, "
        f"delay p95 {'—' if delay is None else f'{delay} s'}; cost {Decimal(verdict.cost_nano) / 10**9:,.4f} USD",
    )
    out.print(line(verdict))


def pages(address: str, *, keep: bool) -> None:
    """Say where the pages are, or what brings them."""
    if not address:
        out.print(f"no pages: they need the server: {how_to_get('server')}")
    elif keep:
        out.print(f"it goes on: look at {address}")
    else:
        out.print(f"{address} was its page; make demo KEEP=1, or tollmeter demo --keep, leaves it running")


def _alert(event: dict[str, Any], delay: float) -> dict[str, Any]:
    data = event["data"]
    return {"severity": data["severity"], "kind": data["kind"], "delay_s": round(delay, 3), "text": data["text"]}


def _incident(found: Found) -> dict[str, Any]:
    org, scope, name = found.scope
    who = whom({"org_id": org, "scope": scope, "name": name})
    return {"severity": found.severity, "who": who, "alerts": found.alerts, "rules": ", ".join(found.kinds)}


def _budget(client: ClickHouse, policy: Policy) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    periods = {
        "day": (midnight, policy.daily_limit_micro),
        "month": (midnight.replace(day=1), policy.monthly_limit_micro),
    }
    rows = []
    for period, (since, limit) in periods.items():
        if limit is None:
            continue
        spent = _spent(client, policy, {"since": moment(since), "until": moment(now)})
        rows.append(
            {
                "org_id": policy.org_id,
                "scope": policy.scope,
                "name": policy.name,
                "period": period,
                "limit_usd": f"{Decimal(limit) / 10**6:.2f}",
                "spent_usd": f"{spent:.4f}",
                "used_pct": int(spent * 10**8 / limit),
            }
        )
    return rows


def _spent(client: ClickHouse, policy: Policy, period: dict[str, str]) -> Decimal:
    user = policy.name if policy.scope == "user" else ""
    asked = {**period, **NO_FILTER, "user_id": user, "orgs": [policy.org_id]}
    return Decimal(client.query(load("spend_total"), asked)[0]["known_nano"]) / NANO_PER_USD
