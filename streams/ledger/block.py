"""One pass of LEDGER, read: its rows joined and encoded for one insert, and everything else it has to write."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import polars as pl
from faust.types import TP

from tollmeter.schemas import topics
from tollmeter.schemas.control import Correction
from tollmeter.schemas.priced import FORMAT_VERSION, H_CORRECTION, H_FORMAT, H_KIND, KIND_CORRECTION, KIND_ROWS
from tollmeter.settings import Settings
from tollmeter.streams.ledger.rows import alert_row, coverage_rows, gap_row
from tollmeter.streams.rules.records.decode import PricedBlock, read, to_insert, together


@dataclass(slots=True)
class Block:
    """What one batch writes, and the deliveries it must not ack because a newer format stands in them."""

    blocks: list[pl.DataFrame] = field(default_factory=list)
    rows: pl.DataFrame = field(default_factory=pl.DataFrame)
    stream: bytes = b""
    """All rows as one Arrow IPC stream, ready to insert."""
    coverage: list[tuple[Any, ...]] = field(default_factory=list)
    alerts: list[tuple[str, datetime]] = field(default_factory=list)
    books: list[Any] = field(default_factory=list)
    held: list[Any] = field(default_factory=list)
    broken: list[tuple[Any, str]] = field(default_factory=list)
    stopped: list[tuple[TP, int, str]] = field(default_factory=list)
    gaps: list[tuple[Any, ...]] = field(default_factory=list)


class LedgerKernel(NamedTuple):
    """How rows are read from a record, joined, and encoded for an insert."""

    read: Callable[[PricedBlock], pl.DataFrame] = read
    together: Callable[[list[pl.DataFrame]], pl.DataFrame] = together
    to_insert: Callable[[pl.DataFrame], bytes] = to_insert


LEDGER_KERNEL = LedgerKernel()


def read_block(settings: Settings, kernel: LedgerKernel, events: Sequence[Any]) -> Block:
    """Read the records of a batch and join their rows."""
    alerts_topic, prices_topic = settings.topic(topics.ALERTS), settings.topic(topics.PRICES)
    block = Block()
    for event in events:
        if event.message.topic == alerts_topic:
            alerts = [record for record in event.value if record.value]
            block.alerts += map(alert_row, alerts)
            block.gaps += filter(None, map(gap_row, alerts))
        elif event.message.topic == prices_topic:
            block.books += [record for record in event.value if record.value]
        elif not _add_priced(kernel, event, block):
            block.held.append(event)
    block.rows = kernel.together(block.blocks)
    if block.rows.height:
        block.stream = kernel.to_insert(block.rows)
    return block


def _add_priced(kernel: LedgerKernel, event: Any, block: Block) -> bool:
    """Add the records of a delivery; False when one is newer than we know: its partition stops there."""
    for record in event.value:
        headers = dict(record.headers)
        try:
            if int(headers[H_FORMAT]) > FORMAT_VERSION:
                why = f"its format {headers[H_FORMAT].decode()} is newer than {FORMAT_VERSION}, the newest known here"
                block.stopped.append((event.message.tp, record.offset, f"{why}; upgrade this worker"))
                return False
            _add_rows(kernel, record, headers, block)
        except (KeyError, ValueError, TypeError) as problem:
            block.broken.append((record, f"{type(problem).__name__}: {problem}"))
    return True


def _add_rows(kernel: LedgerKernel, record: Any, headers: dict[str, bytes], block: Block) -> None:
    """Add what a record brings: rows of the source log, or those that replace rows of the ledger."""
    kind = headers[H_KIND]
    if kind == KIND_ROWS:
        coverage = list(coverage_rows(record, headers))
        block.blocks.append(kernel.read(PricedBlock(record.partition, record.offset, record.value)))
        block.coverage += coverage
    elif kind == KIND_CORRECTION:
        was = Correction.model_validate_json(headers[H_CORRECTION]).was
        block.blocks.append(kernel.read(PricedBlock(record.partition, record.offset, record.value))[was:])
