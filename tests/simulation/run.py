"""One seed is one run: faults and traffic first, then none, then everything must agree with the oracle."""

import hashlib
import json
import random
from datetime import UTC, datetime
from typing import NamedTuple

from tests.simulation.defaults import Defaults
from tests.simulation.group import MOST
from tests.simulation.incidents import Incident, draw
from tests.simulation.kernels import SETTINGS
from tests.simulation.limits import Limits, outdated
from tests.simulation.line import Line, Make
from tests.simulation.oracle import Oracle, behind
from tests.simulation.traffic import Mix, Traffic
from tests.simulation.watcher import Watcher
from tests.simulation.world import Faults, World
from tollmeter.schemas import topics
from tollmeter.schemas.priced import H_KIND, KIND_TICK
from tollmeter.streams.watch.checkpoint import QUIET_S
from tollmeter.streams.watch.spend_publisher import EVERY_S, REPEAT_S

STARTS = tuple(
    datetime(*at, tzinfo=UTC).timestamp()
    for at in ((2026, 11, 20, 10, 0), (2026, 11, 20, 23, 50), (2026, 11, 30, 22, 0), (2026, 12, 31, 23, 58))
)
FAULTY_S, CALM_S = 14.0, 9.0
LINGER_S = 4.0
NONE = Faults()


class Run(NamedTuple):
    """A line with what befalls it and who watches it."""

    line: Line
    watcher: Watcher
    traffic: Traffic
    incident: Incident


class Result(NamedTuple):
    seed: int
    problems: list[str]
    digest: str
    steps: int
    kills: int


def draw_faults(rng: random.Random) -> Faults:
    """Each seed has faults of its own; about half of the kinds are off."""

    def some(most: float) -> float:
        return rng.random() * most if rng.random() < 0.5 else 0.0

    return Faults(
        kill=some(0.02),
        refuse=some(0.05),
        lost_ack=some(0.05),
        slow_send=some(0.2),
        store_away=some(0.3),
        store_lost=some(0.2),
        store_half=some(0.2),
        store_slow=some(0.1),
        pause=some(0.4),
        rebalance=some(0.3),
    )


def draw_mix(rng: random.Random) -> Mix:
    """Each seed has traffic of its own."""

    def some(most: float) -> float:
        return rng.random() * most if rng.random() < 0.6 else 0.0

    return Mix(
        resend=some(0.3),
        spool=some(0.2),
        late=some(0.3),
        ahead=some(0.15),
        malformed=some(0.1),
        poison=some(0.06) * rng.randint(0, 1),
        twin=some(0.25),
        jump=some(0.25),
    )


def disturb(line: Line, until: float) -> None:
    """Once a second: pause somebody, let somebody come or go."""
    world = line.world

    def second() -> None:
        rng = world.rng
        processes = [process for process in world.processes if not process.paused]
        if processes and world.chance(world.faults.pause):
            victim = rng.choice(processes)
            line.groups[victim.name].pause(victim, rng.choice((0.5, 2.0, 6.0, 9.0)))
        if world.chance(world.faults.rebalance):
            group = line.groups[rng.choice(("price", "ledger", "watch"))]
            if len(group.members) < MOST and rng.random() < 0.5:
                group.join()
            else:
                group.rebalance()
        if world.now + 1.0 < until:
            world.after(1.0, second)

    world.after(0.5, second)


def build(seed: int, make: Make | None = None, *, columns: bool = False, kind: str | None = None) -> Run:
    """Make the line of a seed, with everything on its agenda; `kind` is that of its incident where it is not drawn."""
    rng = random.Random(seed)
    world = World(rng.getrandbits(64), draw_faults(rng), rng.choice(STARTS))
    line = Line(world, make, columns=columns)
    watcher = Watcher(line)
    traffic = Traffic(line, draw_mix(rng), rng.randint(15, 50), FAULTY_S)
    for group in line.groups.values():
        for _ in range(rng.choice((1, 1, 2))):
            group.join()
    traffic.schedule()
    disturb(line, FAULTY_S)
    incident = draw(line, seed, kind)
    incident.schedule(FAULTY_S)
    Defaults(line, seed).schedule(FAULTY_S)
    if columns:
        Limits(line, seed).schedule(FAULTY_S)
    if incident.ids_forgotten:
        traffic.mix.ahead = 0.0
    return Run(line, watcher, traffic, incident)


def drive(run: Run) -> Run:
    """Run a line: faults first, then none, then time until everything has settled."""
    world = run.line.world
    world.run(FAULTY_S)
    world.faults = NONE
    world.run(FAULTY_S + CALM_S)
    settle(run.line)
    return run


def run(seed: int, make: Make | None = None, *, columns: bool = False, kind: str | None = None) -> Result:
    """Run one seed; `make` puts broken classes in the place of production's, `columns` takes WATCH's own fold."""
    line, watcher, traffic, incident = found = build(seed, make, columns=columns, kind=kind)
    try:
        drive(found)
        problems = line.world.problems + watcher.problems + incident.problems
        problems += Oracle(line, traffic, incident).problems()
    finally:
        incident.close()
    return Result(seed, problems, digest(line), line.world.steps, line.world.kills)


def first_problem(seed: int, make: Make, *, columns: bool, kind: str | None) -> str | None:
    """Run one seed until something is wrong with it; return what, None when nothing is."""
    line, watcher, traffic, incident = found = build(seed, make, columns=columns, kind=kind)

    def seen() -> list[str]:
        return line.world.problems + watcher.problems + incident.problems

    try:
        for second in range(1, int(FAULTY_S)):
            line.world.run(float(second))
            if problems := seen():
                return problems[0]
        drive(found)
        return next(iter(seen()), None) or next(Oracle(line, traffic, incident).found(), None)
    finally:
        incident.close()


def settle(line: Line) -> None:
    """Let time pass until every hour is sealed, late rows are repaired, and checkpoints and rollups hold everything."""
    world = line.world
    world.jump(3_600 + SETTINGS.horizon_s + 120)
    for number in range(12):
        world.run(world.now + 4.0)
        world.jump(400)
        left = [json.loads(text) for _, text in line.store.progress.values()]
        if number > 1 and not any(one["deferred"] or one["unread"] or one.get("unsettled") for one in left):
            break
    if line.columns and outdated(line):
        world.run(world.now + REPEAT_S + EVERY_S)
    if line.columns and _saved_before(line):
        world.run(world.now + QUIET_S + SETTINGS.checkpoint_s)
    if next(behind(line.broker), None):  # what was told in the last moments is not committed yet
        world.run(world.now + LINGER_S)


def _saved_before(line: Line) -> bool:
    """Tell whether a checkpoint is older than what guards are told: while only ticks come it is written seldom."""
    for log in line.broker.of(topics.PRICED):
        ticks = [record.value for record in log.records if dict(record.headers).get(H_KIND) == KIND_TICK]
        saved = json.loads(line.store.progress[log.tp.partition][1])["clocks"] if ticks else {}
        if ticks and max(json.loads(ticks[-1])["clocks"].values()) > max(saved.values(), default=0) + 60_000:
            return True
    return False


def digest(line: Line) -> str:
    """Return a hash of everything that is left of a run."""
    store = line.store
    parts = [
        sorted(store.events.items()),
        sorted(store.windows.items()),
        sorted(store.alerts),
        sorted(store.coverage),
        sorted(store.minutes.items()),
        sorted(store.progress.items()),
        [(tp, len(log.records)) for tp, log in sorted(line.broker.logs.items())],
        line.world.steps,
        sorted(store.gaps),
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
