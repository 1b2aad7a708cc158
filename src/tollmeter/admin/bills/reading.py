"""Files to one bill: what kind of file it is says its content. Nothing is stored here, so a refusal changes nothing."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from tollmeter.admin.bills import anthropic, aws, azure, google, mapped, openai, openrouter
from tollmeter.admin.bills.pages import Document, refuse_error
from tollmeter.streams.rules.bills.lines import Bill, BillError

PARQUET, GZIP = b"PAR1", b"\x1f\x8b"
MAX_CELL = 1 << 24
KNOWN = (
    "OpenAI usage or costs, Anthropic usage or cost report, AWS CUR 2.0, Google billing export, Azure cost export, "
    "OpenRouter activity; any other CSV by --provider and --map FIELD=COLUMN"
)


def read(files: Sequence[Path], provider: str = "", columns: Mapping[str, str] | None = None) -> Bill:
    """Return the bill that these files are together. Raises `BillError`."""
    contents = [(str(file), _content(file)) for file in files]
    if columns:
        if not provider:
            raise BillError("--map needs --provider: whose bill is it?")
        return mapped.read(str(files[0]), _rows_of_all(contents), provider, columns)
    if all(_is_json(content) for _, content in contents):
        bill = _json_bill([(where, _json(where, content)) for where, content in contents])
    else:
        bill = _table_bill(str(files[0]), contents)
    if provider and provider != bill.provider:
        raise BillError(f"{files[0]}: this is a bill of {bill.provider}, not of {provider}")
    return bill


def parse(documents: Sequence[Document]) -> Bill:
    """Return the bill of JSON answers, as `read` does of files. Raises `BillError`."""
    return _json_bill(documents)


def _content(file: Path) -> bytes:
    try:
        content = file.read_bytes()
        content = gzip.decompress(content) if content[:2] == GZIP else content
    except (OSError, EOFError, zlib.error) as error:
        raise BillError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not content.strip():
        raise BillError(f"{file} is empty")
    return content


def _is_json(content: bytes) -> bool:
    return content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def _json(where: str, content: bytes) -> object:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    text = _text(where, content)
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        if "\n" in text.strip():
            try:
                lines = (line for line in text.splitlines() if line.strip())
                return [json.loads(line, parse_float=Decimal, parse_constant=refuse) for line in lines]
            except (ValueError, RecursionError):
                pass
        raise BillError(f"{where} is no JSON, or breaks off: {str(error)[:100]}") from None


def _text(where: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BillError(f"{where} is not UTF-8") from None


def _json_bill(documents: Sequence[Document]) -> Bill:
    first = [_first(where, document) for where, document in documents]
    known = [row for row in first if row is not None]
    for kind, read_ in (
        (openai.is_openai, openai.read),
        (anthropic.is_anthropic, anthropic.read),
        (openrouter.is_openrouter, openrouter.read),
    ):
        if known and all(kind(row) for row in known):
            return read_(documents)
    if known and all(google.is_google(row) for row in known):
        rows = [row for _, document in documents for row in document]
        return google.read(documents[0][0], rows)
    raise BillError(f"{documents[0][0]}: no bill in a form that is known here: {KNOWN}")


def _first(where: str, document: object) -> dict[str, Any] | None:
    """Return the first bucket or row of a document, None where it has none."""
    refuse_error(where, document)
    rows = document.get("data") if isinstance(document, dict) else document
    if isinstance(rows, list) and rows and isinstance(rows[0], dict):
        inner = rows[0].get("data")
        refuse_error(where, rows[0])
        return _first(where, rows[0]) if isinstance(inner, list) else rows[0]
    return None


def _table_bill(where: str, contents: Sequence[tuple[str, bytes]]) -> Bill:
    rows = _rows_of_all(contents)
    head = next(rows, None)
    if head is None:
        raise BillError(f"{where}: no row in it")

    def all_rows() -> Iterator[dict[str, Any]]:
        yield head
        yield from rows

    if aws.MARK in head:
        return aws.read(where, all_rows())
    if google.is_google(head):
        return google.read(where, all_rows())
    if azure.is_azure(head):
        return azure.read(where, all_rows())
    raise BillError(f"{where}: columns {', '.join(list(head)[:6])} ... are no bill that is known here: {KNOWN}")


def _rows_of_all(contents: Sequence[tuple[str, bytes]]) -> Iterator[dict[str, Any]]:
    seen: dict[bytes, str] = {}
    for where, content in contents:
        if content in seen:
            raise BillError(f"{seen[content]} and {where} are the same file: import one of them")
        seen[content] = where
        yield from _rows(where, content)


def _rows(where: str, content: bytes) -> Iterator[dict[str, Any]]:
    if content[:4] == PARQUET:
        yield from _parquet(where, content)
        return
    csv.field_size_limit(MAX_CELL)
    reader = csv.DictReader(io.StringIO(_text(where, content)), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise BillError(f"{where}, line {reader.line_num}: more or fewer cells than the head has")
            yield row
    except csv.Error as error:
        raise BillError(f"{where}, line {reader.line_num}: no CSV: {error}") from None


def _parquet(where: str, content: bytes) -> Iterator[dict[str, Any]]:
    try:
        frame = pl.read_parquet(io.BytesIO(content))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BillError(f"{where} is no Parquet, or breaks off: {str(error)[:100]}") from None
    if aws.MARK in frame.columns:
        frame = frame.select(name for name in aws.COLUMNS if name in frame.columns)
    yield from frame.iter_rows(named=True)
