"""Tables to rows: CSV as UTF-8 and Parquet, every row as wide as its head, none in two files."""

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import polars as pl

from tollmeter.admin.bills import aws
from tollmeter.streams.rules.bills.lines import BillError

PARQUET = b"PAR1"
MAX_CELL = 1 << 24
OTHERS = (
    (b"PK\x03\x04", "a workbook or an archive: save the sheet as CSV UTF-8, or unpack it"),
    (b"\xd0\xcf\x11\xe0", "an old workbook: save the sheet as CSV UTF-8"),
    (b"\xff\xfe", "UTF-16: save it as CSV UTF-8"),
    (b"\xfe\xff", "UTF-16: save it as CSV UTF-8"),
    (b"%PDF", "a PDF: import the provider's export or report instead"),
    (b"<", "a web page: import the file that it offers"),
)
"""What people have in place of a table, by its first bytes."""
DELIMITERS = (",", ";", "\t")
Row: TypeAlias = dict[str, Any]
Rows: TypeAlias = Iterator[Row]
Numbered: TypeAlias = Iterable[tuple[int, Row]]
"""Rows with their lines."""


def text_of(where: str, content: bytes) -> str:
    """Return the text of a file. Raises `BillError`."""
    for begin, what in OTHERS:
        if content.startswith(begin):
            raise BillError(f"{where} is {what}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BillError(f"{where} is not UTF-8: save it as CSV UTF-8") from None


def rows_of(where: str, content: bytes, marks: Sequence[str] = (",",)) -> Numbered:
    """Yield the rows of a table, of CSV those whose columns one of `marks` separates. Raises `BillError`."""
    return _parquet(where, content) if content.startswith(PARQUET) else _csv(where, text_of(where, content), marks)


def apart(tables: Sequence[tuple[str, Numbered]]) -> Rows:
    """Yield the rows of all tables; one that two files have says that they overlap. Raises `BillError`."""
    seen: dict[bytes, str] = {}
    for where, rows in tables:
        here: dict[bytes, str] = {}
        for line, row in rows:
            if len(tables) > 1:
                content = hashlib.blake2b(repr(list(row.items())).encode(), digest_size=16).digest()
                if content in seen:
                    raise BillError(f"{where}, line {line}: {seen[content]} has the same row: import each row once")
                here[content] = where
            yield row
        seen |= here


def delimiter(head: str) -> str:
    """Return what separates the columns of a head: what stands in it most often."""
    return max(DELIMITERS, key=head.count)


def _csv(where: str, text: str, marks: Sequence[str]) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(MAX_CELL)
    mark = delimiter(text.partition("\n")[0])
    if mark not in marks:
        raise BillError(
            f"{where}: {mark!r} separates its columns, so a spreadsheet has saved it: import the file as the provider "
            "wrote it, or say what is in it with --map and --decimal comma|point"
        )
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=mark)
    try:
        names = list(reader.fieldnames or ())
        if twice := sorted({name for name in names if name and names.count(name) > 1}):
            raise BillError(f"{where}: column {twice[0]!r} is there twice: which of them counts?")
        for row in reader:
            if None in row or None in row.values():
                raise BillError(f"{where}, line {reader.line_num}: more or fewer cells than the head has")
            yield reader.line_num, row
    except csv.Error as error:
        raise BillError(f"{where}, line {reader.line_num}: no CSV: {error}") from None


def _parquet(where: str, content: bytes) -> Iterator[tuple[int, Row]]:
    try:
        frame = pl.read_parquet(io.BytesIO(content))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BillError(f"{where} is no Parquet, or breaks off: {str(error)[:100]}") from None
    if aws.MARK in frame.columns:
        frame = frame.select(name for name in aws.COLUMNS if name in frame.columns)
    yield from enumerate(frame.iter_rows(named=True), 1)
