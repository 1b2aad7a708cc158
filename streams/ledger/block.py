"""One pass of LEDGER, read: its rows joined and encoded for one insert, and everything else it has to write."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import polars as pl
from faust.types import TP

from tollmeter.schemas import topics
from tollmeter.schemas.envelope import Broken, Corrected, Envelope, Newer, Rows, read_envelope
from tollmeter.schemas.record import UNREADABLE, Delivery, Place, Record
from tollmeter.settings import Settings
from tollmeter.streams.ledger.rows import (
    AlertRow,
    CoverageRow,
    GapRow,
    RegistryRow,
    alert_row,
    gap_row,
    is_object,
    registry_row,
)
from tollmeter.streams.rules.records.decode import PricedBlock, read, to_insert, together


@dataclass(slots=True)
class Block:
    """What one batch writes, and the deliveries it must not ack because a newer format stands in them."""

    blocks: list[pl.DataFrame] = field(default_factory=list)
    rows: pl.DataFrame = field(default_factory=pl.DataFrame)
    stream: bytes = b""
    """All rows as one Arrow IPC stream, ready to insert."""
    coverage: list[CoverageRow] = field(default_factory=list)
    alerts: list[AlertRow] = field(default_factory=list)
    books: list[Record] = field(default_factory=list)
    registry: list[RegistryRow] = field(default_factory=list)
    held: list[Delivery] = field(default_factory=list)
    broken: list[tuple[Record, str]] = field(default_factory=list)
    stopped: list[tuple[TP, int, str]] = field(default_factory=list)
    gaps: list[GapRow] = field(default_factory=list)


class LedgerKernel(NamedTuple):
    """How rows are read from a record, joined, and encoded for an insert."""

    read: Callable[[PricedBlock], pl.DataFrame] = read
    together: Callable[[list[pl.DataFrame]], pl.DataFrame] = together
    to_insert: Callable[[pl.DataFrame], bytes] = to_insert


LEDGER_KERNEL = LedgerKernel()


def read_block(
    settings: Settings, kernel: LedgerKernel, deliveries: Sequence[Delivery], passed: Collection[Place] = ()
) -> Block:
    """Read the records of a batch and join their rows; those of usage.priced at the `passed` places are left out."""
    alerts_topic, prices_topic = settings.topic(topics.ALERTS), settings.topic(topics.PRICES)
    registry_topic = settings.topic(topics.REGISTRY)
    block = Block()
    for delivery in deliveries:
        if delivery.topic == alerts_topic:
            _add_alerts(delivery, block)
        elif delivery.topic == prices_topic:
            block.books += [record for record in delivery.value if record.value]
        elif delivery.topic == registry_topic:
            _add_registry(delivery, block)
        elif not _add_priced(kernel, delivery, block, passed):
            block.held.append(delivery)
    block.rows = kernel.together(block.blocks)
    if block.rows.height:
        block.stream = kernel.to_insert(block.rows)
    return block


def _add_alerts(delivery: Delivery, block: Block) -> None:
    """Add the alerts of a delivery, each a JSON object; a tombstone says nothing."""
    for record in delivery.value:
        if record.value is UNREADABLE or not is_object(record.value or b"{}"):
            block.broken.append((record, "an alert is a JSON object"))
        elif record.value:
            block.alerts.append(alert_row(record))
            block.gaps += filter(None, [gap_row(record)])


def _add_registry(delivery: Delivery, block: Block) -> None:
    for record in delivery.value:
        row = registry_row(record)
        if row is None:
            block.broken.append((record, "a row of the registry is a JSON object"))
        else:
            block.registry.append(row)


def _add_priced(kernel: LedgerKernel, delivery: Delivery, block: Block, passed: Collection[Place]) -> bool:
    """Add the records of a delivery; False when one is newer than we know: its partition stops there."""
    for record in delivery.value:
        envelope = read_envelope(record)
        if isinstance(envelope, Newer):
            if (delivery.partition, record.offset) in passed:
                continue
            tp = TP(delivery.topic, delivery.partition)
            block.stopped.append((tp, record.offset, f"{envelope.why}; upgrade this worker"))
            return False
        try:
            _add_rows(kernel, record, envelope, block)
        except (KeyError, ValueError, TypeError) as problem:
            block.broken.append((record, f"{type(problem).__name__}: {problem}"))
    return True


def _add_rows(kernel: LedgerKernel, record: Record, envelope: Envelope, block: Block) -> None:
    """Add what a record brings: rows of the source log, or those that replace rows of the ledger."""
    match envelope:
        case Rows(value=value):
            coverage = [(record.partition, record.offset, *one) for one in envelope.coverage()]
            block.blocks.append(kernel.read(PricedBlock(record.partition, record.offset, value)))
            block.coverage += coverage
        case Corrected(correction, value):
            block.blocks.append(kernel.read(PricedBlock(record.partition, record.offset, value, correction.was)))
        case Broken(why):
            block.broken.append((record, why))
