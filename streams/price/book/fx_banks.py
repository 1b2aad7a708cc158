"""Rate files of the European Central Bank and the Bank of Russia, and a file of our own in which a day's rate stays.

Rates are kept as the bank quotes them. A day that has a rate keeps it: what was billed with it is never billed anew.
"""

import csv
import http.client
import io
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from xml.etree import ElementTree

from tollmeter.streams.price.book.fx import COLUMNS, FxError, rate_of, read_lines
from tollmeter.streams.rules.pricing.fx import Rate

ECB, BANK_OF_RUSSIA = "European Central Bank reference rate", "Bank of Russia official rate"
_RUSSIAN_USD = "R01235"
"""The Bank of Russia's own number of the US dollar, in files of one currency."""
Cells = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Merged:
    """What taking over a bank's rates came to; `conflicts` are lines for people."""

    cells: tuple[Cells, ...]
    added: int
    known: int
    conflicts: tuple[str, ...]


BANKS = {
    "ecb": "https://www.ecb.europa.eu/stats/eurofxref/eurofxref-hist-90d.xml",
    "cbr": "https://www.cbr.ru/scripts/XML_dynamic.asp?date_req1={since:%d/%m/%Y}&date_req2={until:%d/%m/%Y}&VAL_NM_RQ="
    + _RUSSIAN_USD,
}
"""Where the banks publish the rates of the last 90 days."""
FETCH_DAYS, FETCH_S, FETCH_BYTES = 90, 20, 8 << 20


def read_bank(path: Path) -> list[Cells]:
    """Return a bank's rates as rows of our own format. Raises `FxError`: a file that cannot be read is no rate."""
    try:
        body = path.read_bytes()
    except OSError as error:
        raise FxError(f"{path}: cannot be read: {error.strerror}") from None
    return _rows(body, str(path))


def fetch_bank(bank: str, until: date, address: str = "") -> list[Cells]:
    """Return the rates of the last 90 days as a bank publishes them. Raises `FxError`; an error page is no rate."""
    url = (address or BANKS[bank]).format(since=until - timedelta(days=FETCH_DAYS), until=until)
    try:
        with urllib.request.urlopen(url, timeout=FETCH_S) as answer:  # noqa: S310 - one of two addresses of our own
            body = answer.read(FETCH_BYTES)
    except urllib.error.HTTPError as refused:
        with refused:
            raise FxError(f"{url.partition('?')[0]} answered {refused.code}") from None
    except (OSError, http.client.HTTPException) as error:
        raise FxError(f"{url.partition('?')[0]} does not answer: {getattr(error, 'reason', error)}") from None
    return _rows(body, url.partition("?")[0])


def _rows(body: bytes, where: str) -> list[Cells]:
    try:
        rows = list(_xml(body) if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") else ecb_csv(body))
        for row in rows:
            rate_of(row)
    except FxError as error:
        raise FxError(f"{where}: {error}") from None
    if not rows:
        raise FxError(f"{where}: holds no rate of the US dollar")
    return rows


def merge(file: Path, new: Iterable[Cells], shipped: Iterable[Cells]) -> Merged:
    """Return the rows of our own file with a bank's added; a currency that it lacked begins with its shipped rates.

    A currency in our own file is taken from there alone: begun with the bank's rates it would lose its past. Raises
    `FxError` when our own file is wrong.
    """
    new = list(new)
    kept = {_key(rate_of(cells)): cells for _, cells in (read_lines(file) if file.exists() else ())}
    begun = {cells[1] for cells in new} - {currency for _, currency in kept}
    kept |= {_key(rate_of(cells)): cells for cells in shipped if cells[1] in begun}
    before = len(kept)
    known, conflicts = 0, list[str]()
    for cells in new:
        rate = rate_of(cells)
        old = kept.get(_key(rate))
        if old is None:
            kept[_key(rate)] = cells
        elif rate_of(old).per_usd_nano == rate.per_usd_nano:
            known += 1
        else:
            conflicts.append(f"{rate.day} {rate.currency}: {_quoted(old)} stays, {_quoted(cells)} is not taken over")
    return Merged(tuple(kept[key] for key in sorted(kept)), len(kept) - before, known, tuple(conflicts))


def store(file: Path, cells: Iterable[Cells]) -> None:
    """Replace our own file at once: whoever reads it finds the old or the new one, whole. Raises `FxError`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(cells)
    beside = file.with_name(file.name + ".new")
    try:
        beside.write_text(text.getvalue(), encoding="utf-8")
        beside.replace(file)
    except OSError as error:
        raise FxError(f"{file}: cannot be written: {error.strerror}") from None


def _key(rate: Rate) -> tuple[date, str]:
    return rate.day, rate.currency


def _quoted(cells: Cells) -> str:
    _, _, usd_per_unit, units_per_usd, _ = cells
    return f"{usd_per_unit} USD for 1" if usd_per_unit else f"{units_per_usd} for 1 USD"


def ecb_csv(body: bytes) -> Iterator[Cells]:
    """Read eurofxref.csv and eurofxref-hist.csv: a column per currency, in units of it for one EUR."""
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise FxError(f"is no file of rates: {error}") from None
    head = [cell.strip() for cell in lines[0]] if lines else []
    if head[:1] != ["Date"] or "USD" not in head:
        raise FxError("is no file of rates: expected eurofxref.csv or .xml of the ECB, or XML of the Bank of Russia")
    usd = head.index("USD")
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) <= usd:
            raise FxError(f"line {number}: {len(cells)} columns; expected at least {usd + 1}")
        if cells[usd].strip() != "N/A":
            day = _day(cells[0].strip(), ("%Y-%m-%d", "%d %B %Y"), f"line {number}")
            yield (day, "EUR", cells[usd].strip(), "", ECB)


def _xml(body: bytes) -> Iterator[Cells]:
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise FxError("is no file of rates: banks' files declare no document type")
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - no entities: refused above
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise FxError(f"is no valid XML: {error}") from None
    readers: dict[str, Callable[[ElementTree.Element], Iterator[Cells]]] = {
        "Envelope": _ecb,
        "ValCurs": _bank_of_russia,
    }
    reader = readers.get(_name(root))
    if reader is None:
        raise FxError(
            f"is no file of rates: it begins with <{_name(root)}>; expected those of the ECB or Bank of Russia"
        )
    yield from reader(root)


def _ecb(root: ElementTree.Element) -> Iterator[Cells]:
    """Read eurofxref-daily.xml and eurofxref-hist.xml: a Cube per day, in it one per currency."""
    for cube in root.iter():
        if _name(cube) == "Cube" and "time" in cube.attrib:
            day = _day(cube.attrib["time"], ("%Y-%m-%d",), "Cube")
            yield from ((day, "EUR", rate.get("rate", ""), "", ECB) for rate in cube if rate.get("currency") == "USD")


def _bank_of_russia(root: ElementTree.Element) -> Iterator[Cells]:
    """Read XML_daily.asp (all currencies of a day) and XML_dynamic.asp (one currency over days)."""
    for entry in root:
        if _name(entry) == "Valute" and entry.findtext("CharCode") == "USD":
            yield _russian(root.get("Date", ""), entry)
        elif _name(entry) == "Record" and entry.get("Id") == _RUSSIAN_USD:
            yield _russian(entry.get("Date", ""), entry)


def _russian(day: str, entry: ElementTree.Element) -> Cells:
    """A decimal comma, and a rate for `Nominal` units."""
    texts = [(entry.findtext(name) or "").replace(",", ".").strip() for name in ("Value", "Nominal")]
    try:
        value, nominal = (Decimal(text) for text in texts)
        units = format(value / nominal, "f")
    except (InvalidOperation, ZeroDivisionError):
        raise FxError(f"{day}: {texts[0]!r} for {texts[1]!r} USD is no rate") from None
    return (_day(day, ("%d.%m.%Y",), "Date"), "RUB", "", units, BANK_OF_RUSSIA)


def _day(text: str, forms: tuple[str, ...], where: str) -> str:
    for form in forms:
        try:
            return datetime.strptime(text, form).date().isoformat()  # noqa: DTZ007 - a day has no zone
        except ValueError:
            continue
    raise FxError(f"{where}: {text!r} is no date")


def _name(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]
