"""The line in the simulator: production's serial loop and stages in processes that share one broker and one store."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from faust.types import TP

from tests.simulation.broker import Broker
from tests.simulation.columns import ColumnFolding, as_frame, checkpoints
from tests.simulation.group import Group
from tests.simulation.kernels import (
    PARTITIONS,
    SETTINGS,
    RowCheckpoints,
    RowFolding,
    repair_cells,
    repair_records,
)
from tests.simulation.member import App
from tests.simulation.rows import LEDGER_KERNEL, Book, Pricing
from tests.simulation.store import Client, Store
from tests.simulation.world import Process, Refused, World
from tollmeter.broker.layout import Layout, wrong_counts
from tollmeter.schemas import topics
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse import rollup
from tollmeter.streams.engine.gaps import of_other_logs
from tollmeter.streams.engine.incidents import Incidents
from tollmeter.streams.engine.line import Line as ProductionLine
from tollmeter.streams.engine.loop import Batching, BatchLoop
from tollmeter.streams.ledger.stage import Ledger
from tollmeter.streams.price.stage import Price
from tollmeter.streams.watch import repairs as repairing
from tollmeter.streams.watch.repairs import RepairKernel, Repairs
from tollmeter.streams.watch.spend_publisher import SpendPublisher
from tollmeter.streams.watch.stage import Watch

LAYOUT = Layout(SETTINGS.partitions_events, SETTINGS.partitions_priced)
GROUPS = {
    "price": (topics.EVENTS,),
    "ledger": (topics.PRICED, topics.ALERTS, topics.PRICES),
    "watch": (topics.PRICED,),
}
IDLE_S = 0.9
Make = dict[str, Callable[..., Any]]
"""Classes and functions by name, to be put in the place of production's."""


class Sender:
    """Sends with the broker's fates: written, refused, written without an answer, written after its sender died."""

    def __init__(self, process: Process, broker: Broker) -> None:
        self._process, self._broker, self._world = process, broker, process.world

    async def send(self, topic: str, partition: int, key: bytes | None, value: Any, headers: Any) -> int:
        world, faults = self._world, self._world.faults
        self._process.point()
        if world.chance(faults.refuse):
            await asyncio.sleep(0.1)
            raise Refused("not written")
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def write() -> None:
            record = self._broker.append(topic, partition, key, value, headers)
            if not answer.done():
                answer.set_result(record.offset)

        if world.chance(faults.slow_send):
            world.after(world.rng.random() * 2.0, write)
        else:
            write()
        offset = await answer
        await asyncio.sleep(0)
        self._process.point()
        if world.chance(faults.lost_ack):
            raise Refused("no acknowledgement")
        return offset


class Line:
    """One seed's line. `make` may replace a class of production by a broken one."""

    def __init__(self, world: World, make: Make | None = None, *, columns: bool = False) -> None:
        self.world, self.columns = world, columns
        self.broker = Broker(PARTITIONS, world.wall_ms)
        self.store = Store(world)
        self.book = Book("book-1", 1_000_000)
        self.make: Make = {
            "Price": Price,
            "Ledger": Ledger,
            "Watch": Watch,
            "Repairs": Repairs,
            "BatchLoop": BatchLoop,
            "SpendPublisher": SpendPublisher,
            "WatchKernel": RowFolding,
            "Checkpoints": RowCheckpoints,
            "repair_records": repair_records,
            "App": App,
        }
        if columns:
            self.make |= {"WatchKernel": ColumnFolding, "Checkpoints": checkpoints}
        self.make |= make or {}
        self.broker.on_append.append(self._tell)
        starts = {"price": self._price, "ledger": self._ledger, "watch": self._watch}
        self.groups = {name: Group(world, self.broker, name, wanted, starts[name]) for name, wanted in GROUPS.items()}
        self.watches: dict[Process, Watch] = {}

    def _tell(self, tp: TP) -> None:
        for process in self.world.processes:
            if process.consumer is not None:
                process.consumer.appended(tp)

    def _process(self, group: Group) -> tuple[Process, Any]:
        process = Process(self.world, group.name, group.died)
        app = self.make["App"](process, self.broker, group.name, GROUPS[group.name])
        app.incidents = Incidents(
            SETTINGS,
            group.name,
            Sender(process, self.broker).send,
            LAYOUT,
            ask_ids=self._ids,
            ask_counts=self._count_problems,
            now=lambda: datetime.fromtimestamp(self.world.wall(), UTC),
        )
        return process, app

    async def _ids(self, _settings: Settings, names: Iterable[str]) -> dict[str, str]:
        return {name: self.broker.topic_id(name) for name in names}

    async def _count_problems(self, settings: Settings, layout: Layout) -> dict[str, str]:
        counts = {topic: self.broker.count(topic) for topic in PARTITIONS}
        return dict(wrong_counts(settings, layout, counts))

    def _line(self, group: Group) -> tuple[Process, Any, ProductionLine]:
        process, app = self._process(group)
        return process, app, ProductionLine(SETTINGS, LAYOUT, app, Sender(process, self.broker).send, process.runtime())

    def _run(self, process: Process, app: Any, line: ProductionLine, stage: Any, batching: Batching) -> Process:
        app.stage = stage
        self.make["BatchLoop"](line, app, stage, batching._replace(idle_every_s=IDLE_S))
        app.start(process)
        return process

    def _price(self, group: Group) -> Process:
        process, app, line = self._line(group)
        app.incidents.know(topics.EVENTS, self.broker.topic_id(topics.EVENTS))
        price = self.make["Price"](line, Pricing(self.book))
        return self._run(process, app, line, price, Batching(8, linger_s=0.05))

    def _ledger(self, group: Group) -> Process:
        process, app, line = self._line(group)
        client = Client(self.store, process, SETTINGS.clickhouse_timeout_s)
        ledger = self.make["Ledger"](line, kernel=LEDGER_KERNEL, connect=lambda _settings: client, roll_up=_roll_up)
        return self._run(process, app, line, ledger, Batching(10, linger_s=0.2, backlog_linger_s=0.5))

    def _watch(self, group: Group) -> Process:
        process, app, line = self._line(group)
        app.incidents.know(topics.PRICED, self.broker.topic_id(topics.PRICED))
        client = Client(self.store, process, SETTINGS.clickhouse_timeout_s)
        repairs = self.make["Repairs"](
            SETTINGS,
            line.send,
            runtime=line.runtime,
            connect=lambda _settings: client,
            position=self._position,
            kernel=self._repair_kernel(),
        )
        watch = self.make["Watch"](
            line,
            self.make["WatchKernel"](SETTINGS, self.broker, process),
            self.make["Checkpoints"](SETTINGS, self.store, client),
            repairs,
            self.make["SpendPublisher"](SETTINGS, line.send) if self.columns else None,
        )
        self.watches[process] = watch
        return self._run(process, app, line, watch, Batching(8))

    def _repair_kernel(self) -> RepairKernel:
        if self.columns:
            return RepairKernel(
                cells=lambda asking, *wanted: as_frame(repair_cells(self.store, asking, *wanted[:3])),
                records=partial(repairing.repair_records, limit=12),
            )
        return RepairKernel(  # type: ignore[call-arg]
            cells=lambda asking, *wanted: repair_cells(self.store, asking, *wanted[:3]),
            records=self.make["repair_records"],
        )

    async def _position(self, partition: int, log_id: str) -> int:
        await asyncio.sleep(0)
        tp = TP(topics.PRICED, partition)
        at = self.broker.committed["ledger"].get(tp, 0)
        return 0 if of_other_logs({tp: (at, self.broker.notes.get(("ledger", tp), ""))}, {tp.topic: log_id}) else at


def _roll_up(client: Any, settings: Settings) -> rollup.RollupResult:
    """Production's step; how long it took on this machine decides nothing here."""
    return replace(rollup.step(client, settings), seconds=0.0, pause_s=1.0)
