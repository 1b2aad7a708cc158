"""Forget a user or an address: calls stay with all that counts, and lose who it was; a proof says what is left, where.

The ledger is changed by corrections on the log, so that live windows and budgets follow and a replay forgets again.
Whoever dies in between runs the command once more: calls that are done name nobody any more.
"""

import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import polars as pl

from tollmeter.admin import forget_topics
from tollmeter.admin.corrections import send
from tollmeter.admin.forget_topics import SCOPES, Named
from tollmeter.schemas import topics
from tollmeter.schemas.priced import DOUBLED_REVISION
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load, moment
from tollmeter.streams.rules.records.encode import PRICED_DTYPES
from tollmeter.streams.rules.windows.amend import Part, without_person

PAGE = 20_000
POLL_S = 0.3
REASON = "forgotten"
FIELDS = {"user": ("user_id", "client_ip", "session_id", "prompt_hash"), "ip": ("client_ip",)}
"""What a call loses. Ids of requests stay: they lead to the services' own logs."""
TABLES = ("ledger", "windows", "states", "alerts", "texts", "profiles", "policies")
"""What is taken out of ClickHouse, in this order: each has a statement of its name."""
PLACES = ("ledger", "windows", "alerts", "texts of alerts", "texts that people got", "profiles", "policies")
LOGS = ((topics.EVENTS, 7), (topics.PRICED, 7), (topics.DLQ, 30), (topics.ALERTS, 30))
"""Topics that keep what was sent until their retention, in days."""
COMPACTED = (topics.POLICIES, topics.SPEND, topics.NOTICES, topics.REGISTRY)
"""Topics without an end: a tombstone stands behind each record, which the broker takes out when it cleans the log."""
ELSEWHERE = (
    ("files of ClickHouse", "the tables' next merge: queries see nothing of it any more"),
    ("spools and logs of services", "whatever the services keep"),
)
"""What this command does not reach, and until when it stays."""


@dataclass(frozen=True)
class Person:
    """Who shall be forgotten: a user, or an address in its normal form; in one organisation or, "", in all."""

    what: Literal["user", "ip"]
    name: str
    org: str = ""

    @property
    def named(self) -> Named:
        """How keys and texts of topics name it."""
        return Named(SCOPES[self.what], self.name, self.org)

    def parameters(self) -> dict[str, object]:
        """Return what the queries ask for."""
        keys = {"name_key": forget_topics.escaped(self.name), "org_key": forget_topics.escaped(self.org)}
        return {"what": self.what, "name": self.name, "org_id": self.org, "word": self.named.re2, **keys}


@dataclass
class Proof:
    """What was done and what is left. The name itself is not in it: `subject` is its sha256."""

    subject: str
    what: str
    org: str
    at: str
    calls: int = 0
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    tombstones: dict[str, int] = field(default_factory=dict)
    """By compacted topic, how many records were taken away or rewritten."""
    left: dict[str, int] = field(default_factory=dict)
    remains: list[dict[str, str]] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether all that counts is as it was: totals, and the hash over the calls, of whatever was there before."""
        return self.before == self.after

    @property
    def done(self) -> bool:
        """Whether no table and no compacted topic names the subject."""
        return not any(self.left.values())


def forget(settings: Settings, client: ClickHouse, who: Person, wait_s: float, told: Callable[[int], None]) -> Proof:
    """Forget; return the proof. Raises `Unavailable`, `CorrectionError`, `PolicyError`, `RegistryError`, `BrokerError`.

    Rules about the name end first: what they count would be told anew. What guards are told goes last, when the windows
    have no calls of it any more.
    """
    now = datetime.now(UTC)
    subject = hashlib.sha256(f"{who.what}:{who.name}".encode()).hexdigest()
    proof = Proof(subject, who.what, who.org, now.isoformat(timespec="seconds"), before=_totals(client, who, now))
    proof.tombstones = forget_topics.forget(settings, who.named)
    while (rows := _page(client, who)).height:
        send(settings, _parts(rows, without_person(rows, FIELDS[who.what])), REASON)
        proof.calls += rows.height
        told(rows.height)
        if not _until(lambda: not _page(client, who, 1).height or _first_gone(client, who, rows), wait_s):
            break
    _until(lambda: not any(left(client, who)[place] for place in ("calls of the windows", "policies in force")), wait_s)
    for place in TABLES:
        if place != "ledger" or not _page(client, who, 1).height:
            client.command(load(f"forget_{place}"), who.parameters())
    proof.tombstones[topics.SPEND] += forget_topics.forget_spend(settings, who.named)
    _until(lambda: not any(forget_topics.left(settings, who.named).values()), wait_s)
    proof.after, proof.left = _totals(client, who, now), count(settings, client, who)
    proof.remains = _remains(settings, now)
    return proof


def _remains(settings: Settings, now: datetime) -> list[dict[str, str]]:
    kept = [(settings.topic(topic), f"{(now + timedelta(days=days)).date()}") for topic, days in LOGS]
    cleaned = [
        (settings.topic(topic), "the broker cleans the log: a week at most, as Kafka is set") for topic in COMPACTED
    ]
    return [{"where": where, "until": until} for where, until in (*kept, *cleaned, *ELSEWHERE)]


def count(settings: Settings, client: ClickHouse, who: Person) -> dict[str, int]:
    """Return in how many rows of each table and records of each compacted topic the subject is named."""
    found = left(client, who)
    return {**{place: found[place] for place in PLACES}, **forget_topics.left(settings, who.named)}


def left(client: ClickHouse, who: Person) -> dict[str, int]:
    """Return what still names the subject."""
    return {row["place"]: row["rows"] for row in client.query(load("forget_left"), who.parameters())}


def _page(client: ClickHouse, who: Person, page: int = PAGE) -> pl.DataFrame:
    asked = {**who.parameters(), "most": DOUBLED_REVISION - 1, "page": page}
    rows = pl.read_ipc_stream(io.BytesIO(client.arrow(load("forget_rows"), asked))).rename({"id": "event_id"})
    return rows.select(pl.col(name).cast(kind) for name, kind in PRICED_DTYPES.items())


def _parts(was: pl.DataFrame, now: pl.DataFrame) -> list[Part]:
    orgs = was["org_id"].unique(maintain_order=True).to_list()
    return [Part(org, was.filter(was["org_id"] == org), now.filter(now["org_id"] == org)) for org in orgs]


def _first_gone(client: ClickHouse, who: Person, rows: pl.DataFrame) -> bool:
    """Tell whether what was sent is stored: the calls of the next page are others."""
    following = _page(client, who)
    return not following["event_id"].is_in(rows["event_id"].implode()).any()


def _totals(client: ClickHouse, who: Person, before: datetime) -> dict[str, Any]:
    return client.query(load("forget_totals"), {"org_id": who.org, "before": moment(before)})[0]


def _until(holds: Callable[[], bool], wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True
