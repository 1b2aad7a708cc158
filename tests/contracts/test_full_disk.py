"""The embedded engine on a disk that becomes full in an instant: every row that it acknowledged is there afterwards."""

import json
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.chaos.machine import Disk
from tests.patience import eventually
from tollmeter.embedded.ports import choose
from tollmeter.embedded.supervisor import Program, Supervisor
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, Unavailable, connect
from tollmeter.sinks.clickhouse.codes import BROKEN_FILES

FRONT = "front"
COLUMNS = "id UInt64, " + ", ".join(f"c{number} LowCardinality(String)" for number in range(40))


class Writer(threading.Thread):
    """Inserts numbers, a few at a time, as fast as it goes; `stored` are those that were acknowledged."""

    def __init__(self, settings: Settings, first: int) -> None:
        super().__init__(daemon=True)
        self._settings, self._next = settings, first
        self.stored: set[int] = set()
        self.refused = 0
        self.ended = threading.Event()

    def run(self) -> None:
        client: ClickHouse | None = None
        while not self.ended.is_set():
            numbers = range(self._next, self._next + 20)
            self._next += 20
            try:
                client = client or connect(self._settings)
                client.insert_rows("kept", ["id"], [[number] for number in numbers])
            except Unavailable as error:
                self.refused += error.code == 243
                self.ended.wait(0.02)
            else:
                self.stored |= {*numbers}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    small = Disk(tmp_path / "clickhouse")
    if reason := small.missing():
        pytest.skip(reason)
    yield small
    small.close()


def present(client: ClickHouse, supervisor: Supervisor) -> set[int] | None:
    """Return what is in the table; None when it cannot be read now. A damaged part: the engine is started again."""
    try:
        return {row["id"] for row in client.query("SELECT id FROM kept")}
    except Unavailable as error:
        if error.code in BROKEN_FILES:
            supervisor.kill(FRONT, signal.SIGTERM)
        return None


def test_acknowledged_rows_outlive_a_full_disk(disk: Disk, tmp_path: Path) -> None:
    users = tmp_path / "users.json"
    users.write_text(json.dumps({"default": {"password": "word"}}))
    (port,) = choose([0])
    command = [sys.executable, "-m", "tollmeter.embedded.front", "--data", str(disk.folder)]
    command += ["--port", str(port), "--users", str(users)]
    settings = Settings(
        clickhouse=f"http://127.0.0.1:{port}", clickhouse_password=SecretStr("word"), clickhouse_timeout_s=5.0
    )
    notes: list[str] = []
    supervisor = Supervisor(notes.append)
    try:
        supervisor.start(Program(FRONT, command, dict, tmp_path / "front.log"))
        client = eventually(lambda: connect(settings))
        client.command(f"CREATE TABLE kept ({COLUMNS}) ENGINE = MergeTree ORDER BY id SETTINGS old_parts_lifetime = 3")
        writers = [Writer(settings, number << 32) for number in range(3)]
        for writer in writers:
            writer.start()
        for round_ in range(1, 3):
            before = sum(len(writer.stored) for writer in writers)
            eventually(lambda before=before: sum(len(writer.stored) for writer in writers) > before + 500)
            disk.fill()
            eventually(lambda round_=round_: supervisor.snapshot()[FRONT].restarts >= round_)
            eventually(lambda: present(client, supervisor) is not None)  # it answers on the full disk
            disk.free()
        before = sum(len(writer.stored) for writer in writers)
        eventually(lambda: sum(len(writer.stored) for writer in writers) > before + 500)
        for writer in writers:
            writer.ended.set()
            writer.join(600)
        found = eventually(lambda: present(client, supervisor))
    finally:
        supervisor.close([[FRONT]])
    assert found is not None
    lost = set.union(*(writer.stored for writer in writers)) - found
    assert not lost, f"{len(lost)} acknowledged rows are gone"
    assert any("exit" in note and "75" in note for note in notes), notes
    assert "the disk is almost full" in (tmp_path / "front.log").read_text()
