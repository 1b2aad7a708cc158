"""How commands read the ledger: one connection, failures as one line that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from tollmeter.cli.output import UserError
from tollmeter.settings import Settings, SettingsError
from tollmeter.sinks.clickhouse.client import ClickHouse, Rejected, Unavailable, connect_existing

_NOT_SET_UP = {60, 81}  # no such table, no such database


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
