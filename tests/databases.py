"""Databases for tests: one that a test has left as it was made is emptied and used again, since making one is slow."""

import uuid
from typing import Any

from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse import migrate
from tollmeter.sinks.clickhouse.client import ClickHouse, Rejected, Unavailable, connect

_SHAPE = (
    "SELECT name, replaceAll(create_table_query, currentDatabase(), '') AS made FROM system.tables "
    "WHERE database = currentDatabase() ORDER BY name"
)
_APPLIED = "SELECT name, checksum, status FROM schema_migrations FINAL ORDER BY name"
_FILLED = (
    "SELECT DISTINCT table FROM system.parts "
    "WHERE database = currentDatabase() AND active AND table != 'schema_migrations'"
)
_AT_WORK = (
    "SELECT count() AS n FROM system.processes WHERE current_database = currentDatabase() AND query_id != queryID()"
)


class Databases:
    """Those of one server, all with the newest schema and the same retention."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._free: list[str] = []
        self._shape: list[dict[str, Any]] = []

    def take(self) -> str:
        """Return the name of an empty database that nobody else has."""
        if self._free:
            return self._free.pop()
        name = f"db_{uuid.uuid4().hex[:10]}"
        settings = self.settings.model_copy(update={"clickhouse_database": name})
        migrate.apply(settings)
        if not self._shape:
            client = connect(settings)
            self._shape = _shape(client)
            client.close()
        return name

    def give_back(self, name: str) -> None:
        """Empty a database for the next test; one that was changed, or is still being written, is left alone."""
        try:
            client = connect(self.settings.model_copy(update={"clickhouse_database": name}))
            try:
                if _shape(client) != self._shape or client.query(_AT_WORK)[0]["n"]:
                    return
                for row in client.query(_FILLED):
                    client.command(f"TRUNCATE TABLE {row['table']} SYNC")
                self._free.append(name)
            finally:
                client.close()
        except (Rejected, Unavailable):
            return


def _shape(client: ClickHouse) -> list[dict[str, Any]]:
    """What a database is made of, whatever lies in it."""
    return [*client.query(_SHAPE), *client.query(_APPLIED)]
