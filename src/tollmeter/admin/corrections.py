"""Corrections: rows of the ledger and what shall replace them go to the organisation's own partition, as one record.

Nothing is written in place. Repeated, a correction is the same revision again, of which the first in the log counts.
What moves to another organisation is there before it is gone here: whoever dies in between leaves it counted twice,
which `verify` names, and repeating the command completes it.
"""

import asyncio
import io
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import polars as pl
from aiokafka.errors import KafkaError

from tollmeter.broker.client import BrokerAway, kafka_producer
from tollmeter.broker.layout import ProvisionError, read_layout
from tollmeter.schemas import topics
from tollmeter.schemas.priced import IDENTITY, VOID
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load, moment
from tollmeter.streams.rules.records.encode import PRICED_DTYPES
from tollmeter.streams.rules.windows.amend import (
    STATED,
    AmendError,
    Amendment,
    Part,
    Price,
    Row,
    amend,
    changed,
    records,
    same,
    void,
)

IDS_ASKED = 1_000
POLL_S, LONGEST_POLL_S = 0.2, 2.0
ALWAYS = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))
Identity = tuple[Any, ...]


class CorrectionError(Exception):
    """The correction could not be made durable; the text says why and what to do."""


class Place(NamedTuple):
    """Which of several calls of one id is meant; what is None says nothing."""

    org_id: str | None = None
    event_time: datetime | None = None


@dataclass(frozen=True)
class Plan:
    """What to send, in this order, and the calls that change: rows as they are and as they shall be."""

    parts: tuple[Part, ...] = ()
    was: tuple[Row, ...] = ()
    now: tuple[Row, ...] = ()
    fields: tuple[tuple[str, ...], ...] = ()
    unchanged: int = 0
    revisions: Mapping[Identity, Row] = field(default_factory=dict)
    """What each identity shall be in the ledger, empty rows of moved calls included."""


def stored(client: ClickHouse, ids: Sequence[str], span: tuple[datetime, datetime] = ALWAYS) -> pl.DataFrame:
    """Return the ledger's rows of these ids in contract columns, text as text, from the first to the last of `span`.

    Without a span the whole ledger is looked through. Raises `Unavailable`.
    """
    frames = [pl.DataFrame(schema=PRICED_DTYPES)]
    first, last = map(moment, span)
    for begin in range(0, len(ids), IDS_ASKED):
        asked = {"ids": list(ids[begin : begin + IDS_ASKED]), "first": first, "last": last}
        answer = client.arrow(load("correct_rows"), asked)
        found = pl.read_ipc_stream(io.BytesIO(answer)).rename({"id": "event_id"})
        frames.append(found.select(pl.col(name).cast(kind) for name, kind in PRICED_DTYPES.items()))
    return pl.concat(frames)


def is_known(client: ClickHouse, price_book: str) -> bool:
    """Tell whether PRICE has published this price book, so that everybody can look up its rules."""
    return bool(client.query(load("correct_book"), {"price_book": price_book}))


def plan(rows: pl.DataFrame, ids: Sequence[str], at: Place, amendment: Amendment, price: Price) -> Plan:
    """Work out what to send. `rows`: what the ledger has of these ids. Raises `AmendError`."""
    target = amendment.fields.get("org_id")
    chosen = _chosen(rows, ids, at, target)
    now = amend(chosen, amendment, price)
    pairs = list(zip(chosen.iter_rows(named=True), now.iter_rows(named=True), strict=True))
    differs = [changed(before, after, amendment) for before, after in pairs]
    kept = pl.Series([bool(names) for names in differs], dtype=pl.Boolean)
    was, now = chosen.filter(kept), now.filter(kept)
    moved = was["org_id"] != now["org_id"]
    emptied = pl.concat([void(was.filter(moved)), now.filter(~moved)])
    parts = _arrivals(now.filter(moved), rows) if moved.any() else []
    parts += _by_org(pl.concat([was.filter(moved), was.filter(~moved)]), emptied)
    wanted = {identity(row): row for part in parts for row in part.now.iter_rows(named=True)}
    return Plan(
        tuple(parts),
        tuple(was.iter_rows(named=True)),
        tuple(now.iter_rows(named=True)),
        tuple(names for names in differs if names),
        len(pairs) - was.height,
        wanted,
    )


def identity(row: Row) -> Identity:
    return tuple(row[name] for name in IDENTITY)


def _chosen(rows: pl.DataFrame, ids: Sequence[str], at: Place, target: str | None) -> pl.DataFrame:
    """Return one row for each id: the one that is meant."""
    by_id: dict[str, list[int]] = {event_id: [] for event_id in ids}
    known = list(rows.select("event_id", "org_id", "event_time", "status").rows())
    for number, (event_id, org, when, _) in enumerate(known):
        if event_id in by_id and at.org_id in (None, org) and at.event_time in (None, when):
            by_id[event_id].append(number)
    picked = []
    for event_id, numbers in by_id.items():
        if not numbers:
            raise AmendError(f"no call {event_id} is in the ledger{_named(at)}")
        # What is void, or has arrived already, is meant only if nothing else can be.
        live = [number for number in numbers if known[number][3] != VOID] or numbers
        here = [number for number in live if known[number][1] != target] or live
        if len(here) > 1:
            places = "; ".join(f"--org {known[n][1]} --time {known[n][2].isoformat()}" for n in here)
            raise AmendError(f"call {event_id} is in the ledger {len(here)} times: say which with {places}")
        picked.append(here[0])
    return rows[picked]


def _named(at: Place) -> str:
    org = f" of organisation {at.org_id}" if at.org_id is not None else ""
    return org + (f" at {at.event_time.isoformat()}" if at.event_time is not None else "")


def _arrivals(now: pl.DataFrame, rows: pl.DataFrame) -> list[Part]:
    """Return the rows that enter another organisation, where an empty row of an earlier move may stand."""
    there = {identity(row): row for row in rows.iter_rows(named=True)}
    fresh, again, again_was = [], [], []
    for number, row in enumerate(now.iter_rows(named=True)):
        known = there.get(identity(row))
        if known is None:
            fresh.append(number)
        elif known["status"] == VOID:
            again.append(number)
            again_was.append(known)
        elif not same(known, row, STATED):
            raise AmendError(f"organisation {row['org_id']} has another call {row['event_id']} at that time already")
    parts = [Part(str(org), part.clear(), part) for (org,), part in now[fresh].group_by("org_id", maintain_order=True)]
    if again:
        was = pl.DataFrame(again_was, schema=PRICED_DTYPES, orient="row")
        parts += _by_org(was, now[again].with_columns((was["revision"] + 1).alias("revision")))
    return parts


def _by_org(was: pl.DataFrame, now: pl.DataFrame) -> list[Part]:
    parts = []
    for org in now["org_id"].unique(maintain_order=True).to_list():
        mine = now["org_id"] == org
        parts.append(Part(org, was.filter(mine), now.filter(mine)))
    return parts


def send(settings: Settings, parts: Iterable[Part], reason: str) -> None:
    """Return when every record is acknowledged by all brokers, one after the other. Raises `CorrectionError`."""
    with saying(settings):
        asyncio.run(send_all(settings, list(parts), reason))


@contextmanager
def saying(settings: Settings) -> Iterator[None]:
    """Say in one line why corrections could not be sent. Raises `CorrectionError`."""
    try:
        yield
    except (KafkaError, OSError) as error:
        raise CorrectionError(
            f"{BrokerAway(settings, error)}, then repeat the command: what was sent already counts once"
        ) from None
    except ProvisionError as error:
        raise CorrectionError(str(error)) from None


async def send_all(settings: Settings, parts: Sequence[Part], reason: str) -> None:
    """Return when every record is acknowledged. Raises `KafkaError`, `OSError`, `ProvisionError`."""
    layout = await read_layout(settings)
    topic, correction_id = settings.topic(topics.PRICED), uuid.uuid4().hex
    async with kafka_producer(settings) as producer:
        for part in parts:
            partition = topics.org_partition(part.org_id, layout.priced)
            sent = [
                await producer.send(topic, value, partition=partition, headers=headers)
                for value, headers in records(part, correction_id, reason)
            ]
            await asyncio.gather(*sent)  # a part is there before the next one begins


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether the ledger has every revision, and what stands there that is not ours."""

    stored: bool
    conflicts: tuple[str, ...] = ()


def await_stored(client: ClickHouse, sent: Plan, wait_s: float) -> Outcome:
    """Return when the ledger has what was sent, or the time is over. Raises `Unavailable`."""
    deadline, pause = time.monotonic() + wait_s, POLL_S
    ids = sorted({row["event_id"] for row in sent.revisions.values()})
    times = [row["event_time"] for row in sent.revisions.values()]
    while True:
        rows = stored(client, ids, (min(times), max(times))) if times else stored(client, ids)
        found = {identity(row): row for row in rows.iter_rows(named=True)}
        late = [
            key for key, row in sent.revisions.items() if key not in found or found[key]["revision"] < row["revision"]
        ]
        if not late or time.monotonic() >= deadline:
            return Outcome(not late, () if late else tuple(_conflicts(sent, found)))
        time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(2 * pause, LONGEST_POLL_S)


def _conflicts(sent: Plan, found: Mapping[Identity, Row]) -> Iterable[str]:
    """Say where another correction came first, or moved the same call elsewhere at the same time."""
    for key, row in sent.revisions.items():
        there = found[key]
        if not same(row, there):
            yield (
                f"call {row['event_id']} of {row['org_id']}: another correction came first, the ledger has "
                f"revision {there['revision']} (user {there['user_id']}, {there['status']}, "
                f"{there['cost_nano']} nano-USD)"
            )
    for row in sent.now:
        places = sorted(
            {
                other["org_id"]
                for key, other in found.items()
                if (key[0], key[2]) == (row["event_time"], row["event_id"]) and other["status"] != VOID
            }
        )
        if len(places) > 1 and row["org_id"] in places:
            yield (
                f"call {row['event_id']} stands under {' and '.join(places)}, counted {len(places)} times: take back "
                f"what is wrong, for example with --org {row['org_id']} --void"
            )
