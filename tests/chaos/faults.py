"""The faults: each is done to the line, lasts as long as it says, and is over when `inject` returns.

`inject` returns the monotonic time from which the line may recover: the kill itself, or the end of what lasted.
"""

import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.background import Background
from tests.chaos.line import SETTINGS, Line
from tests.chaos.proxy import Mode, Proxy
from tollmeter.embedded.stack import FRONT, STAGES

INSERT = b"usage_events"
STOPPED_S = SETTINGS["session_timeout_s"] + 3.0
"""A stopped process stays so beyond the session timeout: the group goes on without it, and it wakes as a zombie."""
INSERT_S = 20.0
FENCED_S = 13.0
"""A broker that says nothing for nine seconds leads no partition any more."""


@dataclass(frozen=True)
class Scene:
    """What a fault may use. `away_s` is how long the engine stays away when it does."""

    line: Line
    background: Background
    rng: random.Random
    away_s: float
    look: Callable[[], None]
    """To be called all the time: it watches memory and progress."""
    spooled: Callable[[], int]
    """How many events the client has ever put on its disk."""

    def wait(self, seconds: float) -> None:
        """Let time pass, looking."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.look()
            time.sleep(min(left, 0.3))

    def worker(self, stage: str) -> str:
        """Choose a worker of the stage."""
        return self.rng.choice([name for name, of in self.line.workers.items() if of == stage])

    def broker(self) -> str:
        """Choose a broker."""
        return self.rng.choice(self.line.brokers)

    @contextmanager
    def behaving(self, proxies: Iterable[Proxy], mode: Mode, seconds: float = 0.0) -> Iterator[None]:
        """Switch proxies for a while."""
        chosen = tuple(proxies)
        for proxy in chosen:
            self.background.loop.call_soon_threadsafe(proxy.switch, mode, seconds)
        try:
            yield
        finally:
            for proxy in chosen:
                self.background.loop.call_soon_threadsafe(proxy.switch, "pass", 0.0)

    def to_brokers(self) -> list[Proxy]:
        """Return what stands before the brokers for clients."""
        return [proxy for (whose, _to), proxy in self.line.links.items() if whose == "clients"]


@dataclass(frozen=True)
class Fault:
    """`missing` says why it cannot be injected on this line, None when it can."""

    name: str
    inject: Callable[[Scene], float]
    missing: Callable[[Line], str | None] = lambda line: None


def _kill_worker(stage: str) -> Callable[[Scene], float]:
    def inject(scene: Scene) -> float:
        scene.line.signal(scene.worker(stage), signal.SIGKILL)
        return time.monotonic()

    return inject


def _terminate_worker(stage: str) -> Callable[[Scene], float]:
    def inject(scene: Scene) -> float:
        scene.line.signal(scene.worker(stage), signal.SIGTERM)
        return time.monotonic()

    return inject


def _stop_worker(stage: str) -> Callable[[Scene], float]:
    def inject(scene: Scene) -> float:
        name = scene.worker(stage)
        pid = scene.line.pid(name)
        scene.line.signal(name, signal.SIGSTOP)
        scene.wait(STOPPED_S)
        if scene.line.pid(name) == pid:
            scene.line.signal(name, signal.SIGCONT)
        return time.monotonic()

    return inject


def _kill_both(scene: Scene) -> float:
    stage = scene.rng.choice(STAGES)
    for name in [name for name, of in scene.line.workers.items() if of == stage]:
        scene.line.signal(name, signal.SIGKILL)
    return time.monotonic()


def _join_and_leave(scene: Scene) -> float:
    stage = scene.rng.choice(STAGES)
    name = scene.line.start_worker(stage, 3)
    try:
        until = time.monotonic() + 30
        while not scene.line.settled() and time.monotonic() < until:
            scene.wait(0.5)
    finally:
        scene.line.stop_worker(name)
    return time.monotonic()


def _kill_broker(scene: Scene) -> float:
    scene.line.signal(scene.broker(), signal.SIGKILL)
    return time.monotonic()


def _stop_broker(scene: Scene) -> float:
    name = scene.broker()
    scene.line.signal(name, signal.SIGSTOP)
    scene.wait(STOPPED_S if len(scene.line.brokers) == 1 else FENCED_S)
    scene.line.signal(name, signal.SIGCONT)
    return time.monotonic()


def _broker_links_cut(scene: Scene) -> float:
    for _ in range(3):
        for proxy in scene.to_brokers():
            scene.background.loop.call_soon_threadsafe(proxy.cut)
        scene.wait(1.0)
    return time.monotonic()


def _broker_slow(scene: Scene) -> float:
    with scene.behaving(scene.to_brokers(), "slow", 0.2):
        scene.wait(8.0)
    return time.monotonic()


def _engine_killed_in_insert(scene: Scene) -> float:
    passed = threading.Event()
    scene.background.loop.call_soon_threadsafe(scene.line.to_engine.when_passing, INSERT, passed.set)
    if not passed.wait(INSERT_S):
        raise RuntimeError("no insert came to kill the engine in")
    time.sleep(scene.rng.uniform(0.0, 0.02))
    scene.line.signal(FRONT, signal.SIGKILL)
    return time.monotonic()


def _engine_away(scene: Scene) -> float:
    scene.line.signal(FRONT, signal.SIGKILL, restart=False)
    try:
        scene.wait(scene.away_s)
    finally:
        scene.line.stack.resume(FRONT)
    return time.monotonic()


def _engine_slow(scene: Scene) -> float:
    with scene.behaving([scene.line.to_engine], "slow", 0.4):
        scene.wait(8.0)
    return time.monotonic()


def _engine_blackholed(scene: Scene) -> float:
    with scene.behaving([scene.line.to_engine], "blackhole"):
        scene.wait(2 * SETTINGS["clickhouse_timeout_s"] + 3.0)  # beyond the client's timeout, which is 5 s longer
    return time.monotonic()


def _answers_lost(scene: Scene) -> float:
    proxy = scene.line.to_engine
    before = proxy.answers_lost
    scene.background.loop.call_soon_threadsafe(proxy.lose_answers, 4, INSERT)
    until = time.monotonic() + INSERT_S
    while proxy.answers_lost < before + 4 and time.monotonic() < until:
        scene.wait(0.3)
    scene.background.loop.call_soon_threadsafe(proxy.lose_answers, 0, b"")
    if proxy.answers_lost == before:
        raise RuntimeError("no insert came whose answer could be lost")
    return time.monotonic()


def _disk_full(scene: Scene) -> float:
    scene.line.disk.fill()
    try:
        scene.wait(8.0)
    finally:
        scene.line.disk.free()
    return time.monotonic()


def _syncs_fail(scene: Scene) -> float:
    log = scene.line.folder / "logs" / "strace.log"
    pid = scene.line.pid(FRONT)
    tracer = scene.line.tracer.fail_syncs(pid, scene.rng.randint(1, 3), log)
    try:
        scene.wait(10.0)
    finally:
        tracer.terminate()
        try:
            tracer.wait(10)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.wait()
    if "INJECTED" not in _text(log):
        raise RuntimeError("the engine synced nothing while it was traced")
    return time.monotonic()


def _text(file: Path) -> str:
    with suppress(OSError):
        return file.read_text(errors="replace")
    return ""


def _partition(scene: Scene) -> float:
    scene.line.namespace.plug(in_=False)
    try:
        scene.wait(STOPPED_S + scene.rng.uniform(0, 6))
    finally:
        scene.line.namespace.plug(in_=True)
    return time.monotonic()


FAULTS: tuple[Fault, ...] = (
    *(Fault(f"kill -9 of {stage}", _kill_worker(stage)) for stage in STAGES),
    *(Fault(f"SIGTERM to {stage}", _terminate_worker(stage)) for stage in STAGES),
    *(Fault(f"SIGSTOP of {stage}", _stop_worker(stage)) for stage in STAGES),
    Fault("kill -9 of both workers of a stage", _kill_both),
    Fault("worker joins and leaves", _join_and_leave),
    Fault("kill -9 of a broker", _kill_broker),
    Fault("SIGSTOP of a broker", _stop_broker),
    Fault("broker connections cut", _broker_links_cut),
    Fault("broker slow", _broker_slow),
    Fault("ClickHouse killed in an insert", _engine_killed_in_insert),
    Fault("ClickHouse away", _engine_away),
    Fault("ClickHouse slow", _engine_slow),
    Fault("ClickHouse black-holed", _engine_blackholed),
    Fault("answer lost after commit", _answers_lost),
    Fault("disk full", _disk_full, lambda line: line.no_disk),
    Fault("Nth fsync fails", _syncs_fail, lambda line: line.no_tracer),
    Fault("network partition", _partition, lambda line: line.no_namespace),
)
KILL_9 = tuple(fault.name for fault in FAULTS[: len(STAGES)])
