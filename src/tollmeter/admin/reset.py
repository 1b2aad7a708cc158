"""Takes back all calls of an organisation by corrections: totals are 0 afterwards, and the log keeps what was."""

from collections.abc import Sequence

import polars as pl

from tollmeter.admin.corrections import send, stored
from tollmeter.schemas.priced import VOID
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.rules.windows.amend import Part, void

PAGE = 1_000


def reset(settings: Settings, ledger: ClickHouse, orgs: Sequence[str], reason: str) -> int:
    """Return how many calls were taken back; each is on the log then. Raises `CorrectionError`, `Unavailable`.

    Calls that arrive meanwhile may stay. Repeated, it takes back what is left.
    """
    after, taken = "", 0
    while True:
        rows = ledger.query(load("reset_page"), {"orgs": list(orgs), "after": after, "page": PAGE})
        if not rows:
            return taken
        ids = [row["id"] for row in rows]
        was = stored(ledger, ids).filter(pl.col("org_id").is_in(list(orgs)) & (pl.col("status") != VOID))
        now = void(was)
        for org in was["org_id"].unique(maintain_order=True).to_list():
            mine = was["org_id"] == org
            send(settings, [Part(org, was.filter(mine), now.filter(mine))], reason)
        after, taken = ids[-1], taken + was.height
