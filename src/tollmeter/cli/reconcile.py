"""`tollmeter reconcile`: a provider's bill beside the ledger; each difference with its name, its cause, a next step."""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from tollmeter.cli.ledger import reading
from tollmeter.cli.options import INSTANT, MONTH
from tollmeter.cli.output import Finding, UserError, err, json_option, out, print_json, print_table
from tollmeter.schemas.money import nano_to_text
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.queries import load

if TYPE_CHECKING:
    from tollmeter.admin.bills.reconcile import Reconciled

SHOWN = 20
BY = ("day", "model", "key", "project")


@click.command()
@click.option("--provider", help="Whose bill: openai, anthropic, aws, google, azure, openrouter ...")
@click.option("--month", type=MONTH, metavar="YYYY-MM", help="The month of the bill (UTC).")
@click.option("--by", type=click.Choice(BY), default="day", show_default=True, help="How the sums are grouped.")
@click.option("--account", default="", help="Only this account [default: all that are imported].")
@click.option(
    "--key", "keys", multiple=True, metavar="REF=KEY_ID", help="The provider's name of a key is this one of ours."
)
@click.option("--fetched", type=INSTANT, help="Take the bill as fetched at this time.")
@click.option("--recent", is_flag=True, help="Every bill of this month and the last, instead of one.")
@click.option("--alert", is_flag=True, help="Raise an alert for each closed day with a gap, and for each unknown key.")
@json_option
@click.pass_obj
def reconcile(
    settings: Settings,
    /,
    provider: str | None,
    month: date | None,
    by: str,
    account: str,
    keys: Sequence[str],
    fetched: datetime | None,
    recent: bool,
    alert: bool,
    as_json: bool,
) -> None:
    """Compare a provider's bill with the ledger, difference by difference.

    Requests, tokens, their tokens at our rate, money: each difference is matched, provider_only, ours_only, price,
    rounding, day_border, late, retries_aborted or fee. Exit code 1: a closed day differs by more than
    TOLLMETER_BILL_GAP_PCT percent.
    """
    stated = _stated(keys)
    if recent:
        if provider or month or account or fetched:
            raise UserError("--recent takes all bills of two months: without --provider, --month, --account, --fetched")
        before = datetime.now(UTC).date().replace(day=1) - timedelta(days=1)
        compare_all(settings, stated, before.replace(day=1), alert=alert, as_json=as_json)
        return
    if provider is None or month is None:
        raise UserError("say whose bill and of which month (--provider openai --month 2026-11), or --recent for all")
    from tollmeter.admin.bills import alarm, told
    from tollmeter.admin.bills.reconcile import Asked
    from tollmeter.admin.bills.reconcile import reconcile as compared
    from tollmeter.cli.bills import refusing
    from tollmeter.cli.prices import open_book

    book = open_book(settings)
    with refusing(), reading(settings) as client:
        asked = Asked(provider.strip().lower(), month, _following(month), account, stated, fetched)
        found = compared(client, book, asked, datetime.now(UTC))
        samples = told.sampled(client, found, found.guessed | stated)
    gaps = alarm.gaps(found, settings.bill_gap_pct)
    if alert:
        alarm.raise_all(settings, alarm.alerts(found, gaps, datetime.now(UTC)))
    document = told.document(found, by, samples) | {"gaps": [gap._asdict() | {"day": f"{gap.day}"} for gap in gaps]}
    if as_json:
        print_json(document)
    else:
        _tell(found, document, by)
    if gaps:
        raise Finding(
            f"{len(gaps)} closed days differ by more than {settings.bill_gap_pct:g} %, first {gaps[0].day}: "
            f"{gaps[0].pct:.1f} %"
        )


def compare_all(settings: Settings, stated: dict[str, str], since: date, *, alert: bool, as_json: bool) -> None:
    """Compare every bill from a month on. Raises `Finding` for a closed day with a gap."""
    from tollmeter.admin.bills import alarm
    from tollmeter.admin.bills.reconcile import Asked
    from tollmeter.admin.bills.reconcile import reconcile as compared
    from tollmeter.cli.bills import refusing
    from tollmeter.cli.prices import open_book

    found: list[dict[str, Any]] = []
    now = datetime.now(UTC)
    with refusing(), reading(settings) as client:
        for bill in client.query(load("bill_months"), {"since": f"{since}"}):
            month = bill["month"]
            asked = Asked(bill["provider"], month, _following(month), "", stated, None)
            one = compared(client, open_book(settings), asked, now)
            gaps = alarm.gaps(one, settings.bill_gap_pct)
            alerts = alarm.alerts(one, gaps, now)
            if alert:
                alarm.raise_all(settings, alerts)
            shown = {"provider": bill["provider"], "month": f"{month:%Y-%m}", "gaps": len(gaps)}
            found.append({**shown, "unknown_keys": len(alerts) - len(gaps)})
    if as_json:
        print_json({"compared": found})
    else:
        print_table(f"bills since {since:%Y-%m}", found)
    if count := sum(one["gaps"] for one in found):
        raise Finding(f"{count} closed days differ by more than {settings.bill_gap_pct:g} %")


def _following(month: date) -> date:
    return (month.replace(day=28) + timedelta(days=4)).replace(day=1)


def _stated(keys: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in keys:
        ref, equals, own = text.partition("=")
        if not equals or not ref or not own:
            raise UserError(f"--key {text}: write REF=KEY_ID, the provider's name of the key and ours")
        found[ref] = own
    return found


def _tell(found: "Reconciled", document: dict[str, Any], by: str) -> None:
    def usd(value: int) -> str:
        return nano_to_text(value, 2 if abs(value) >= 10**7 else 6)

    title = f"bill of {document['provider']}, {document['since']} up to {document['until']} UTC, USD"
    print_table(title, _money(document["classes"], usd))
    out.print(
        f"billed {usd(document['billed_nano'])}, ours {usd(document['ours_nano'])}, "
        f"matched {usd(document['matched_nano'])}; gap {document['gap_pct']} %"
    )
    steps = [{"step": name, **sides} for name, sides in document["steps"].items()]
    print_table("counted by both", steps)
    print_table(f"by {by}", _money(document["rows"], usd), (by, "billed", "ours", "difference"))
    largest = [one for one in document["differences"] if one["class"] != "rounding"][:SHOWN]
    for number, one in enumerate(largest, 1):
        where = " ".join(str(one[name]) for name in ("day", "key", "model") if one[name])
        out.print(f"{number}. {one['class']}: {usd(one['amount_nano'])} USD, {where}", bold=True)
        calls = f" ({one['calls']:,} calls, e.g. {', '.join(one['event_ids'][:2])})" if one["event_ids"] else ""
        out.print(f"   {one['likely_cause']}{calls}")
        out.print(f"   next: {one['next_step']}")
    for ref, key in document["keys_recognised"].items():
        err.print(f"note: key {ref} was recognised as {key} by its use; tollmeter bills key set {ref} {key} keeps it")
    for note in document["notes"]:
        err.print(f"note: {note}")


def _money(rows: Sequence[dict[str, Any]], usd: Callable[[int], str]) -> list[dict[str, Any]]:
    """Return rows with amounts in USD, under the name without its unit."""
    return [
        {
            name.removesuffix("_nano"): usd(value) if name.endswith("_nano") else value
            for name, value in row.items()
            if name.endswith("_nano") or not isinstance(value, int) or name == "differences"
        }
        for row in rows
    ]
