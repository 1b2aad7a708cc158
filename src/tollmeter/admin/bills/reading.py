"""Files to one bill: what kind of file it is says its content. Nothing is stored here, so a refusal changes nothing."""

import gzip
import json
import zlib
from collections.abc import Sequence
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any

from tollmeter.admin.bills import anthropic, aws, azure, google, mapped, openai, openrouter
from tollmeter.admin.bills.pages import Document, refuse_error
from tollmeter.admin.bills.tables import DELIMITERS, PARQUET, Rows, apart, rows_of, text_of
from tollmeter.streams.rules.bills.lines import Bill, BillError, objects

GZIP = b"\x1f\x8b"
KNOWN = (
    "OpenAI usage or costs, Anthropic usage or cost report, AWS CUR 2.0, Google billing export, Azure cost export, "
    "OpenRouter activity; any other CSV by --provider and --map FIELD=COLUMN"
)


def read(files: Sequence[Path], provider: str = "", columns: mapped.Columns | None = None) -> Bill:
    """Return the bill that these files are together. Raises `BillError`."""
    contents = [(str(file), _content(file)) for file in files]
    if columns is not None:
        if not provider:
            raise BillError("--map needs --provider: whose bill is it?")
        if documents := [where for where, content in contents if _is_json(content)]:
            raise BillError(f"{documents[0]} is JSON: --map says what the columns of a CSV or Parquet file are")
        tables = [
            (where, rows_of(where, content, DELIMITERS if columns.decimal else ",")) for where, content in contents
        ]
        return mapped.read(tables, provider, columns)
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

    def read(part: str) -> object:
        return json.loads(part, parse_float=Decimal, parse_constant=refuse, object_pairs_hook=_each_once)

    text = text_of(where, content)
    try:
        return read(text)
    except (ValueError, RecursionError) as error:
        if "\n" in text.strip():
            try:
                return [read(line) for line in text.splitlines() if line.strip()]
            except (ValueError, RecursionError):
                pass
        raise BillError(f"{where} is no JSON, or breaks off: {str(error)[:100]}") from None


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name is there twice in one object")
    return made


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
        tables = [(where, enumerate(objects(document, where), 1)) for where, document in documents]
        return google.read(documents[0][0], apart(tables))
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


def _check_ends(contents: Sequence[tuple[str, bytes]]) -> None:
    """Raise `BillError` for a CSV that ends within a line: its last amount may be the half of one."""
    for where, content in contents:
        if not content.startswith(PARQUET) and not content.endswith(b"\n"):
            raise BillError(f"{where} ends within a line, so it may be cut off: import it as the provider wrote it")


def _table_bill(where: str, contents: Sequence[tuple[str, bytes]]) -> Bill:
    rows: Rows = apart([(file, rows_of(file, content)) for file, content in contents])
    head = next(rows, None)
    if head is None:
        raise BillError(f"{where}: no row in it")
    for kind, read_ in (
        (aws.is_aws, aws.read),
        (google.is_google, google.read),
        (azure.is_azure, azure.read),
    ):
        if kind(head):
            _check_ends(contents)
            return read_(where, chain((head,), rows))
    raise BillError(f"{where}: columns {', '.join(list(head)[:6])} ... are no bill that is known here: {KNOWN}")
