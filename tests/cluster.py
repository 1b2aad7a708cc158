"""Three brokers on loopback that are one cluster, what is asked of them, and what is done to them."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import AlterPartitionReassignmentsRequest
from confluent_kafka import ElectionType, KafkaException
from confluent_kafka.admin import AdminClient

from tests.patience import Patience
from tollmeter.embedded import class_archive, jars, kafka
from tollmeter.embedded.environment import bare_environment
from tollmeter.embedded.jars import EmbeddedError
from tollmeter.embedded.ports import answers, choose
from tollmeter.embedded.supervisor import Program, Supervisor

NUMBERS = (1, 2, 3)
START_S = 120.0
ASK_S, ELECT_S = 5.0, 60.0
_QUIET: dict[str, Any] = {"error_cb": lambda error: None, "reconnect.backoff.max.ms": 500}
Between = Callable[[str, str, int], int]
"""Puts something before a port: (whose way, to whom, the port) -> the port that takes its place."""


def name_of(number: int) -> str:
    """Return the name of a broker's process."""
    return f"broker-{number}"


def nothing_between(_who: str, _to: str, port: int) -> int:
    """Lead straight there."""
    return port


@dataclass(frozen=True, slots=True)
class Place:
    """A partition: who leads it, who has it, who has all of it."""

    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


class Cluster:
    """Brokers under a supervisor. `kafka` is where clients begin; names are those of the supervisor's processes."""

    def __init__(self, folder: Path, supervisor: Supervisor, between: Between = nothing_between) -> None:
        self.folder, self.supervisor = folder, supervisor
        self.names = tuple(map(name_of, NUMBERS))
        ports = choose([0] * 9)
        own = {number: (ports[3 * n], ports[3 * n + 1], ports[3 * n + 2]) for n, number in enumerate(NUMBERS)}
        self._nodes = [_node(number, own, between) for number in NUMBERS]
        self.ports = tuple(node.told_port for node in self._nodes)
        self.kafka = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        self._admin = AdminClient({"bootstrap.servers": self.kafka, "log_level": 0, **_QUIET})

    def start(self) -> None:
        """Return when all are members. Raises `EmbeddedError`."""
        java, folder, cluster = jars.java(), jars.fetch(), kafka.new_id()
        classes = class_archive.archive(java, folder)
        options = [f"-XX:SharedArchiveFile={classes}"] if classes else []
        for node in self._nodes:
            name = name_of(node.number)
            command = kafka.prepare_node(java, folder, self.folder / name, node, cluster, *options)
            self.supervisor.start(Program(name, command, bare_environment, self.folder / f"{name}.log"))
        self.await_whole(())

    def await_whole(self, topics: tuple[str, ...], seconds: float = START_S) -> None:
        """Return when all brokers are members, and hold all of these topics. Raises `EmbeddedError`."""
        patience = Patience(seconds)
        while not self.whole(topics):
            if patience.ended():
                raise EmbeddedError(f"the three brokers were not one cluster after {seconds:g} s: see {self.folder}")
            time.sleep(0.2)

    def whole(self, topics: tuple[str, ...]) -> bool:
        """Tell whether all brokers run, are members and in sync."""
        running = self.supervisor.snapshot()
        if not all(running[name].alive for name in self.names) or not all(answers(node.port) for node in self._nodes):
            return False
        try:
            if set(self._admin.list_topics(timeout=ASK_S).brokers) != set(NUMBERS):
                return False
            return all(len(place.in_sync) == len(NUMBERS) for place in self.places(*topics).values())
        except KafkaException:
            return False

    def places(self, *topics: str) -> dict[tuple[str, int], Place]:
        """Return the partitions of topics. Raises `KafkaException`."""
        found = self._admin.list_topics(timeout=ASK_S).topics
        return {
            (topic, number): Place(one.leader, tuple(one.replicas), tuple(one.isrs))
            for topic in topics
            for number, one in found[topic].partitions.items()
        }

    def leader(self, topic: str, partition: int = 0) -> str:
        """Return the name of the broker that leads a partition. Raises `KafkaException`."""
        return name_of(self.places(topic)[topic, partition].leader)

    def move_leaders(self, *topics: str) -> None:
        """Let another broker lead each partition of these topics. Raises `EmbeddedError` when they do not move."""
        orders = {key: next_order(place) for key, place in self.places(*topics).items()}
        asyncio.run(_prefer(self.kafka, orders))
        patience = Patience(ELECT_S)
        while any(place.leader != orders[key][0] for key, place in self.places(*topics).items()):
            if patience.ended():
                raise EmbeddedError(f"the leaders did not move in {ELECT_S:g} s: see {self.folder}")
            elected = self._admin.elect_leaders(ElectionType.PREFERRED).result(
                ELECT_S
            )  # where order has changed by now
            assert not {one.name() for one in elected.values() if one is not None} - {"ELECTION_NOT_NEEDED"}
            time.sleep(0.2)


def _node(number: int, own: Mapping[int, tuple[int, int, int]], between: Between) -> kafka.Node:
    name, (port, peer_port, controller_port) = name_of(number), own[number]
    ways = {other: between(name, name_of(other), own[other][2]) for other in NUMBERS if other != number}
    return kafka.Node(
        number,
        port,
        peer_port,
        controller_port,
        between("clients", name, port),
        between("peers", name, peer_port),
        ways | {number: controller_port},
    )


def next_order(place: Place) -> list[int]:
    """Return the replicas with the next one behind the leader first."""
    at = place.replicas.index(place.leader) + 1 if place.leader in place.replicas else 0
    return [*place.replicas[at:], *place.replicas[:at]]


async def _prefer(bootstrap: str, orders: Mapping[tuple[str, int], list[int]]) -> None:
    """Put the replicas of partitions into this order: the first one is the preferred leader."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    try:
        wanted: dict[str, list[Any]] = {}
        for (topic, partition), order in orders.items():
            wanted.setdefault(topic, []).append((partition, order, {}))
        request = AlterPartitionReassignmentsRequest(
            30_000, [(topic, partitions, {}) for topic, partitions in wanted.items()], {}
        )
        answer = await client.send(client.get_random_node(), request)
        assert answer.error_code == 0, answer
    finally:
        await client.close()
