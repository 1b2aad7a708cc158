"""Names of provider keys beside their ids: the organisation's own, else the one for all of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tollmeter.admin.reports.rows import NAMES, Row
from tollmeter.schemas.access import EVERYONE
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load


class Named(NamedTuple):
    """What people call a key."""

    label: str
    owner: str
    cost_centre: str


NOBODY = Named("", "", "")


class Labels:
    """All names of keys that one reader may see."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._of: dict[tuple[str, str], Named] = {}
        self._anywhere: dict[str, set[Named]] = {}
        for row in rows:
            named = Named(*(row[name] for name in NAMES))
            self._of[row["org_id"], row["api_key_id"]] = named
            self._anywhere.setdefault(row["api_key_id"], set()).add(named)

    def of(self, api_key_id: str, org: str | None) -> Named:
        """Return the name of a key's calls; without an organisation, of those of all: only what all call it."""
        if org is None:
            found = self._anywhere.get(api_key_id, {NOBODY})
            return next(iter(found)) if len(found) == 1 else NOBODY
        return self._of.get((org, api_key_id)) or self._of.get((EVERYONE, api_key_id)) or NOBODY


def labels(ledger: ClickHouse, orgs: Sequence[str] = ()) -> Labels:
    """Return the names that the calls of organisations get, or of all. Raises `Unavailable`."""
    return Labels(ledger.query(load("key_labels"), {"orgs": list(orgs)}))


def name_keys(ledger: ClickHouse, rows: list[Row], orgs: Sequence[str] = ()) -> list[Row]:
    """Return rows with the names of their keys; a label that a row has stays. Raises `Unavailable`."""
    known = labels(ledger, orgs) if any(row.get("api_key_id") for row in rows) else Labels(())
    named = []
    for row in rows:
        names = known.of(row.get("api_key_id", ""), row.get("org_id") or (orgs[0] if orgs else None))
        named.append({**row, **names._asdict(), "label": row.get("label") or names.label})
    return named
