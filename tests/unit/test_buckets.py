"""Buckets that processes share: counted once between them, and no fault of the file costs a call."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tollmeter.producers.guard import buckets
from tollmeter.producers.guard.access import AccessView
from tollmeter.producers.guard.buckets import SLOTS, HostBuckets
from tollmeter.schemas.access import RateLimit

LIMIT = RateLimit(scope="client_ip", requests=2, window_s=600, burst=2)
NOW = 10**12
TAKING = """
import sys
from pathlib import Path
from tests.unit.test_buckets import view, passed
print(passed(view(Path(sys.argv[1])), 40))
"""


def view(path: Path, limit: RateLimit = LIMIT) -> AccessView:
    made = AccessView(HostBuckets(path))
    made.apply(limit.key, limit.model_dump_json().encode())
    return made


def passed(one: AccessView, calls: int, address: str = "192.0.2.1") -> int:
    return sum(one.take("acme", (("client_ip", address),), 0, NOW) is None for _ in range(calls))


def test_processes_at_once_pass_what_one_limit_lets_pass(tmp_path: Path) -> None:
    path = tmp_path / "t.rates"
    wide = RateLimit(scope="client_ip", requests=50, window_s=600, burst=50)
    taking = TAKING.replace("view(Path(sys.argv[1]))", f"view(Path(sys.argv[1]), RateLimit(**{wide.model_dump()!r}))")
    taking = "from tollmeter.schemas.access import RateLimit\n" + taking
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(("src", "."))}
    running = [
        subprocess.Popen([sys.executable, "-c", taking, str(path)], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(3)
    ]
    assert sum(int(one.communicate()[0]) for one in running) == 50
    assert (path.stat().st_mode & 0o777, path.stat().st_size) == (0o600, SLOTS * 16)


def test_a_refusal_says_who_counted(tmp_path: Path) -> None:
    first, second = view(tmp_path / "t.rates"), view(tmp_path / "t.rates")
    assert (passed(first, 1), passed(second, 5), passed(first, 1)) == (1, 1, 0)
    found = first.take("acme", (("client_ip", "192.0.2.1"),), 0, NOW)
    assert found is not None
    assert found.counted_by == "host"
    assert passed(second, 1, "192.0.2.2") == 1


def test_what_was_counted_before_a_restart_of_the_machine_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert passed(view(tmp_path / "t.rates"), 3) == 2
    monkeypatch.setattr(buckets, "_boot_id", lambda: "another boot")
    assert passed(view(tmp_path / "t.rates"), 3) == 2


def test_a_lock_that_nobody_lets_go_of_costs_no_call(tmp_path: Path) -> None:
    path = tmp_path / "t.rates"
    held = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    one = view(path)
    assert passed(one, 3) == 2
    found = one.take("acme", (("client_ip", "192.0.2.1"),), 0, NOW)
    assert found is not None
    assert found.counted_by == "process"
    os.close(held)


def test_a_file_that_cannot_be_had_costs_no_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    assert passed(view(tmp_path / "taken" / "t.rates"), 3) == 2
    assert "rate limits count in this process alone" in caplog.text


def test_a_file_cut_short_by_somebody_is_made_whole(tmp_path: Path) -> None:
    (tmp_path / "t.rates").write_bytes(b"x" * 100)
    assert passed(view(tmp_path / "t.rates"), 3) == 2


def test_the_child_of_a_fork_counts_at_the_same_file_with_a_lock_of_its_own(tmp_path: Path) -> None:
    one = view(tmp_path / "t.rates")
    assert passed(one, 1) == 1
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        one.after_fork()
        os.write(write, b"%d" % passed(one, 5))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 10) == b"1"
    assert passed(one, 5) == 0


def test_many_addresses_push_out_only_buckets_that_are_full_sooner(tmp_path: Path) -> None:
    one = view(tmp_path / "t.rates")
    assert passed(one, 2) == 2
    for number in range(2_000):
        assert passed(one, 1, f"10.0.{number >> 8}.{number & 255}") == 1
    assert passed(one, 1) == 0
