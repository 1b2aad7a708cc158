"""ClickHouse, thinly: inserts that may be repeated, queries with bound parameters, and two kinds of failure.

Every table is a set that survives a repeated insert, so no deduplication token is sent: after a crash batches are cut
elsewhere and a token would prove nothing. Methods block; several threads may call them at once (`asyncio.to_thread`).
"""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
import orjson
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, Error

from tollmeter.settings import Settings, SettingsError
from tollmeter.sinks.clickhouse.alive import answers
from tollmeter.sinks.clickhouse.codes import PASSING_CODES, ROW_CODES
from tollmeter.sinks.clickhouse.values import Misfit, check

# It logs each failure with a traceback; here every failure rises, and who catches it says so in one line.
logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)

_NULL_IS_NO_ZERO = {"input_format_null_as_default": 0}
"""NULL where a column takes none is refused, not stored as 0; to look for it takes a fifth of an insert's CPU."""
_NULL_IS_NO_DEFAULT = {"insert_null_as_default": 0}
"""The same of INSERT ... SELECT."""
_TYPES = "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {table:String}"


class Unavailable(Exception):  # noqa: N818 - a state, not a mistake
    """ClickHouse could not serve this now: unreachable, timed out, overloaded or not set up. Try again later."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


class Rejected(Exception):  # noqa: N818 - a verdict
    """ClickHouse will never accept this statement or these rows: `code` is its error number, the text its reason."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class ClickHouse:
    """One database on one server. Table names are unqualified: they are looked up in the configured database."""

    def __init__(self, client: Client, timeout_s: float, where: str) -> None:
        self._client = client
        self._where = where
        self._types: dict[str, dict[str, str]] = {}
        self._insert_settings = {
            "async_insert": 0,
            "insert_deduplicate": 0,  # else two honest identical batches may collapse
            "optimize_on_insert": 0,  # FINAL and merges find the newest of a key anyway: a third of an insert's CPU
            "min_free_disk_bytes_to_perform_insert": 64 << 20,  # an insert that meets a full disk may be half stored
            "throw_on_max_partitions_per_insert_block": 0,  # times gone wrong must not stop their neighbours
            "date_time_input_format": "best_effort",
            # Nothing becomes visible later than this after its `inserted_at`: the rollup's slack is longer.
            "max_execution_time": math.ceil(timeout_s),
        }

    def insert_arrow(self, table: str, ipc_stream: bytes, columns: Sequence[str]) -> None:
        """Insert one Arrow IPC stream; return when the rows are stored. Raises `Unavailable` or `Rejected`.

        Exactly one stream: of two streams joined as bytes ClickHouse silently reads the first only.
        """
        settings = self._insert_settings | _NULL_IS_NO_ZERO
        with self._errors(insert=True):
            self._client.raw_insert(table, columns, ipc_stream, settings=settings, fmt="ArrowStream")

    def insert_rows(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Insert a few rows of Python values (aware datetimes); no row, no request. Raises as `insert_arrow` does.

        What would be stored as another value than it is, is refused: all of the rows, then.
        """
        made = list(rows)
        if made:
            with self._errors(insert=True):
                self._check(table, columns, made)
                block = b"\n".join(map(orjson.dumps, made))
                settings = self._insert_settings
                self._client.raw_insert(table, columns, block, settings=settings, fmt="JSONCompactEachRow")

    def _check(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        known = self._types.get(table)
        try:
            check(known or self._read_types(table), columns, rows)
        except Misfit as problem:
            if known is None:
                raise Rejected(f"ClickHouse at {self._where}: table {table}: {problem}", problem.code) from None
            del self._types[table]  # the table may have changed since
            self._check(table, columns, rows)

    def _read_types(self, table: str) -> dict[str, str]:
        found = self._client.query(_TYPES, parameters={"table": table}).named_results()
        types = {row["name"]: row["type"] for row in found}
        if types:
            self._types[table] = types
        return types

    def query(self, sql: str, parameters: Mapping[str, object] | None = None) -> list[dict[str, Any]]:
        """Return all rows; `{name:Type}` in the text is bound by the server, never pasted. Datetimes are aware."""
        with self._errors():
            return list(self._client.query(sql, parameters=_bound(parameters)).named_results())

    def arrow(self, sql: str, parameters: Mapping[str, object] | None = None) -> bytes:
        """Return the rows as one Arrow IPC stream."""
        with self._errors():
            answer = self._client.raw_query(sql, parameters=_bound(parameters), fmt="ArrowStream")
            return bytes(answer)

    def native(self, sql: str, parameters: Mapping[str, object] | None = None) -> bytes:
        """Return the rows as ClickHouse itself writes them, for `insert_native`."""
        with self._errors():
            return bytes(self._client.raw_query(sql, parameters=_bound(parameters), fmt="Native"))

    def insert_native(self, table: str, block: bytes) -> None:
        """Insert what `native` gave, columns by their names. Raises as `insert_arrow` does."""
        if block:
            with self._errors(insert=True):
                settings = self._insert_settings | _NULL_IS_NO_ZERO
                self._client.raw_insert(table, None, block, settings=settings, fmt="Native")

    def answer(self, sql: str) -> str:
        """Return the one value that a statement answers which takes no format."""
        with self._errors():
            return str(self._client.command(sql))

    def command(self, sql: str, parameters: Mapping[str, object] | None = None) -> None:
        """Run a statement that returns no rows."""
        with self._errors():
            self._client.command(sql, parameters=_bound(parameters), settings=_NULL_IS_NO_DEFAULT)

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _errors(self, *, insert: bool = False) -> Iterator[None]:
        with _told_apart(self._where, insert=insert):
            yield


def connect(settings: Settings) -> ClickHouse:
    """Return a client of the configured database, which is created when missing. Raises `Unavailable`."""
    where = address(settings)
    with _told_apart(where):
        client = _client(settings, None)
        client.command(f"CREATE DATABASE IF NOT EXISTS {settings.clickhouse_database}")
        client.database = settings.clickhouse_database
    return ClickHouse(client, settings.clickhouse_timeout_s, where)


def connect_existing(settings: Settings) -> ClickHouse:
    """As `connect`, but creates nothing: a user who may only read can use it. Raises `Unavailable`, soon if it hangs.

    It is asked first whether it is there at all.
    """
    where = address(settings)
    if not answers(where):
        raise Unavailable(f"ClickHouse at {where} does not answer")
    with _told_apart(where):
        client = _client(settings, settings.clickhouse_database)
    return ClickHouse(client, settings.clickhouse_timeout_s, where)


def address(settings: Settings) -> str:
    """Return where ClickHouse is, as http(s)://HOST:PORT. Raises `SettingsError`."""
    settings.require_line()
    url = urlsplit(settings.clickhouse)
    try:
        port = url.port
    except ValueError:
        port = 0
    if url.scheme not in ("http", "https") or not url.hostname or port == 0 or url.username:
        raise SettingsError(
            "TOLLMETER_CLICKHOUSE: expected http://HOST:PORT or https://HOST:PORT "
            "(user and password are TOLLMETER_CLICKHOUSE_USER and _PASSWORD)"
        )
    return f"{url.scheme}://{url.hostname}:{port or (8443 if url.scheme == 'https' else 8123)}"


def _client(settings: Settings, database: str | None) -> Client:
    url = urlsplit(address(settings))
    return clickhouse_connect.get_client(
        interface=url.scheme,
        host=url.hostname,
        port=url.port,
        username=settings.clickhouse_user,
        password=settings.clickhouse_password.get_secret_value(),
        database=database,
        connect_timeout=math.ceil(min(settings.clickhouse_timeout_s, 10)),
        send_receive_timeout=math.ceil(settings.clickhouse_timeout_s) + 5,
        autogenerate_session_id=False,  # a session serves one thread at a time
        tz_mode="aware",
        show_clickhouse_errors=True,
    )


def _bound(parameters: Mapping[str, object] | None) -> dict[str, Any] | None:
    return dict(parameters) if parameters else None


@contextmanager
def _told_apart(where: str, *, insert: bool = False) -> Iterator[None]:
    """Turn the driver's errors into ours, by the server's numeric code alone."""
    try:
        yield
    except ClickHouseError as error:
        code = error.code if isinstance(error, Error) else None
        if code is None:
            raise Unavailable(f"ClickHouse at {where} does not answer") from error
        text = f"ClickHouse at {where}: {_reason(str(error))}"
        if code in ROW_CODES if insert else code not in PASSING_CODES:
            raise Rejected(text, code) from error
        raise Unavailable(text, code) from error


def _reason(text: str) -> str:
    """Return the server's own words in one line, for people; nothing is decided by them."""
    _, _, words = text.partition("server response: ")
    line = " ".join((words or text).split())
    return line.partition(" (for url ")[0][:500]
