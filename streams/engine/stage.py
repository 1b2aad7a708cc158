"""A stage, and how one runs: the line is built first, the stage whole with it, then what waits becomes a batch."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, Self

from faust.types import TP

from tollmeter.broker.layout import stored_layout
from tollmeter.broker.topic_ids import id_of
from tollmeter.schemas.record import Delivery
from tollmeter.settings import Settings
from tollmeter.streams.engine.app import Sender, build_app, preflight, serve
from tollmeter.streams.engine.gaps import Loss
from tollmeter.streams.engine.line import Line
from tollmeter.streams.engine.loop import Batching, BatchLoop


class Stage(Protocol):
    """One step of the line. None of its methods runs beside another, but for `lost` and `assigned`."""

    name: ClassVar[str]
    reads: ClassVar[tuple[str, ...]]
    """What it reads, by the names of `schemas.topics`."""
    writes: ClassVar[tuple[str, ...]]
    """What it sends to."""
    own_position: ClassVar[bool]
    """Its position follows a checkpoint of its own; else it follows what the group has committed."""
    batching: Batching

    @classmethod
    def on(cls, line: Line) -> Self:
        """Build it on a line."""

    async def assigned(self, partitions: set[TP]) -> Mapping[TP, int]:
        """Return the offset to begin at, where it is not the one committed. Called after every assignment."""

    async def step(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery] | None:
        """Do all that a batch asks for; return the deliveries that must not be acked. Raises `GivenUp`."""

    async def idle(self, now: float) -> None:
        """Do what time asks for, between batches. `now` is monotonic, in seconds."""

    async def lost(self, loss: Loss) -> None:
        """Be told of a loss that is declared."""

    async def leaving(self) -> None:
        """Partitions are given back in order, for a rebalance or a stop: no batch is under way any more."""

    def commit_note(self, tp: TP) -> str:
        """Return what to commit beside an offset."""


def run(settings: Settings, kind: type[Stage]) -> int:
    """Run a worker of a stage until it is told to stop; return its exit code. Raises `BrokerError` before it starts."""
    asyncio.run(preflight(settings, [*kind.reads, *kind.writes]))
    layout = asyncio.run(stored_layout(settings))
    app = build_app(settings, kind.name, kind.reads, layout)
    source = kind.reads[0]
    app.incidents.know(settings.topic(source), asyncio.run(id_of(settings, source)))
    line = Line(settings, layout, app, Sender(app).send)
    app.stage = kind.on(line)
    BatchLoop(line, app, app.stage)
    return serve(app)
