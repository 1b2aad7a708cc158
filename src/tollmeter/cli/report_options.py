"""Options of a report's period, time zone and filters. A period is half-open: from ... up to ..."""

import re
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any
from zoneinfo import ZoneInfo

import click

from tollmeter.admin.reports.asked import Asked, with_key_ids
from tollmeter.admin.reports.questions import BY
from tollmeter.cli.options import INSTANT, SPAN, ZONE
from tollmeter.settings import Settings

Command = Callable[..., Any]
OPTIONS = {
    "org_id": ("--org", "Only this organisation."),
    "user_id": ("--user", "Only this user."),
    "provider": ("--provider", "Only this provider."),
    "model": ("--model", "Only this model, as it was sent, used or priced."),
    "api_key_id": ("--key", "Only this key id, or the key itself, of which the id is made."),
    "label": ("--label", "Only keys of this label."),
    "tag": ("--tag", "Only calls with this tag, as key=value."),
}
"""The options of the filters."""
THIS_MONTH = "month"


zone_option = click.option(
    "--zone", type=ZONE, default="UTC", show_default=True, help="Time zone of days, months and times without one."
)


class Columns(click.ParamType):
    """Names of columns to group by, separated by commas."""

    name = "columns"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        names = value if isinstance(value, tuple) else tuple(part.strip() for part in str(value).split(","))
        for name in names:
            if name not in BY:
                self.fail(f"no column {name!r}: choose from {', '.join(BY)}", param, ctx)
        return tuple(dict.fromkeys(names))


def asking(since: str, *, day: bool = False, but: Collection[str] = ()) -> Callable[[Command], Command]:
    """Give a command the options of a period and the filters; it gets them as one `Asked`.

    `since` is how far back it looks when nothing is said: a span, or `THIS_MONTH`. With `day` it takes --day, too; the
    filters of `but` it does not take.
    """
    dates = (("month", "--month", "YYYY-MM"), ("day", "--day", "YYYY-MM-DD"))[: 1 + day]

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(*args: Any, since: str, until: str | None, zone: ZoneInfo, **rest: Any) -> object:
            settings: Settings = click.get_current_context().obj
            given = {name: "" if name in but else rest.pop(name) for name in OPTIONS}
            filters = with_key_ids(given, settings.pepper.get_secret_value())
            named = [text for name, _, _ in dates if (text := rest.pop(name)) is not None]
            start, end = period(since, until, named, zone, datetime.now(UTC))
            return command(*args, asked=Asked(start, end, zone, filters), **rest)

        found: Command = run
        for name, (flag, text) in reversed([one for one in OPTIONS.items() if one[0] not in but]):
            found = click.option(flag, name, default="", help=text)(found)
        for option in (
            zone_option,
            *(click.option(flag, name, metavar=form, help=f"That calendar {name}.") for name, flag, form in dates),
            click.option("--until", metavar="TIME", help="Up to this time [default: now]."),
            click.option(
                "--since",
                "--from",
                "since",
                metavar="SPAN|TIME",
                default=since,
                show_default=True,
                help="How far back (30m, 48h, 7d), or from which time on (2026-11-01, 2026-11-22T10:00:00Z).",
            ),
        ):
            found = option(found)
        return found

    return decorate


def period(
    since: str, until: str | None, named: Sequence[str], zone: ZoneInfo, now: datetime
) -> tuple[datetime, datetime]:
    """Return the period that is meant; `named` are calendar days and months. Raises `click.BadParameter`."""
    if len(named) > 1 or (named and (until is not None or _given("since"))):
        raise click.BadParameter("a calendar day or month is a period by itself: give one, without --since and --until")
    if named:
        return _calendar(named[0], zone)
    end = now + timedelta(microseconds=1) if until is None else _named("--until", lambda: INSTANT.of(until, zone))
    start = _named("--since", lambda: _start(since, end, zone))
    if start >= end:
        raise click.BadParameter(f"the period is empty: {start.isoformat()} is not before {end.isoformat()}")
    return start.astimezone(UTC), end.astimezone(UTC)


def _start(since: str, end: datetime, zone: ZoneInfo) -> datetime:
    if since == THIS_MONTH:
        return end.astimezone(zone).replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
    if since[:1].isdigit() and ("-" in since or ":" in since):
        return INSTANT.of(since, zone)
    return end - timedelta(seconds=SPAN.convert(since, None, None))


def _named(option: str, read: Callable[[], datetime]) -> datetime:
    try:
        return read()
    except click.BadParameter as wrong:
        wrong.param_hint = option
        raise


def _given(name: str) -> bool:
    context = click.get_current_context(silent=True)
    source = context.get_parameter_source(name) if context else None
    return source is not None and source is not click.core.ParameterSource.DEFAULT


def _calendar(text: str, zone: ZoneInfo) -> tuple[datetime, datetime]:
    if re.fullmatch(r"\d{4}-\d{2}(-\d{2})?", text, re.ASCII) is None:
        raise click.BadParameter(f"{text!r} is no calendar day or month: write it like 2026-11-22 or 2026-11")
    is_month = text.count("-") == 1
    start = INSTANT.of(f"{text}-01" if is_month else text, zone)
    following = (start.replace(day=28) + timedelta(days=4)).replace(day=1) if is_month else start + timedelta(days=1)
    return start.astimezone(UTC), following.astimezone(UTC)
