"""Repairs rest four times as long as they took: corrections that go on are few rounds. Policies do not wait."""

import asyncio
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from tollmeter.schemas.progress import Progress
from tollmeter.settings import Settings
from tollmeter.streams.engine.runtime import Runtime
from tollmeter.streams.rules.windows.backfill import Backfill
from tollmeter.streams.rules.windows.repair import REPAIR_SCHEMA
from tollmeter.streams.rules.windows.snapshot import CELL_SCHEMA, Snapshot
from tollmeter.streams.watch.repairs import LONGEST_REST_S, RepairKernel, Repairs

HOUR = 500_000
ASKED = Backfill("acme", "day", 0, 9, 0, 1, 0, frozenset(), {})


class Clock:
    """A machine on which a round takes as long as it says."""

    def __init__(self, took_s: float) -> None:
        self.now, self.took_s, self.rounds = 0.0, took_s, 0

    def cells(self, *_: object) -> pl.DataFrame:
        self.now += self.took_s
        self.rounds += 1
        return pl.DataFrame(schema=REPAIR_SCHEMA)


class Closed:
    def close(self) -> None: ...


async def far(_partition: int, _log_id: str) -> int:
    return 1_000


async def sent(*_: Any) -> None: ...


def taken() -> Snapshot:
    progress = Progress(applied=9, watermark_ms=(HOUR + 9) * 3_600_000, deferred=(("acme", HOUR, 9),))
    cells = pl.DataFrame(schema=CELL_SCHEMA)
    return Snapshot(0, 9, cells, (), progress, (), pl.DataFrame(), ())


def repairs_on(clock: Clock) -> Repairs:
    return Repairs(
        Settings(),
        sent,
        runtime=Runtime(monotonic=lambda: clock.now),
        connect=lambda _: Closed(),  # type: ignore[arg-type,return-value]
        position=far,
        kernel=RepairKernel(cells=clock.cells, extras=clock.cells),
    )


@pytest.mark.parametrize(("took_s", "rest_s"), [(2.0, 8.0), (0.0, 0.0), (100.0, LONGEST_REST_S)])
def test_a_round_waits_while_the_partition_rests(took_s: float, rest_s: float) -> None:
    clock = Clock(took_s)
    repairs = repairs_on(clock)
    asyncio.run(repairs.after(taken()))
    if rest_s:
        clock.now += rest_s - 0.1
        asyncio.run(repairs.after(taken()))
        assert clock.rounds == 1
        asyncio.run(repairs.after(replace(taken(), partition=1)))
        assert clock.rounds == 2, "another partition is not at rest"
    clock.now += rest_s + 0.1
    asyncio.run(repairs.after(taken()))
    assert clock.rounds == (3 if rest_s else 2)


def test_what_a_policy_asks_for_does_not_wait() -> None:
    clock = Clock(2.0)
    repairs = repairs_on(clock)
    asyncio.run(repairs.after(taken()))
    asyncio.run(repairs.after(replace(taken(), unsettled=(ASKED,))))
    assert clock.rounds == 3, "the hours, then both"
