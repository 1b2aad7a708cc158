"""Brings a database to the newest schema: numbered files of one statement each, applied once, in order, resumable.

What a file was about and is not there any more is made again by it and by those after it. A file is recorded by the
checksum of its text before retention is filled in, so another retention is not another schema: it changes the
TTL. Two set-ups at once do no harm, since every statement is IF NOT EXISTS.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources

from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, Unavailable, connect, connect_existing
from tollmeter.sinks.clickhouse.codes import UNKNOWN_DATABASE

FIRST = "0001_schema_migrations"
_ABOUT = re.compile(r"^(?:CREATE (?:OR REPLACE )?(?:TABLE|VIEW)(?: IF NOT EXISTS)?|ALTER TABLE) (\w+)", re.MULTILINE)


class SchemaError(Exception):
    """The database and the migration files contradict each other; the text says where and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. `retention` names the setting whose days stand in its TTL, "" when it has none."""

    name: str
    template: str

    @property
    def checksum(self) -> str:
        return sha256(self.template.encode()).hexdigest()

    @property
    def retention(self) -> str:
        found = re.search(r"\{(retention_\w+_days)\}", self.template)
        return found[1] if found else ""

    @property
    def table(self) -> str:
        return self.name.partition("_")[2]

    @property
    def about(self) -> str:
        """The table or view that its statement makes or changes."""
        found = _ABOUT.search(self.template)
        return found[1] if found else ""

    def statement(self, settings: Settings) -> str:
        """Return the text with its retention filled in: a positive integer by the settings' own type."""
        if not self.retention:
            return self.template
        return self.template.replace(f"{{{self.retention}}}", str(int(getattr(settings, self.retention))))


def migrations() -> list[Migration]:
    """Return the files in order."""
    folder = resources.files(__package__) / "sql"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [Migration(file.name.removesuffix(".sql"), file.read_text(encoding="utf-8")) for file in files]


def apply(settings: Settings) -> list[str]:
    """Apply what is missing and return what was done. Raises `SchemaError`, `Unavailable`, `Rejected`."""
    client = connect(settings)
    try:
        steps = migrations()
        client.command(next(step for step in steps if step.name == FIRST).statement(settings))
        missing = _missing(client, steps)
        _record(client, missing, "in_progress")
        for step in missing:
            client.command(step.statement(settings))
        _record(client, missing, "completed")  # at once: of a run that dies every step is taken again
        done = [step.name for step in missing]
        for step, days in _outdated_retention(_tables(client), steps, settings):
            client.command(f"ALTER TABLE {step.table} MODIFY TTL {_ttl(step, settings)}")
            done.append(f"{step.table}: keep {days} days")
        return done
    finally:
        client.close()


class Mender:
    """Makes again what is gone, and keeps rows as long as its settings say, whoever was here with others.

    Asked again and again, it keeps its connection and asks two questions each time.
    """

    def __init__(self) -> None:
        self._client: ClickHouse | None = None
        self._steps = migrations()

    def __call__(self, settings: Settings) -> list[str]:
        """Apply what is missing and return the tables and views that had been there and were gone, in order.

        Raises as `apply` does.
        """
        try:
            self._client = self._client or connect_existing(settings)
            gone, whole = self._look(self._client, settings)
        except Unavailable as error:
            self._forget()
            if error.code != UNKNOWN_DATABASE:
                raise
            gone, whole = list(dict.fromkeys(step.about for step in self._steps)), False
        if not whole:
            self._forget()
            apply(settings)
        return gone

    def _look(self, client: ClickHouse, settings: Settings) -> tuple[list[str], bool]:
        """Return what completed steps made and is not there, and whether nothing is left to do."""
        there = _tables(client)
        if "schema_migrations" not in there:
            return ["schema_migrations"], False
        rows = client.query("SELECT name FROM schema_migrations FINAL WHERE status = 'completed'")
        done = {row["name"] for row in rows}
        gone = [step.about for step in self._steps if step.name in done and step.about not in there]
        whole = not gone and all(step.name in done for step in self._steps)
        return list(dict.fromkeys(gone)), whole and not _outdated_retention(there, self._steps, settings)

    def _forget(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _tables(client: ClickHouse) -> dict[str, str]:
    """Return the engine of every table and view of the database."""
    rows = client.query("SELECT name, engine_full FROM system.tables WHERE database = currentDatabase()")
    return {row["name"]: row["engine_full"] for row in rows}


def pending(settings: Settings) -> list[str]:
    """Return what `apply` would do; nothing is changed. Raises as `apply` does."""
    steps = migrations()
    try:
        client = connect_existing(settings)
    except Unavailable as error:
        if error.code == UNKNOWN_DATABASE:
            return [step.name for step in steps]
        raise
    try:
        if not client.query("EXISTS TABLE schema_migrations")[0]["result"]:
            return [step.name for step in steps]
        outdated = _outdated_retention(_tables(client), steps, settings)
        return [step.name for step in _missing(client, steps)] + [
            f"{step.table}: keep {days} days" for step, days in outdated
        ]
    finally:
        client.close()


def _missing(client: ClickHouse, steps: list[Migration]) -> list[Migration]:
    rows = client.query("SELECT name, checksum, status FROM schema_migrations FINAL ORDER BY name")
    recorded = {row["name"]: row for row in rows}
    unknown = sorted(recorded.keys() - {step.name for step in steps})
    if unknown:
        raise SchemaError(
            f"the database has migration {unknown[0]}, which this version does not know: run a newer tollmeter"
        )
    missing, there = [], _tables(client)
    for step in steps:
        row = recorded.get(step.name)
        if row is None or row["status"] != "completed" or step.about not in there:
            missing.append(step)
        elif row["checksum"] != step.checksum:
            raise SchemaError(
                f"migration {step.name} was applied from another text: restore that file and put the change "
                "into a new numbered one"
            )
    return missing


def _record(client: ClickHouse, steps: list[Migration], status: str) -> None:
    rows = [(step.name, step.checksum, status) for step in steps]
    client.insert_rows("schema_migrations", ("name", "checksum", "status"), rows)


def _outdated_retention(
    engines: Mapping[str, str], steps: list[Migration], settings: Settings
) -> list[tuple[Migration, int]]:
    """Return the tables whose days differ from the settings. Tables that are not there yet get them when created."""
    outdated = []
    for step in steps:
        if step.retention and step.table in engines:
            kept = re.search(r"toIntervalDay\((\d+)\)", engines[step.table])
            days = int(getattr(settings, step.retention))
            if kept is None or int(kept[1]) != days:
                outdated.append((step, days))
    return outdated


def _ttl(step: Migration, settings: Settings) -> str:
    """Return the TTL expression of a file: the rest of the line that starts with it."""
    lines = step.statement(settings).splitlines()
    return next(line.removeprefix("TTL ") for line in lines if line.startswith("TTL "))
