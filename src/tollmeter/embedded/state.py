"""A data folder has one owner at a time, is closed to everybody else, and keeps the ports it once had.

The lock is the supervisor's; `tollmeter.stacks` has what other processes read.
"""

import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tollmeter import stacks
from tollmeter.embedded.jars import EmbeddedError
from tollmeter.stacks import FILE, LOCK, write_private

_PORTS = "ports.json"
_MODE = 0o700
_EARLIER = frozenset({"logs", "lost+found"})
"""What may lie in a folder before it has an owner: the log of its first start, and what a file system puts there."""


class AlreadyRunningError(EmbeddedError):
    """Another supervisor owns this data folder."""


class DataFolderError(EmbeddedError):
    """The data folder cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of a data folder on 127.0.0.1; 0 where none is known. `health` is by worker."""

    kafka: int = 0
    clickhouse: int = 0
    health: Mapping[str, int] = field(default_factory=dict)
    server: int = 0


def prepare(data_dir: Path) -> None:
    """Make the data folder, or close an existing one to other users. Raises `DataFolderError`.

    A folder with other things in it is refused: its permissions are nobody's to change.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=_MODE)
        if not _is_data_folder(data_dir):
            raise DataFolderError(f"{data_dir} holds other things and is no data folder of tollmeter: name another one")
        if data_dir.stat().st_mode & 0o077:
            data_dir.chmod(_MODE)
    except OSError as error:
        raise DataFolderError(f"the data folder {data_dir} cannot be used: {error.strerror or error}") from None


def _is_data_folder(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()}
    return LOCK in names or all(name in _EARLIER or name.startswith("demo-") for name in names)


@contextmanager
def owner(data_dir: Path, *, announced: bool = False) -> Iterator[None]:
    """Hold the data folder for this process; announced, it is found from any folder of this user.

    Raises `DataFolderError`, and `AlreadyRunningError` at once when another process has it.
    """
    prepare(data_dir)
    try:
        lock = (data_dir / LOCK).open("a")
    except OSError as error:
        raise DataFolderError(f"the data folder {data_dir} cannot be used: {error.strerror or error}") from None
    with lock:
        if not _take(lock):
            document = stacks.read(data_dir)
            who = f" (pid {document['pid']})" if document else ""
            raise AlreadyRunningError(
                f"a stack already runs on {data_dir}{who}: see `tollmeter status`, `tollmeter down`"
            )
        (data_dir / FILE).unlink(missing_ok=True)  # of a supervisor that was killed
        note = stacks.register(data_dir) if announced else None
        try:
            yield
        finally:
            (data_dir / FILE).unlink(missing_ok=True)
            if note is not None:
                note.unlink(missing_ok=True)


def write(data_dir: Path, document: dict[str, Any]) -> None:
    """Replace `stack.json`; only its owner may read it, as it holds the passwords."""
    write_private(data_dir / FILE, json.dumps(document, indent=1))


def read_ports(data_dir: Path) -> Ports:
    """Return the ports that this folder had; of a folder without a record the broker's, from its configuration."""
    try:
        document = json.loads((data_dir / _PORTS).read_text(encoding="ascii"))
        server = int(document.get("server", 0))  # a folder of before has none
        return Ports(int(document["kafka"]), int(document["clickhouse"]), dict(document["health"]), server)
    except (OSError, ValueError, KeyError, TypeError):
        return Ports(kafka=_port_of_before(data_dir))


def _port_of_before(data_dir: Path) -> int:
    try:
        lines = (data_dir / "kafka" / "server.properties").read_text(encoding="utf-8").splitlines()
        [address] = [line for line in lines if line.startswith("advertised.listeners=")]
        return int(address.rpartition(":")[2])
    except (OSError, ValueError):
        return 0


def write_ports(data_dir: Path, ports: Ports) -> None:
    """Take note of the ports for the next start."""
    document = {
        "kafka": ports.kafka,
        "clickhouse": ports.clickhouse,
        "health": dict(ports.health),
        "server": ports.server,
    }
    write_private(data_dir / _PORTS, json.dumps(document, indent=1))


def _take(lock: IO[str]) -> bool:
    # Readers look by taking a shared lock for an instant, which must not keep a starting supervisor out.
    for _ in range(10):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.02)
        else:
            return True
    return False
