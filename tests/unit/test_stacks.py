"""Which stack is meant: the one named, the one of this folder or above, the only one that runs; else it is said."""

import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tollmeter import stacks
from tollmeter.embedded import ports, state
from tollmeter.embedded.addresses import Addresses
from tollmeter.embedded.jars import EmbeddedError
from tollmeter.embedded.state import AlreadyRunningError, DataFolderError, Ports
from tollmeter.settings import Settings, SettingsError

SETTINGS = Settings(kafka="127.0.0.1:0", clickhouse="http://127.0.0.1:0")


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


@pytest.fixture(autouse=True)
def _nobody_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def start(held: ExitStack, folder: Path) -> Path:
    held.enter_context(state.owner(folder, announced=True))
    state.write(folder, {"pid": 1, **stacks.describe(Settings(kafka="127.0.0.1:40001"))})
    return folder


def env(tmp_path: Path, **named: str) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(tmp_path / "state"), **{f"TOLLMETER_{name}": value for name, value in named.items()}}


def test_nothing_runs(tmp_path: Path) -> None:
    found = stacks.find(env(tmp_path), tmp_path)
    assert (found.folder, found.document, found.ambiguous) == (None, None, False)
    for way in ("tollmeter up", "TOLLMETER_DATA_DIR", "TOLLMETER_KAFKA", "TOLLMETER_CLICKHOUSE"):
        assert way in found.why
    assert "\n" not in found.why


def test_the_folder_above_wins_over_one_that_runs_elsewhere(tmp_path: Path, running: ExitStack) -> None:
    mine, other = tmp_path / "a" / ".tollmeter", tmp_path / "b" / ".tollmeter"
    start(running, other)
    below = tmp_path / "a" / "x" / "y"
    below.mkdir(parents=True)
    assert stacks.find(env(tmp_path), below).folder == other, "the only one"
    with ExitStack() as held:
        start(held, mine)
        assert stacks.find(env(tmp_path), below).folder == mine
    found = stacks.find(env(tmp_path), below)
    assert (found.folder, found.document) == (mine, None), "it is stopped: the other one is not meant"
    assert str(mine) in found.why


def test_which_of_several_is_not_guessed(tmp_path: Path, running: ExitStack) -> None:
    first, second = start(running, tmp_path / "a"), start(running, tmp_path / "b")
    found = stacks.find(env(tmp_path), tmp_path)
    assert found.ambiguous
    assert found.document is None
    assert str(first) in found.why
    assert str(second) in found.why
    assert "TOLLMETER_DATA_DIR" in found.why
    assert stacks.find(env(tmp_path, DATA_DIR=str(second)), tmp_path).folder == second


@pytest.mark.parametrize("address", ["KAFKA", "CLICKHOUSE"])
def test_addresses_in_the_environment_are_not_mixed_with_a_stack_that_was_not_named(
    tmp_path: Path, running: ExitStack, address: str
) -> None:
    folder = start(running, tmp_path / ".tollmeter")
    given = "kafka:9092" if address == "KAFKA" else "http://ch:8123"
    assert stacks.find(env(tmp_path, **{address: given}), tmp_path) == stacks.Found()
    assert stacks.find(env(tmp_path, **{address: given.rpartition(":")[0] + ":0"}), tmp_path).folder == folder
    assert stacks.find(env(tmp_path, **{address: given}, DATA_DIR=str(folder)), tmp_path).folder == folder


def test_a_killed_supervisor_leaves_nothing_that_counts(tmp_path: Path, running: ExitStack) -> None:
    dead, alive = tmp_path / "dead", start(running, tmp_path / "alive")
    code = (
        "import os\nfrom pathlib import Path\nfrom tollmeter.embedded import state\n"
        f"with state.owner(Path({str(dead)!r}), announced=True):\n    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert len(list((tmp_path / "state/tollmeter/stacks").iterdir())) == 2
    assert stacks.running_folders(os.environ) == [alive]
    assert stacks.running_folders(os.environ) == [alive]
    with ExitStack() as held:
        start(held, tmp_path / "third")
        assert len(list((tmp_path / "state/tollmeter/stacks").iterdir())) == 2, "the next start clears it away"
    assert len(list((tmp_path / "state/tollmeter/stacks").iterdir())) == 1, "an end in order does, too"


def test_the_record_is_private(tmp_path: Path, running: ExitStack) -> None:
    start(running, tmp_path / "a")
    notes = tmp_path / "state/tollmeter/stacks"
    assert stat.S_IMODE(notes.stat().st_mode) == 0o700
    assert [stat.S_IMODE(note.stat().st_mode) for note in notes.iterdir()] == [0o600]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"data_dir": 7}', '{"data_dir": "/no/such"}'])
def test_a_broken_record_is_passed_over(tmp_path: Path, running: ExitStack, content: str) -> None:
    folder = start(running, tmp_path / "a")
    (tmp_path / "state/tollmeter/stacks/x.json").write_text(content)
    assert stacks.find(env(tmp_path), tmp_path).folder == folder


def test_without_a_writable_state_folder_a_stack_still_runs(tmp_path: Path, running: ExitStack) -> None:
    (tmp_path / "state").write_text("no folder")
    folder = start(running, tmp_path / "here" / ".tollmeter")
    assert stacks.find(env(tmp_path), tmp_path / "here").folder == folder


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_the_folder_of_another_user_is_never_taken(tmp_path: Path, running: ExitStack) -> None:
    folder = start(running, tmp_path / ".tollmeter")
    assert stacks.nearest(tmp_path) == folder
    os.chown(folder, 65_534, 65_534)
    try:
        assert stacks.nearest(tmp_path) is None
        assert stacks.running_folders(os.environ) == []
    finally:
        os.chown(folder, 0, 0)


def test_what_uses_the_line_says_that_none_is_meant() -> None:
    settings = Settings().without_line("no stack runs: do this")
    with pytest.raises(SettingsError, match="do this"):
        settings.kafka_options()
    with pytest.raises(SettingsError, match="do this"):
        settings.model_copy(update={"clickhouse_timeout_s": 1.0}).require_line()
    Settings().require_line()


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o777])
def test_a_data_folder_is_closed_to_others(tmp_path: Path, running: ExitStack, mode: int) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(mode)
    start(running, folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("")
    tmp_path.chmod(0o755)
    with pytest.raises(DataFolderError, match="holds other things"):
        state.prepare(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_data_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataFolderError, match="cannot be used"):
        state.prepare(tmp_path / "file" / "data")


def test_a_second_owner_is_refused(tmp_path: Path, running: ExitStack) -> None:
    start(running, tmp_path / "a")
    with pytest.raises(AlreadyRunningError, match="pid 1"), state.owner(tmp_path / "a"):
        pass


def addresses(folder: Path, notes: list[str] | None = None, **moves: int | None) -> Addresses:
    return Addresses(folder, SETTINGS, moves, (notes if notes is not None else []).append)


def test_a_folder_keeps_its_ports(tmp_path: Path) -> None:
    kafka, clickhouse, _ = addresses(tmp_path).choose()
    addresses(tmp_path).keep(kafka, clickhouse)
    assert addresses(tmp_path).choose()[:2] == [kafka, clickhouse]
    with ports.listener(kafka):
        with pytest.raises(EmbeddedError, match=rf"port {kafka} .*--kafka-port 0"):
            addresses(tmp_path).choose()
        moved = addresses(tmp_path, kafka=0).choose()
        assert moved[0] != kafka
        assert moved[1] == clickhouse
    with ports.listener(clickhouse), pytest.raises(EmbeddedError, match=r"--clickhouse-port 0"):
        addresses(tmp_path).choose()


def test_a_fresh_folder_takes_others_and_says_so(tmp_path: Path) -> None:
    notes: list[str] = []
    with ports.listener(0) as taken:
        port = taken.getsockname()[1]
        wish = Settings(kafka=f"127.0.0.1:{port}", clickhouse="http://127.0.0.1:0")
        chosen = Addresses(tmp_path, wish, {}, notes.append).choose()
    assert chosen[0] != port
    assert [str(port) in note and "taken" in note for note in notes] == [True]


def test_a_port_that_was_asked_for_is_that_or_an_error(tmp_path: Path) -> None:
    with ports.listener(0) as taken, pytest.raises(EmbeddedError, match="is taken"):
        addresses(tmp_path, kafka=taken.getsockname()[1]).choose()


def test_the_port_of_a_folder_made_before_ports_were_kept(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    properties = "process.roles=broker,controller\nadvertised.listeners=PLAINTEXT://127.0.0.1:43210\n"
    (tmp_path / "kafka" / "server.properties").write_text(properties)
    assert state.read_ports(tmp_path) == Ports(kafka=43_210)
    (tmp_path / "ports.json").write_text("{")
    assert state.read_ports(tmp_path) == Ports(kafka=43_210)


def test_health_ports_stay_and_give_way(tmp_path: Path) -> None:
    first = addresses(tmp_path)
    port = first.health("price")
    assert addresses(tmp_path).health("price") == port
    with ports.listener(port):
        notes: list[str] = []
        assert addresses(tmp_path, notes).health("price") not in (0, port)
        assert str(port) in notes[0]
    assert first.health("another price") == 0


def test_a_lock_of_a_reader_keeps_no_supervisor_out(tmp_path: Path, running: ExitStack) -> None:
    state.prepare(tmp_path / "a")
    with (tmp_path / "a" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        fcntl.flock(lock, fcntl.LOCK_UN)
        start(running, tmp_path / "a")


def test_a_session_that_outlasts_a_request_is_refused_before_a_worker_starts() -> None:
    """Faust ends a worker whose session is longer than the 90 s that a request may take."""
    assert Settings.from_environment({"TOLLMETER_SESSION_TIMEOUT_S": "90"}).session_timeout_s == 90
    with pytest.raises(SettingsError, match=r"TOLLMETER_SESSION_TIMEOUT_S: .*less than or equal to 90"):
        Settings.from_environment({"TOLLMETER_SESSION_TIMEOUT_S": "120"})
