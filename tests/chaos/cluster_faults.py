"""What can happen to a cluster of three brokers and to no single one. Each leaves two of them in peace but one."""

import signal
import time

from tests.chaos.faults import FAULTS, FENCED_S, Fault, Scene
from tests.chaos.line import DISK_OF
from tests.patience import Patience

TWO_AWAY_S = 20.0
WHOLE_S = 120.0


def _isolate(scene: Scene) -> float:
    """Nobody reaches one broker, and it reaches no controller; what it asks other leaders for still comes."""
    name = scene.broker()
    ways = [proxy for link, proxy in scene.line.links.items() if name in link]
    with scene.behaving(ways, "blackhole"):
        scene.wait(FENCED_S)
    return time.monotonic()


def _leaders_moved(scene: Scene) -> float:
    for _ in range(3):
        scene.line.cluster.move_leaders(*scene.line.topics)
        scene.wait(2.0)
    return time.monotonic()


def _rolled(scene: Scene) -> float:
    """Restart every broker in turn, the next one when the last one has caught up."""
    for name in scene.line.brokers:
        pid = scene.line.pid(name)
        scene.line.signal(name, signal.SIGTERM)
        patience = Patience(WHOLE_S)
        while scene.line.pid(name) == pid or not scene.line.cluster.whole(scene.line.topics):
            if patience.ended():
                raise RuntimeError(f"{name} was not in sync {WHOLE_S:g} s after its restart")
            scene.wait(0.5)
    return time.monotonic()


def _disk_full(scene: Scene) -> float:
    pid = scene.line.pid(DISK_OF)
    scene.line.broker_disk.fill()
    try:
        scene.wait(FENCED_S)
        if scene.line.pid(DISK_OF) == pid and scene.line.stack.processes()[DISK_OF].alive:
            raise RuntimeError(f"{DISK_OF} did not notice that its disk was full")
    finally:
        scene.line.broker_disk.free()
    return time.monotonic()


def _two_away(scene: Scene) -> float:
    """Without a majority nothing is acknowledged: the client must have put its events on its disk."""
    away = scene.rng.sample(scene.line.brokers, 2)
    before = scene.spooled()
    for name in away:
        scene.line.signal(name, signal.SIGKILL, restart=False)
    try:
        scene.wait(TWO_AWAY_S)
        if scene.spooled() == before:
            raise RuntimeError(f"the client put nothing on its disk while {' and '.join(away)} were away")
    finally:
        for name in away:
            scene.line.stack.resume(name)
    return time.monotonic()


OF_SEVERAL: tuple[Fault, ...] = (
    Fault("a broker isolated", _isolate),
    Fault("leaders moved", _leaders_moved),
    Fault("cluster rolled", _rolled),
    Fault("disk of a broker full", _disk_full, lambda line: line.no_broker_disk),
    Fault("two of three brokers away", _two_away),
)


def faults_for(brokers: int) -> tuple[Fault, ...]:
    """Return what can happen to a line with so many brokers."""
    return FAULTS if brokers == 1 else FAULTS + OF_SEVERAL
