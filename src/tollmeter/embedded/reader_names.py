"""Names that a reader may not even mention: functions on no list, and tables and views that lead outside."""

import json
import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

from tollmeter.embedded.errors import FrontError
from tollmeter.embedded.reader_lists import SYSTEM, is_function
from tollmeter.embedded.readonly import judge

_ENGINES = frozenset({"View", "MaterializedView", "Memory", "Null"})
_RELATIONS = "SELECT database, name, engine, as_select FROM system.tables FORMAT JSONCompactEachRow"
Relation: TypeAlias = tuple[str, str, str, str]
"""Database, name, engine and, of a view, its query."""


def forbidden_relations(relations: Sequence[Relation], forbidden: frozenset[str]) -> frozenset[str]:
    """Return the lower-case names of the tables of other engines than MergeTree's, and of views that read more than a
    reader may, directly or through such a view or table.
    """
    bad = {name.lower() for _, name, engine, _ in relations if not (engine.endswith("MergeTree") or engine in _ENGINES)}
    views = [(name.lower(), query) for _, name, _, query in relations if query]
    while True:
        found = {name for name, query in views if name not in bad and not _readable(query, forbidden | bad)}
        if not found:
            return frozenset(bad)
        bad |= found


def _readable(query: str, forbidden: frozenset[str]) -> bool:
    try:
        judge(query, forbidden)
    except FrontError:
        return False
    return True


class Names:
    """The forbidden names of one engine; those of tables are read anew after whatever may have changed them."""

    def __init__(self, ask: Callable[[str], str]) -> None:
        self._ask = ask
        names = ask("SELECT name FROM system.functions").split()
        self._functions = frozenset(name.lower() for name in names if not is_function(name))
        self._lock = threading.Lock()
        self._changes = 0
        self._known: tuple[int, frozenset[str]] = (-1, frozenset())

    def forget(self) -> None:
        """Tables or views may be others from now on."""
        self._changes += 1

    def forbidden(self) -> frozenset[str]:
        """Return all forbidden names in lower case."""
        with self._lock:
            changes = self._changes
            if self._known[0] != changes:
                rows = [json.loads(line) for line in self._ask(_RELATIONS).splitlines()]
                relations = [(row[0], row[1], row[2], row[3]) for row in rows if row[0].lower() not in SYSTEM]
                self._known = (changes, self._functions | forbidden_relations(relations, self._functions))
            return self._known[1]
