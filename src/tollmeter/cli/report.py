"""Reports from the ledger: the dearest calls, spend by anything, today, token totals, operations, and any one call."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP
from zoneinfo import ZoneInfo

import click

from tollmeter.admin import cost_lines
from tollmeter.admin.kept import kept_from, kept_within
from tollmeter.admin.reports import questions
from tollmeter.admin.reports.asked import NO_FILTER, Asked, day, midnight
from tollmeter.admin.reports.labels import name_keys
from tollmeter.admin.reports.minutes import ALL, whole_from
from tollmeter.admin.reports.questions import BY, CALL, OPERATION, SPEND
from tollmeter.admin.reports.rows import Row, document, pick, plain, usd
from tollmeter.cli.allocate import allocate
from tollmeter.cli.budget import budget
from tollmeter.cli.changes import report_changes
from tollmeter.cli.groups import Group
from tollmeter.cli.ledger import reading
from tollmeter.cli.output import Finding, err, json_option, out, print_json, print_table
from tollmeter.cli.report_options import THIS_MONTH, Columns, asking, zone_option
from tollmeter.cli.report_rows import Form, form_option, show, tell_kept
from tollmeter.schemas.money import nano_to_text
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.queries import load, moment

REPORTED = ("ts", "request_id", "model", "api_key_id", "reported_usd", "cost_usd", "difference_usd")
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


@click.group(cls=Group)
def report() -> None:
    """Who spent how much, on what, through which key."""


report.add_command(budget)
report.add_command(report_changes)
report.add_command(allocate)


@report.command()
@click.option("--top", type=click.IntRange(1, ALL), default=20, show_default=True, help="How many calls.")
@asking(since="24h")
@form_option
@click.pass_obj
def calls(settings: Settings, asked: Asked, top: int, form: Form) -> None:
    """The dearest calls."""
    with reading(settings) as ledger:
        answered = questions.explained(ledger, asked, questions.top_calls(ledger, asked, top))
    spare = ("label", "model_used", "api_key_id", "client_ip", "request_id")
    show("dearest calls", answered, CALL, asked, form, spare)


@report.command()
@click.option("--by", type=Columns(), default="model,key", show_default=True, help=f"Of: {', '.join(BY)}.")
@click.option("--top", type=click.IntRange(1, ALL), help=f"How many rows [default: all; {TABLE_ROWS} in a table].")
@asking(since="48h")
@form_option
@click.pass_obj
def spend(settings: Settings, asked: Asked, by: tuple[str, ...], top: int | None, form: Form) -> None:
    """Spend grouped by model, key, user, and so on, dearest first."""
    limit = top or (TABLE_ROWS if form == "table" else ALL)
    with reading(settings) as ledger:
        whole = asked._replace(minutes_from=whole_from(settings.retention_events_days, datetime.now(UTC)))
        answered = questions.explained(ledger, asked, questions.spend(ledger, whole, by, limit))
        beside = cost_lines.totals(cost_lines.of_period(ledger, asked, datetime.now(UTC).date()))
    columns = [*(BY[name] for name in by), *SPEND]
    show(f"spend by {', '.join(by)}", answered, columns, asked, form, spare=("output_tokens", "prompt_tokens"))
    if form == "table" and not top and len(answered.rows) == TABLE_ROWS:
        out.print(f"the dearest {TABLE_ROWS}; --top N shows more")
    if beside["lines"]:
        amount = nano_to_text(beside["cost_nano"], 2) + (" and unknown" if beside["without_usd"] else "")
        err.print(
            f"not in these sums: {beside['lines']} costs without calls, {amount} USD ('tollmeter bills cost list')"
        )


@report.command()
@zone_option
@json_option
@click.pass_obj
def today(settings: Settings, zone: ZoneInfo, as_json: bool) -> None:
    """Today's cost per model and key, with totals."""
    now = datetime.now(UTC)
    asked = Asked(*day(now, zone), zone, dict(NO_FILTER))
    with reading(settings) as ledger:
        answered = questions.costs(ledger, asked)
    columns, date = ("model", "api_key_id", *SPEND), f"{asked.since.astimezone(zone):%Y-%m-%d}"
    if as_json:
        print_json({"day": date, **questions.document(answered, asked, document(answered.rows, columns), now)})
    else:
        show(f"cost of {date} {zone.key}", answered, columns, asked, "table", ("output_tokens", "prompt_tokens"))


@report.command()
@click.option("--user", default="", help="Only this user.")
@click.option("--org", default="", help="Only this organisation.")
@zone_option
@json_option
@click.pass_obj
def summary(settings: Settings, user: str, org: str, zone: ZoneInfo, as_json: bool) -> None:
    """Tokens, cost in RUB and requests: today, this month, all time."""
    now = datetime.now(UTC)
    today = midnight(now, zone)
    starts = {"now": moment(now), "today": moment(today), "month": moment(today.replace(day=1))}
    with reading(settings) as ledger:
        row = plain(ledger.query(load("token_summary"), {**starts, "user_id": user, "org_id": org})[0])
        kept = kept_from(ledger, now)
    names = ("total_tokens", "cost_rub", "requests_count")
    doubts = ("unpriced", "rub_at_risk")
    periods = ("today", "this_month", "all_time")
    data = {period: {name: row[f"{period}_{name}"] for name in (*names, *doubts)} for period in periods}
    if as_json:
        shown = {p: values if values["unpriced"] else pick(values, names) for p, values in data.items()}
        print_json({"success": True, "data": shown})
    else:
        print_table(f"tokens; days and months of {zone.key}", [{"period": p, **values} for p, values in data.items()])
    tell_kept(kept, zone)


@report.command()
@asking(since=THIS_MONTH)
@form_option
@click.pass_obj
def operations(settings: Settings, asked: Asked, form: Form) -> None:
    """Calls, tokens and cost per operation, this month unless another period is named."""
    with reading(settings) as ledger:
        answered = questions.explained(ledger, asked, questions.operations(ledger, asked))
    if form == "table":
        rows = [{**row, "cost_usd": usd(row["total_nano"], 2, ROUND_HALF_UP)} for row in answered.rows]
        answered = answered._replace(rows=rows)
    show("operations", answered, OPERATION, asked, form, spare=("total_tokens",))


@report.command()
@click.option("--top", type=click.IntRange(1, ALL), default=20, show_default=True, help="How many calls.")
@asking(since="30d")
@json_option
@click.pass_obj
def reported(settings: Settings, asked: Asked, top: int, as_json: bool) -> None:
    """Costs that logs, providers or services stated, beside ours: the calls that differ most, and the sums."""
    with reading(settings) as ledger:
        rows = ledger.query(load("reported"), {**asked.parameters(), "top": top})
        total = ledger.query(load("reported_total"), asked.parameters())[0]
        tell_kept(kept_within(ledger, asked.since, datetime.now(UTC)), asked.zone)
    if as_json:
        print_json({"rows": [plain(row) for row in rows], "totals": plain(total)})
        return
    print_table("stated cost and ours, USD", [_said(row) for row in rows], REPORTED, spare=("request_id", "api_key_id"))
    out.print(
        f"{total['compared']:,} calls have both: stated {total['reported_usd']:f} USD, ours {total['cost_usd']:f} USD; "
        f"{total['equal']:,} are equal; {asked.said()}"
    )
    if total["unpriced"]:
        out.print(f"not in it: {total['unpriced']:,} calls with a stated cost whose own cost is not known")


@report.command()
@click.argument("call_id", metavar="ID")
@json_option
@click.pass_obj
def find(settings: Settings, call_id: str, as_json: bool) -> None:
    """One call by the service's request id, the provider's, or the event id: its row and the rule that priced it."""
    with reading(settings) as ledger:
        asked = {"id": call_id, "orgs": [], "user_id": ""}
        rows = name_keys(ledger, ledger.query(load("find_call"), asked)) if call_id else []
    found = [_parts(plain(row)) for row in rows]
    if as_json:
        print_json(found)
    for parts in [] if as_json else found:
        for title, fields in parts.items():
            filled = {name: value for name, value in (fields or {}).items() if value not in ("", None, {}, [])}
            print_table(title, [{"field": name, "value": str(value)} for name, value in filled.items()])
    if not found:
        raise Finding(f"no call with id {call_id!r} in the ledger")


def _said(row: Mapping[str, object]) -> Row:
    money = ("reported_usd", "cost_usd", "difference_usd")
    amounts = {name: None if row[name] is None else f"{row[name]:f}" for name in money}
    return {**plain(row), **amounts}


def _parts(row: Row) -> dict[str, Row | None]:
    rule = row.pop("price_rule")
    ledger = {name: value for name, value in row.items() if name.startswith(_LEDGER_FIELDS)}
    call = {name: value for name, value in row.items() if name not in ledger}
    return {"call": call, "ledger": ledger, "price_rule": {"rule": rule} if rule else None}
