"""Reports from the ledger: the dearest calls, spend by anything, today, token totals, operations, and any one call."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import click

from tollmeter.cli.budget import budget
from tollmeter.cli.groups import Group
from tollmeter.cli.ledger import ALL, plain, reading
from tollmeter.cli.options import SPAN
from tollmeter.cli.output import Finding, json_option, out, print_json, print_table
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.queries import load, moment

Row = dict[str, Any]

BY = {
    "model": "model",
    "key": "api_key_id",
    "user": "user_id",
    "org": "org_id",
    "group": "group_id",
    "agent": "agent",
    "ip": "client_ip",
    "provider": "provider",
    "operation": "operation_name",
    "service": "service",
    "status": "status",
    "day": "day",
}
"""What `report spend --by` takes, and the column each becomes."""

SPEND = ("calls", "prompt_tokens", "output_tokens", "usd_est")
DOUBTS = ("unpriced", "usd_at_risk")
TABLE_ROWS = 50

_LEDGER_FIELDS = (
    "src_",
    "priced_",
    "price_",
    "cost_",
    "at_risk_",
    "rule_",
    "fx_",
    "version",
    "inserted_at",
    "revision",
    "flags",
)


class Columns(click.ParamType):
    """Names of columns to group by, separated by commas."""

    name = "columns"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        names = value if isinstance(value, tuple) else tuple(part.strip() for part in str(value).split(","))
        for name in names:
            if name not in BY:
                self.fail(f"no column {name!r}: choose from {', '.join(BY)}", param, ctx)
        return tuple(dict.fromkeys(names))


@click.group(cls=Group)
def report() -> None:
    """Who spent how much, on what, through which key."""


report.add_command(budget)


@report.command()
@click.option("--top", type=click.IntRange(1), default=20, show_default=True, help="How many calls.")
@click.option("--since", type=SPAN, default="24h", show_default=True, help="How far back: 30m, 48h, 7d.")
@json_option
@click.pass_obj
def calls(settings: Settings, top: int, since: float, as_json: bool) -> None:
    """The dearest calls."""
    period = _back(since)
    with reading(settings) as ledger:
        rows = ledger.query(load("top_calls"), {**period, "top": top})
        total = {} if as_json else ledger.query(load("spend_total"), period)[0]
    _show("dearest calls", rows, total, as_json)


@report.command()
@click.option("--by", type=Columns(), default="model,key", show_default=True, help=f"Of: {', '.join(BY)}.")
@click.option("--since", type=SPAN, default="48h", show_default=True, help="How far back: 30m, 48h, 7d.")
@click.option("--top", type=click.IntRange(1), help=f"How many rows [default: all; {TABLE_ROWS} in a table].")
@json_option
@click.pass_obj
def spend(settings: Settings, by: tuple[str, ...], since: float, top: int | None, as_json: bool) -> None:
    """Spend grouped by model, key, user, and so on, dearest first."""
    period = _back(since)
    limit = top or (ALL if as_json else TABLE_ROWS)
    with reading(settings) as ledger:
        rows = ledger.query(load("spend"), {**period, "by": list(by), "top": limit})
        total = {} if as_json else ledger.query(load("spend_total"), period)[0]
    columns = [*(BY[name] for name in by), *SPEND, *([] if as_json else DOUBTS)]
    _show(f"spend by {', '.join(by)}", [_pick(row, columns) for row in rows], total, as_json)
    if not as_json and not top and len(rows) == TABLE_ROWS:
        out.print(f"the dearest {TABLE_ROWS}; --top N shows more")


@report.command()
@json_option
@click.pass_obj
def today(settings: Settings, as_json: bool) -> None:
    """Today's cost (UTC) per model and key, with totals."""
    day = datetime.now(UTC).date()
    with reading(settings) as ledger:
        found = ledger.query(load("costs_today"), {"day": day.isoformat()})
    rows = [_pick(row, ["model", "api_key_id", *SPEND]) for row in found if not row["total"]]
    total = next((_pick(row, [*SPEND, *DOUBTS]) for row in found if row["total"]), {})
    total = {name: total.get(name) or 0 for name in (*SPEND, *DOUBTS)}
    if as_json:
        print_json({"day": day.isoformat(), "rows": [plain(row) for row in rows], "totals": plain(total)})
    else:
        _show(f"cost of {day} UTC", rows, total, as_json)


@report.command()
@click.option("--user", default="", help="Only this user.")
@click.option("--org", default="", help="Only this organisation.")
@json_option
@click.pass_obj
def summary(settings: Settings, user: str, org: str, as_json: bool) -> None:
    """Tokens, cost in RUB and requests: today, this month, all time."""
    now = moment(datetime.now(UTC))
    with reading(settings) as ledger:
        row = plain(ledger.query(load("token_summary"), {"now": now, "user_id": user, "org_id": org})[0])
    names = ("total_tokens", "cost_rub", "requests_count")
    data = {period: {name: row[f"{period}_{name}"] for name in names} for period in ("today", "this_month", "all_time")}
    if as_json:
        print_json({"success": True, "data": data})
    else:
        print_table("tokens", [{"period": period, **values} for period, values in data.items()])


@report.command()
@click.option("--provider", default="", help="Only this provider.")
@json_option
@click.pass_obj
def operations(settings: Settings, provider: str, as_json: bool) -> None:
    """This month's calls, tokens and cost per operation."""
    now = datetime.now(UTC)
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    period = {"since": moment(start), "until": moment(now + timedelta(microseconds=1))}
    with reading(settings) as ledger:
        rows = ledger.query(load("operations"), {**period, "provider": provider})
        total = {} if as_json else ledger.query(load("spend_total"), period)[0]
    _show(f"operations of {start:%Y-%m} UTC", rows, {} if provider else total, as_json)


@report.command()
@click.argument("call_id", metavar="ID")
@json_option
@click.pass_obj
def find(settings: Settings, call_id: str, as_json: bool) -> None:
    """One call by the service's request id, the provider's, or the event id: its row and the rule that priced it."""
    with reading(settings) as ledger:
        found = [_parts(plain(row)) for row in ledger.query(load("find_call"), {"id": call_id})] if call_id else []
    if as_json:
        print_json(found)
    for parts in [] if as_json else found:
        for title, fields in parts.items():
            filled = {name: value for name, value in (fields or {}).items() if value not in ("", None, {}, [])}
            print_table(title, [{"field": name, "value": str(value)} for name, value in filled.items()])
    if not found:
        raise Finding(f"no call with id {call_id!r} in the ledger")


def _back(seconds: float) -> dict[str, str]:
    now = datetime.now(UTC)
    return {"since": moment(now - timedelta(seconds=seconds)), "until": moment(now + timedelta(microseconds=1))}


def _pick(row: Mapping[str, Any], columns: Sequence[str]) -> Row:
    return {name: row[name] for name in columns}


def _parts(row: Row) -> dict[str, Row | None]:
    rule = row.pop("price_rule")
    ledger = {name: value for name, value in row.items() if name.startswith(_LEDGER_FIELDS)}
    call = {name: value for name, value in row.items() if name not in ledger}
    return {"call": call, "ledger": ledger, "price_rule": {"rule": rule} if rule else None}


def _show(title: str, rows: Sequence[Row], total: Mapping[str, Any], as_json: bool) -> None:
    """Print rows; for people a line with the whole period, and what in it is not known."""
    if as_json:
        print_json([plain(row) for row in rows])
        return
    print_table(title, [_readable(row) for row in rows])
    if rows and total:
        out.print(f"total: {total['usd_est']} USD in {total['calls']} calls")
        if total["unpriced"]:
            risk = f", at most about {total['usd_at_risk']} USD" if total["usd_at_risk"] else ""
            out.print(f"not in it: {total['unpriced']} calls of unknown cost{risk}")


def _readable(row: Row) -> Row:
    return {name: _second(value) if isinstance(value, datetime) else value for name, value in row.items()}


def _second(at: datetime | date) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"
