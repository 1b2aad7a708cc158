"""The line in the simulator: production's serial loop and stages in processes that share one broker and one store."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Any

from faust.types import TP

from tests.simulation import fold
from tests.simulation.broker import Broker
from tests.simulation.columns import ColumnFolding, checkpoints
from tests.simulation.group import Group
from tests.simulation.member import App
from tests.simulation.rows import LEDGER_KERNEL, Book, Pricing
from tests.simulation.store import Client, Store
from tests.simulation.world import Process, Refused, World
from tollmeter.schemas import topics
from tollmeter.schemas.control import Round
from tollmeter.schemas.policy import Policy
from tollmeter.settings import Settings
from tollmeter.sinks import rollup
from tollmeter.sinks.checkpoint import Checkpoint, CheckpointStore
from tollmeter.streams.folding import Folding
from tollmeter.streams.ledger import Ledger
from tollmeter.streams.passes import Passes
from tollmeter.streams.price import Price
from tollmeter.streams.repairing import Kernel as RepairKernel
from tollmeter.streams.repairing import Repairs, repair_headers, scope_ends
from tollmeter.streams.rules.repair import sealed
from tollmeter.streams.spending import Spending
from tollmeter.streams.watch import Watch

SOURCES, TARGETS = 2, 2
PARTITIONS = {
    topics.EVENTS: SOURCES, topics.PRICED: TARGETS, topics.DLQ: SOURCES, topics.ALERTS: TARGETS, topics.PRICES: 1,
    topics.SPEND: 1,
}  # fmt: skip
SETTINGS = Settings(
    horizon_s=900, checkpoint_s=1.0, clickhouse_timeout_s=3.0, rollup_quiet_s=1.5, alert_max_age_h=10**6,
    partitions_events=SOURCES, partitions_priced=TARGETS,
)  # fmt: skip
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


class RowFolding(Folding):
    """WATCH's fold, row by row."""

    def __init__(self, _settings: Settings, broker: Broker, process: Process) -> None:
        self._broker, self._process = broker, process

    async def resume(self, number: int, saved: Checkpoint | None) -> Any:
        state = fold.RowState(number, SOURCES, SETTINGS.horizon_s)
        if saved is not None:
            fold.restore(state, saved.progress, saved.cells, saved.policies)  # type: ignore[arg-type]
            async for records in self.read_back(number, state.applied + 1):
                fold.remember(state, records)
        return state

    async def read_back(self, number: int, end: int) -> AsyncIterator[Sequence[Any]]:
        """Yield the log from its start, some records at a time."""
        log = self._broker.logs[TP(topics.PRICED, number)]
        for begin in range(log.first, end, 20):
            await asyncio.sleep(0)
            self._process.point()
            yield log.read(begin, min(20, end - begin))

    def fold(self, state: Any, records: Sequence[Any], on_landmark: Any) -> list[Any]:
        return fold.fold(state, records, on_landmark)

    def snapshot(self, state: Any) -> Any:
        return fold.snapshot(state)

    def undo(self, state: Any, failed: Any) -> None:
        fold.undo(state, failed)


class RowCheckpoints(CheckpointStore):
    """Production's checkpoints with cells as tuples; loading is cut into its three questions."""

    def __init__(self, settings: Settings, store: Store, client: Client) -> None:
        super().__init__(settings, lambda _settings: client)  # type: ignore[arg-type,return-value]
        self._store, self._asking = store, client

    def load(self, partition: int) -> Any:
        self._asking._ask()
        if partition not in self._store.progress:
            return None
        progress = self._store.progress[partition][1]
        yield
        self._asking._ask()
        found = [(key, row) for key, row in sorted(self._store.policies.items()) if key[0] == partition]
        policies = [Policy.model_validate_json(text) for _, (_, deleted, text) in found if not deleted]
        yield
        self._asking._ask()
        cells = [
            (key, calls, cost, stamp)
            for key, (stamp, calls, cost) in self._store.windows.items()
            if topics.org_partition(key[2], TARGETS) == partition
        ]
        return Checkpoint(progress, cells, policies)  # type: ignore[arg-type]

    def _write_cells(self, taken: Any) -> None:
        stamp = max(taken.applied, 0)
        rows = [(key, stamp, calls, cost) for key, calls, cost in taken.cells]
        self._connected().insert_rows("usage_windows", (), rows)  # type: ignore[arg-type]


def repair_cells(store: Store, client: Client, org: str, hours: tuple[int, ...], watermark_s: int) -> Iterator[Any]:
    """Compute the cells of a round from the ledger and the live hours, as `sinks.repair` does; a question at a time."""
    client._ask()
    late = [row for row in store.events.values() if row.org == org and row.charged_us // 3_600_000_000 in hours]
    minutes, is_ = _totals("minute", late), _totals("hour", late)
    yield
    client._ask()
    was = {
        key: (calls, cost)
        for key, (_, calls, cost) in store.windows.items()
        if key[0] == "hour" and key[2] == org and key[1] in hours
    }
    yield
    client._ask()
    ours = [(row, row.charged_us // 1_000_000) for row in store.events.values() if row.org == org]
    cells = [(key, True, *totals) for key, totals in [*minutes.items(), *is_.items()]]
    for level in ("day", "month"):
        buckets = {fold.bucket_at(level, hour * 3_600) for hour in hours}
        closed = {bucket for bucket in buckets if sealed(level, bucket, watermark_s, SETTINGS.horizon_s)}
        rows = [row for row, at_s in ours if fold.bucket_at(level, at_s) in closed]
        cells += [(key, True, *totals) for key, totals in _totals(level, rows).items()]
        cells += [cell for cell in _changes(level, is_, was) if cell[0][1] not in closed]
    return cells


def _changes(level: str, is_: dict[Any, tuple[int, int]], was: dict[Any, tuple[int, int]]) -> list[Any]:
    """Return what is to be added to the open buckets of a level."""
    added: dict[Any, tuple[int, int]] = {}
    for key in sorted({*is_, *was}):
        at = (level, fold.bucket_at(level, key[1] * 3_600), *key[2:])
        (calls, cost), (old_calls, old_cost) = is_.get(key, (0, 0)), was.get(key, (0, 0))
        sums = added.get(at, (0, 0))
        added[at] = sums[0] + calls - old_calls, sums[1] + cost - old_cost
    return [(key, False, *totals) for key, totals in added.items() if any(totals)]


def _totals(level: str, rows: Any) -> dict[fold.Key, tuple[int, int]]:
    found: dict[fold.Key, tuple[int, int]] = {}
    for row in rows:
        for org, kind, name in fold.scopes_of(row):
            key = (level, fold.bucket_at(level, row.charged_us // 1_000_000), org, kind, name)
            calls, cost = found.get(key, (0, 0))
            found[key] = calls + 1, cost + row.cost_nano
    return dict(sorted(found.items()))


def repair_records(round_: Round, cells: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return the records of a round; few cells fit one."""
    ordered = sorted(cells, key=lambda cell: cell[0][3:])
    ends = scope_ends([len(list(group)) for _, group in groupby(ordered, key=lambda cell: cell[0][3:])], 12)
    return [
        (tuple(ordered[begin:end]), repair_headers(round_ if end == ends[-1] else _without_hours(round_)))
        for begin, end in pairwise([0, *ends])
    ]


def _without_hours(round_: Round) -> Round:
    return round_.model_copy(update={"hours": ()})


class Line:
    """One seed's line. `make` may replace a class of production by a broken one."""

    def __init__(self, world: World, make: Make | None = None, *, columns: bool = False) -> None:
        self.world, self.columns = world, columns
        self.broker = Broker(PARTITIONS, world.wall_ms)
        self.store = Store(world)
        self.book = Book("book-1", 1_000_000)
        self.make: Make = {
            "Price": Price, "Ledger": Ledger, "Watch": Watch, "Repairs": Repairs, "Passes": Passes,
            "Spending": Spending, "Folding": RowFolding, "Checkpoints": RowCheckpoints,
            "repair_records": repair_records, "App": App,
        }  # fmt: skip
        if columns:
            self.make |= {"Folding": ColumnFolding, "Checkpoints": checkpoints}
        self.make |= make or {}
        self.broker.on_append.append(self._tell)
        starts = {"price": self._price, "ledger": self._ledger, "watch": self._watch}
        self.groups = {
            name: Group(world, self.broker, name, wanted, starts[name]) for name, wanted in GROUPS.items()
        }  # fmt: skip
        self.watches: dict[Process, Watch] = {}

    def _tell(self, tp: TP) -> None:
        for process in self.world.processes:
            if process.consumer is not None:
                process.consumer.appended(tp)

    def _process(self, group: Group) -> tuple[Process, Any]:
        process = Process(self.world, group.name, group.died)
        app = self.make["App"](process, self.broker, group.name, GROUPS[group.name])
        return process, app

    def _price(self, group: Group) -> Process:
        process, app = self._process(group)
        machine = process.machine()
        price = self.make["Price"](
            SETTINGS, app, Sender(process, self.broker), Pricing(self.book), TARGETS, machine
        )  # fmt: skip
        self.make["Passes"](
            app, price.step, limit=8, linger_s=0.05, idle=price.idle, idle_every_s=IDLE_S, machine=machine
        )
        app.start(process)
        return process

    def _ledger(self, group: Group) -> Process:
        process, app = self._process(group)
        machine = process.machine()
        client = Client(self.store, process, SETTINGS.clickhouse_timeout_s)
        ledger = self.make["Ledger"](
            SETTINGS, app, Sender(process, self.broker), machine=machine, kernel=LEDGER_KERNEL,
            connect=lambda _settings: client, roll_up=_roll_up,
        )  # fmt: skip
        ledger.stop_reading = _stop(app)
        passes = self.make["Passes"](
            app, ledger.step, limit=10, linger_s=0.2, backlog_linger_s=0.5, idle=ledger.idle, idle_every_s=IDLE_S,
            machine=machine,
        )  # fmt: skip
        ledger.ours = passes.all_ours
        app.start(process)
        return process

    def _watch(self, group: Group) -> Process:
        process, app = self._process(group)
        machine = process.machine()
        client = Client(self.store, process, SETTINGS.clickhouse_timeout_s)
        folding = self.make["Folding"](SETTINGS, self.broker, process)
        watch = self.make["Watch"](
            SETTINGS, folding, self.make["Checkpoints"](SETTINGS, self.store, client), TARGETS, machine
        )  # fmt: skip
        watch.sender = Sender(process, self.broker)
        watch.stop_reading = _stop(app)
        if self.columns:
            watch.spending = self.make["Spending"](SETTINGS, watch.sender)
        kernel = RepairKernel(  # type: ignore[call-arg]
            cells=lambda asking, *wanted: repair_cells(self.store, asking, *wanted[:3]),
            records=self.make["repair_records"],
        )
        watch.repairs = self.make["Repairs"](
            SETTINGS, watch.sender, machine=machine, connect=lambda _settings: client, position=self._position,
            kernel=kernel,
        )  # fmt: skip
        app.start_positions, app.after_loss = watch.start_positions, watch.lost
        self.make["Passes"](app, watch.step, limit=8, idle=watch.idle, idle_every_s=IDLE_S, machine=machine)
        app.start(process)
        self.watches[process] = watch
        return process

    async def _position(self, partition: int) -> int:
        await asyncio.sleep(0)
        return self.broker.committed["ledger"].get(TP(topics.PRICED, partition), 0)


def _roll_up(client: Any, settings: Settings) -> rollup.RollupResult:
    """Production's step; how long it took on this machine decides nothing here."""
    return replace(rollup.step(client, settings), seconds=0.0, pause_s=1.0)


def _stop(app: App) -> Callable[[TP, int, str], Any]:
    async def stop(tp: TP, _offset: int, _why: str) -> None:
        app.consumer.pause_partitions({tp})

    return stop
