"""Databases of older meters, read only: the rows of the tables that are known, each with its place."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from tollmeter.producers.imports.old_tables import TABLES

MAGIC = b"SQLite format 3\0"
Entry = tuple[str, dict[str, Any]]


def is_database(path: str) -> bool:
    """Tell whether a file is an SQLite database. Raises `OSError`."""
    if path == "-":
        return False
    with Path(path).open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_database(path: str) -> Iterator[Entry]:
    """Yield the rows of the known tables. Raises `sqlite3.Error`, and `LookupError` when there is no such table."""
    with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)) as database:
        database.text_factory = lambda data: data.decode("utf-8", "replace")
        database.row_factory = sqlite3.Row
        found = [row["name"] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        known = [name for name in TABLES[::-1] if name in found]
        if not known:
            others = ", ".join(sorted(found)[:10]) or "none"
            raise LookupError(f"none of the tables {', '.join(TABLES)} is in it (its tables: {others})")
        for table in known:
            for number, row in enumerate(database.execute(f'SELECT * FROM "{table}"'), 1):  # noqa: S608 - of a list
                yield f"{table} row {number}", dict(row)
