"""However a Python process ends in order, what it recorded is delivered or on disk; real processes, no broker."""

import subprocess
import sys
from pathlib import Path

import pytest

from tollmeter.producers.client.spool import waiting

HEAD = """
import asyncio, concurrent.futures, multiprocessing, os, sys, threading, time
from tollmeter import UsageProducer
CALL = {{"provider": "openai", "model_sent": "gpt-4o"}}

def make():
    return UsageProducer("127.0.0.1:1", service="s", spool_dir={folder!r})

def record(count=5):
    for _ in range(count):
        assert producer.record(**CALL)

def record_and_fail():
    record()
    raise SystemExit(3)

def record_in_a_thread():
    record(2)
    threading.Thread(target=lambda: (time.sleep(0.3), record(3))).start()

def record_in_a_loop():
    async def work():
        await asyncio.sleep(0)
        record()
    asyncio.run(work())

def make_and_record():
    global producer
    producer = make()
    record()
"""
CHILDREN = """
producer = make()
if __name__ == "__main__":
    {before}
    context = multiprocessing.get_context({method!r})
    {preload}
    children = [context.Process(target={target}) for _ in range(2)]
    for child in children: child.start()
    for child in children: child.join()
    sys.exit(0 if all(child.exitcode in (0, 3) for child in children) else 9)
"""
ENDS = {
    "return": ("record()", 5),
    "sys.exit": ("record(); sys.exit(0)", 5),
    "exception": ("record(); raise KeyboardInterrupt", 5),
    "thread": ("record_in_a_thread()", 5),
    "loop": ("record_in_a_loop()", 5),
    "fork": ("pid = os.fork(); record(); os.waitpid(pid, 0) if pid else sys.exit(0)", 10),
    "executor": (
        (
            "with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context('fork')) as executor:\n"
            "    executor.submit(record).result()"
        ),
        5,
    ),
    "pool that is closed": (
        "pool = multiprocessing.get_context('fork').Pool(1); pool.apply(record); pool.close(); pool.join()",
        5,
    ),
    "grandchild": (
        (
            "context = multiprocessing.get_context('fork')\n"
            "def begin(target):\n    child = context.Process(target=target); child.start(); child.join()\n"
            "begin(lambda: (begin(record), record()))"
        ),
        10,
    ),
}


def on_disk(tmp_path: Path, code: str) -> int:
    """Run a program to its end and return how many events it left on disk."""
    file = tmp_path / "program.py"
    file.write_text(HEAD.format(folder=str(tmp_path / "spool")) + code)
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode in (0, 130, -2, 1), done.stderr
    assert "AssertionError" not in done.stderr, done.stderr
    return sum(waiting(tmp_path / "spool").values())


@pytest.mark.parametrize("end", ENDS)
def test_an_end_in_order_loses_nothing(tmp_path: Path, end: str) -> None:
    code, expected = ENDS[end]
    assert on_disk(tmp_path, f"producer = make()\n{code}\n") == expected


@pytest.mark.parametrize(
    "target", ["record", "record_and_fail", "record_in_a_thread", "record_in_a_loop", "make_and_record"]
)
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_of_multiprocessing_lose_nothing(tmp_path: Path, method: str, target: str) -> None:
    assert on_disk(tmp_path, CHILDREN.format(method=method, target=target, before="", preload="")) == 10


def test_a_preloaded_fork_server(tmp_path: Path) -> None:
    preload = "multiprocessing.set_forkserver_preload(['tollmeter'])"
    assert on_disk(tmp_path, CHILDREN.format(method="forkserver", target="record", before="", preload=preload)) == 10


def test_a_parent_that_has_recorded_too(tmp_path: Path) -> None:
    code = CHILDREN.format(method="fork", target="record", before="record(7)", preload="")
    assert on_disk(tmp_path, code) == 17
