"""One KRaft broker on loopback: formatted once, then the same data at whatever port is free."""

import base64
import subprocess
import uuid
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


def prepare(java: str, jars: Path, folder: Path, port: int, controller_port: int, *options: str) -> list[str]:
    """Write the configuration, format the storage the first time, and return the command that runs the broker.

    Raises `EmbeddedError` when Java cannot format the storage.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    properties = folder / "server.properties"
    log = str((folder / "log").absolute()).replace("\\", "\\\\")
    properties.write_text(_PROPERTIES.format(port=port, controller_port=controller_port, log=log))
    classes = ["-cp", f"{jars}/*"]
    marker = folder / "formatted"
    if not marker.exists():
        _format([java, *JVM, *classes], properties)
        marker.touch()
    return [java, *JVM, *options, *_LOG, *classes, "kafka.Kafka", str(properties)]


def cluster_id(folder: Path) -> str:
    """Return the id that the storage of a folder was formatted with, "" when it was not yet."""
    try:
        lines = (folder / "log" / "meta.properties").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition("=")[2] for line in lines if line.startswith("cluster.id=")), "")


def _format(start: list[str], properties: Path) -> None:
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    # --cluster-id=: an id that begins with a dash would be read as an option
    command = [*start, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(properties)]
    # An earlier attempt may have been killed half-way.
    done = subprocess.run([*command, "--ignore-formatted"], capture_output=True, text=True, check=False, umask=0o077)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise EmbeddedError(f"the broker's storage could not be formatted ({lines[-1][:300]}); Java 17 is needed")
