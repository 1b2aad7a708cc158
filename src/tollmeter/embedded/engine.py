"""One process owns the chDB folder; each request runs on a handle of its own, so that no setting leaks to another."""

import re
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tollmeter.embedded import readonly
from tollmeter.embedded.errors import FrontError, from_engine
from tollmeter.embedded.insert_file import Spool
from tollmeter.embedded.reader_lists import check_database, check_format
from tollmeter.embedded.reader_names import Names
from tollmeter.embedded.reader_settings import reader_settings
from tollmeter.embedded.space import Space
from tollmeter.embedded.sql_tokens import literal, quoted_name
from tollmeter.embedded.statement import Statement

_SETTING_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_STORES = re.compile(r"(?>\s+|--[^\n]*\n|/\*.*?\*/)*+INSERT\b", re.IGNORECASE | re.DOTALL)
_RETURNS_ROWS = re.compile(r"\s*\(*\s*(WITH|SELECT|SHOW|DESC|DESCRIBE|EXISTS|EXPLAIN|VALUES)\b", re.IGNORECASE)
_SETTINGS_AT_END = re.compile(r"\bSETTINGS\b(?:[^'`]|'(?:[^'\\]|\\.)*')*$", re.IGNORECASE | re.DOTALL)
_FORMAT_AT_END = re.compile(r"\bFORMAT\s+(\w+)\s*(?:SETTINGS\b[^']*)?;?\s*$", re.IGNORECASE | re.ASCII)
_TAIL = 1_000
"""Characters at the end of a statement in which its FORMAT is looked for."""
_SERVER = "?memory_worker_period_ms=500"
"""ClickHouse looks at its own memory twenty times a second by default, which costs 0.2 % of a core for ever."""
_LEAVES_TABLES = re.compile(r"\s*\(*\s*(INSERT|SELECT|SHOW|DESC|DESCRIBE|EXISTS|EXPLAIN)\b", re.IGNORECASE)
"""What makes, changes and drops no table or view."""


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


def stores(query: str) -> bool:
    """Tell whether a statement stores rows, behind whatever comments it begins with."""
    return bool(_STORES.match(query))


class Engine:
    """The open chDB folder."""

    def __init__(self, folder: Path) -> None:
        import chdb  # here, as it starts threads: those of a process that was confined before are confined, too

        self._connect = chdb.connect
        self._path = str(folder)
        self._spool = Spool(folder)
        self.space = Space(self._path)
        self._keep = chdb.connect(self._path + _SERVER)  # keeps the database open: merges, refreshable views
        self.version = self._text("SELECT version()")
        self.timezone = self._text("SELECT timezone()")
        self._names = Names(self._text)

    def close(self) -> None:
        """Flush and close the folder; no request may run any more."""
        self._keep.close()

    def _text(self, query: str) -> str:
        return bytes(self._keep.query(query, "TSV").bytes()).decode().strip()

    def run(self, user: User, statement: Statement, *, may_write: bool) -> Answer:
        """Run one statement. Raises `FrontError` with ClickHouse's code when the engine refuses it."""
        started = time.perf_counter_ns()
        try:
            if user.readonly:
                statement = self._judged(user, statement)
            handle = self._connect(self._path)
            try:
                _prepare(handle, user, statement, may_write=may_write)
                with self.space.needed() if stores(statement.query) else nullcontext():
                    result = self._result(handle, statement)
                return _answer(result, statement, started)
            finally:
                handle.close()
                if not user.readonly and not _LEAVES_TABLES.match(statement.query):
                    self._names.forget()
        except FrontError:
            raise
        except Exception as error:
            known = from_engine(error)  # chDB raises plain exceptions
            if known is None:
                raise
            raise known from None

    def _judged(self, user: User, statement: Statement) -> Statement:
        """Return the statement as a reader may run it. Raises `FrontError`."""
        if statement.insert_format:
            raise FrontError(164, "Cannot execute query in readonly mode. (READONLY)")
        check_database(statement.database)
        check_format(statement.format)
        settings = reader_settings(statement.settings, user.settings)
        query = readonly.judge(statement.query, self._names.forbidden())
        return replace(statement, query=query, settings=settings)

    def merge(self, on: bool) -> None:
        """Merge parts in the background, or end what is being merged and begin nothing."""
        self._keep.query("SYSTEM START MERGES" if on else "SYSTEM STOP MERGES")

    def _result(self, handle: Any, statement: Statement) -> object:
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


def _prepare(handle: Any, user: User, statement: Statement, *, may_write: bool) -> None:
    handle.query("USE " + quoted_name(statement.database))
    settings = {**statement.settings, **user.settings}
    if settings:  # in one statement: each costs a sixth of a millisecond
        handle.query("SET " + ", ".join(f"{_checked(name)}={literal(value)}" for name, value in settings.items()))
    if may_write and not user.readonly:
        return
    if statement.insert_format:
        raise FrontError(164, "Cannot execute query in readonly mode. (READONLY)")
    handle.query("SET readonly=1")  # last: after it no SET is possible


def _checked(name: str) -> str:
    if not _SETTING_NAME.fullmatch(name):
        raise FrontError(115, f"Unknown setting {name[:80]!r}. (UNKNOWN_SETTING)")
    return name


def _answer(result: Any, statement: Statement, started: int) -> Answer:
    body = bytes(result.bytes() or b"")
    clause = _FORMAT_AT_END.search(statement.query[-_TAIL:])  # a FORMAT clause wins over default_format
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
