"""How commands read the ledger: one connection, failures as one line that says what to do, values ready for JSON."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from tollmeter.cli.output import UserError
from tollmeter.settings import Settings, SettingsError
from tollmeter.sinks.clickhouse.client import ClickHouse, Rejected, Unavailable, connect_existing

_NOT_SET_UP = {60, 81}  # no such table, no such database

ALL = 2**32 - 1
"""As a LIMIT: everything."""


@contextmanager
def reading(settings: Settings) -> Iterator[ClickHouse]:
    """Open the ledger for the queries of one command. Raises `UserError` when it cannot be read."""
    try:
        client = connect_existing(settings)
        try:
            yield client
        finally:
            client.close()
    except SettingsError as error:
        raise UserError(str(error)) from None
    except Unavailable as error:
        if error.code in _NOT_SET_UP:
            raise UserError(
                f"database {settings.clickhouse_database} on {settings.clickhouse} is not set up: run 'tollmeter setup'"
            ) from None
        todo = "" if error.code else ": start it with 'tollmeter up', or set TOLLMETER_CLICKHOUSE to a server that runs"
        raise UserError(f"{error}{todo}") from None
    except Rejected as error:
        raise UserError(f"{error} (run 'tollmeter setup' if the schema is older than this version)") from None


def plain(row: Mapping[str, object]) -> dict[str, Any]:
    """Return a row as JSON carries it: money as a number, times as text in UTC."""
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    return value
