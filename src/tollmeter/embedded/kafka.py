"""A KRaft broker on loopback, alone or one of three: formatted once, then the same data at whatever port is free."""

import base64
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tollmeter.embedded.jars import EmbeddedError

# Small numbers throughout: one machine, a handful of clients. The cleaner's buffer alone is 128 MB by default.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={log}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.cleaner.dedupe.buffer.size=8388608
log.cleaner.io.buffer.size=262144
# A no-op twice a second tells followers that the leader lives; here is one node.
metadata.max.idle.interval.ms=0
num.network.threads=1
num.io.threads=2
background.threads=2
"""
# Of several: a property that stands twice has the value that it is given last.
_OF_SEVERAL = """\
node.id={number}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},PEERS://127.0.0.1:{peer_port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{told_port},PEERS://127.0.0.1:{told_peer_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PEERS:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PEERS
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
metadata.max.idle.interval.ms=500
"""
# The first compiler alone: measured over start and 320 MB of traffic it takes 6 s of CPU where both take 15.
JVM = (
    "-Xms64m",
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:MaxHeapFreeRatio=40",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
)
_LOG = tuple(
    f"-Dorg.slf4j.simpleLogger.{option}"
    for option in ("defaultLogLevel=warn", "showDateTime=true", "dateTimeFormat=yyyy-MM-dd HH:mm:ss,SSS")
)


@dataclass(frozen=True, slots=True)
class Node:
    """One of several brokers: its ports for clients, brokers and controllers, and those that others are told.

    What others are told may lead through something that stands between. `voters`: by which port this broker reaches the
    controller of each number, its own among them.
    """

    number: int
    port: int
    peer_port: int
    controller_port: int
    told_port: int
    told_peer_port: int
    voters: Mapping[int, int]

    @property
    def properties(self) -> str:
        """What it has besides the configuration of a broker that is alone."""
        voters = ",".join(f"{number}@127.0.0.1:{port}" for number, port in self.voters.items())
        ports = {name: getattr(self, name) for name in ("port", "peer_port", "controller_port")}
        told = {"told_port": self.told_port, "told_peer_port": self.told_peer_port}
        return _OF_SEVERAL.format(number=self.number, voters=voters, **ports, **told)


def prepare(java: str, jars: Path, folder: Path, port: int, controller_port: int, *options: str) -> list[str]:
    """Write the configuration, format the storage the first time, and return the command that runs the broker.

    Raises `EmbeddedError` when Java cannot format the storage.
    """
    return _prepare([java, *JVM, *options], jars, folder, _properties(folder, port, controller_port), new_id())


def prepare_node(java: str, jars: Path, folder: Path, node: Node, cluster: str, *options: str) -> list[str]:
    """Do as `prepare` does for one of several brokers, all of which have the same cluster id."""
    properties = _properties(folder, node.port, node.controller_port) + node.properties
    return _prepare([java, *JVM, *options], jars, folder, properties, cluster)


def new_id() -> str:
    """Draw an id for a cluster."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()


def _properties(folder: Path, port: int, controller_port: int) -> str:
    log = str((folder / "log").absolute()).replace("\\", "\\\\")
    return _PROPERTIES.format(port=port, controller_port=controller_port, log=log)


def _prepare(start: list[str], jars: Path, folder: Path, configuration: str, cluster: str) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    properties = folder / "server.properties"
    properties.write_text(configuration)
    classes = ["-cp", f"{jars}/*"]
    marker = folder / "formatted"
    if not marker.exists():
        # with the archive of classes, too, but it shall not write one
        _format([*(part for part in start if "ArchiveClassesAtExit" not in part), *classes], properties, cluster)
        marker.touch()
    return [*start, *_LOG, *classes, "kafka.Kafka", str(properties)]


def cluster_id(folder: Path) -> str:
    """Return the id that the storage of a folder was formatted with, "" when it was not yet."""
    try:
        lines = (folder / "log" / "meta.properties").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition("=")[2] for line in lines if line.startswith("cluster.id=")), "")


def _format(start: list[str], properties: Path, cluster: str) -> None:
    # --cluster-id=: an id that begins with a dash would be read as an option
    command = [*start, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(properties)]
    # An earlier attempt may have been killed half-way.
    done = subprocess.run([*command, "--ignore-formatted"], capture_output=True, text=True, check=False, umask=0o077)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise EmbeddedError(f"the broker's storage could not be formatted ({lines[-1][:300]}); Java 17 is needed")
