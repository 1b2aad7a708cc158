"""What `tollmeter anomalies replay` does: fold the ledger, and show what would have been told. It only reads."""

from dataclasses import replace as with_
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tollmeter.admin.replay.replay import LEARN, Asked, Replay, count
from tollmeter.admin.replay.replay import replay as replayed
from tollmeter.broker.policies import read_rules
from tollmeter.cli.ledger import reading
from tollmeter.cli.output import UserError, out, print_json, print_table
from tollmeter.cli.policy_options import doing
from tollmeter.cli.progress import bar
from tollmeter.schemas.money import nano_to_text
from tollmeter.settings import Settings
from tollmeter.streams.notify.commands import JournalError
from tollmeter.streams.notify.commands import feedback as what_was_said
from tollmeter.streams.notify.evidence import whom
from tollmeter.streams.watch.kernel import rules_from
from tollmeter.streams.watch.thresholds import changed_limits
from tollmeter.yaml_files import YamlError


def run(settings: Settings, since: float, file: Path | None, *, as_json: bool) -> None:
    """Replay and show. Raises `UserError` for what the user can mend."""
    rules = rules_from(settings, 1)
    if file is not None:
        try:
            rules = with_(rules, limits=changed_limits(file))
        except YamlError as error:
            raise UserError("; ".join(str(error).splitlines())) from None
    with doing():
        limits = read_rules(settings)
    try:
        said = what_was_said(settings)
    except JournalError as error:
        raise UserError(str(error)) from None
    until = datetime.now(UTC)
    start = until - timedelta(seconds=since)
    with reading(settings) as ledger, bar("calls replayed", count(ledger, start, until)) as progress:
        found = replayed(ledger, Asked(rules, limits, start, until), said, progress.advance)
        progress.finish()
    if as_json:
        print_json({"rules": None if file is None else str(file), **found.document()})
    else:
        _show(found)


def _show(found: Replay) -> None:
    print_table(
        "what would have been told",
        [
            {
                "first told": f"{datetime.fromtimestamp(one.first_s, UTC):%Y-%m-%d %H:%M}",
                "severity": one.severity,
                "who": whom({"org_id": one.scope[0], "scope": one.scope[1], "name": one.scope[2]}),
                "rules": ", ".join(one.kinds),
                "told": one.told,
                "lost before, USD": None if money is None else nano_to_text(money.before_nano, 2),
                "lost in all, USD": None if money is None else nano_to_text(money.all_nano, 2),
            }
            for one, money in found.found
        ],
    )
    out.print(words(found))


def words(found: Replay) -> str:
    """Say in sentences what the rules would have told."""
    told, total = sum(one.told for one, _ in found.found), len(found.found)
    learned = f"{LEARN.days} days before it are learned from"
    first = (
        f"{found.calls:,} calls up to {found.until:%Y-%m-%d %H:%M} UTC, since {found.since:%Y-%m-%d %H:%M} UTC "
        f"({learned}): {total} incidents and paces, told {told} times; "
        f"{nano_to_text(found.lost_nano, 2)} USD beyond the usual was spent before the first alerts"
    )
    if not (found.real or found.expected):
        return first
    real, expected = (sum(was for _, was in judged) for judged in (found.real, found.expected))
    return (
        f"{first}. Of {len(found.real)} incidents that people called real {real} would have been told, "
        f"of {len(found.expected)} that were expected {expected}"
    )
