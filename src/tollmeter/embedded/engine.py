"""One process owns the chDB folder; each request runs on a handle of its own, so that no setting leaks to another."""

import re
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chdb

from tollmeter.embedded import readonly
from tollmeter.embedded.errors import FrontError, from_engine
from tollmeter.embedded.insert_file import Spool
from tollmeter.embedded.space import Space
from tollmeter.embedded.statement import Statement

_SETTING_NAME = re.compile(r"[A-Za-z_]\w*")
_STORES = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*INSERT\b", re.IGNORECASE | re.DOTALL)
_RETURNS_ROWS = re.compile(r"\s*\(*\s*(WITH|SELECT|SHOW|DESC|DESCRIBE|EXISTS|EXPLAIN|VALUES)\b", re.IGNORECASE)
_SETTINGS_AT_END = re.compile(r"\bSETTINGS\b(?:[^'`]|'(?:[^'\\]|\\.)*')*$", re.IGNORECASE | re.DOTALL)
_FORMAT_AT_END = re.compile(r"\bFORMAT\s+(\w+)\s*(?:SETTINGS\b[^']*)?;?\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class User:
    """Who may connect. `settings` win over what a request sends."""

    password: str = field(repr=False)
    readonly: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """The result of one statement; `format` is empty when it returns no rows."""

    body: bytes
    format: str
    summary: Mapping[str, int]


def literal(text: str) -> str:
    """Return a SQL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def stores(query: str) -> bool:
    """Tell whether a statement stores rows, behind whatever comments it begins with."""
    return bool(_STORES.match(query))


class Engine:
    """The open chDB folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = str(folder)
        self._spool = Spool(folder)
        self.space = Space(self._path)
        self._keep = chdb.connect(self._path)  # keeps the database open: background merges, refreshable views
        self.version = self._text("SELECT version()")
        self.timezone = self._text("SELECT timezone()")
        self._unsafe = readonly.unsafe_functions(self._text("SELECT name FROM system.table_functions").split())

    def close(self) -> None:
        """Flush and close the folder; no request may run any more."""
        self._keep.close()

    def _text(self, query: str) -> str:
        return bytes(self._keep.query(query, "TSV").bytes()).decode().strip()

    def run(self, user: User, statement: Statement, *, may_write: bool) -> Answer:
        """Run one statement. Raises `FrontError` with ClickHouse's code when the engine refuses it."""
        handle = chdb.connect(self._path)
        started = time.perf_counter_ns()
        try:
            self._prepare(handle, user, statement, may_write=may_write)
            with self.space.needed() if stores(statement.query) else nullcontext():
                result = self._result(handle, statement)
            return _answer(result, statement, started)
        except FrontError:
            raise
        except Exception as error:
            known = from_engine(error)  # chDB raises plain exceptions
            if known is None:
                raise
            raise known from None
        finally:
            handle.close()

    def merge(self, on: bool) -> None:
        """Merge parts in the background, or end what is being merged and begin nothing."""
        self._keep.query("SYSTEM START MERGES" if on else "SYSTEM STOP MERGES")

    def _result(self, handle: Any, statement: Statement) -> Any:
        """Run a statement; an INSERT with rows has them in a file.

        Not chDB's streaming `send_insert`: it reports rows as written when a constraint, a view or the disk refuses
        them at the end (4.4.0).
        """
        if not statement.insert_format:
            return handle.query(statement.query, statement.format, params=dict(statement.params))
        with self._spool.file(statement.data) as path:
            head, settings = statement.query, ""
            if found := _SETTINGS_AT_END.search(head):
                head, settings = head[: found.start()], found.group(0)
            text = f"{head} FROM INFILE {literal(str(path))} {settings} FORMAT {statement.insert_format}"
            return handle.query(text, params=dict(statement.params))

    def _prepare(self, handle: Any, user: User, statement: Statement, *, may_write: bool) -> None:
        handle.query("USE `" + statement.database.replace("\\", "\\\\").replace("`", "``") + "`")
        for name, value in {**statement.settings, **user.settings}.items():
            if user.readonly and name in statement.settings and name not in user.settings:
                readonly.check_setting(name)
            handle.query(f"SET {_checked(name)}={literal(value)}")
        if may_write and not user.readonly:
            return
        if statement.insert_format:
            raise FrontError(164, "Cannot execute query in readonly mode. (READONLY)")
        if user.readonly:
            shown = handle.query(f"SELECT formatQuerySingleLine({literal(statement.query)})", "RawBLOB")
            readonly.check_statement(bytes(shown.bytes()).decode(), self._unsafe)
        handle.query("SET readonly=1")  # last: after it no SET is possible


def _checked(name: str) -> str:
    if not _SETTING_NAME.fullmatch(name):
        raise FrontError(115, f"Unknown setting {name[:80]!r}. (UNKNOWN_SETTING)")
    return name


def _answer(result: Any, statement: Statement, started: int) -> Answer:
    body = bytes(result.bytes() or b"")
    clause = _FORMAT_AT_END.search(statement.query)  # a FORMAT clause wins over default_format
    summary = _summary(
        started,
        read_rows=result.storage_rows_read() or result.rows_read(),
        read_bytes=result.storage_bytes_read() or result.bytes_read(),
        written_rows=result.rows_written(),
        written_bytes=result.bytes_written(),
        result_rows=result.rows_read(),
        result_bytes=len(body),
    )
    named = clause.group(1) if clause else statement.format
    return Answer(body, named if _RETURNS_ROWS.match(statement.query) else "", summary)


def _summary(started: int, **figures: int) -> dict[str, int]:
    names = ("read_rows", "read_bytes", "written_rows", "written_bytes", "total_rows_to_read", "result_rows")
    zeros = dict.fromkeys((*names, "result_bytes"), 0)
    return {**zeros, **figures, "elapsed_ns": time.perf_counter_ns() - started}
