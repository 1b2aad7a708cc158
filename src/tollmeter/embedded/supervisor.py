"""Keeps a list of processes alive: each in a group of its own, restarted with a growing pause, stopped in order."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any, TypeVar

from tollmeter.embedded.backoff import LONGEST_S, Backoff

_LAUNCH = str(Path(__file__).with_name("launch.py"))
_POLL_S = 0.2
_LOG_MAX_BYTES = 10 << 20
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Program:
    """What to run. The log is appended to (None: our own output); the ready file is removed before each start.

    The environment is asked for anew at each start: another program may have taken a port in between.
    """

    name: str
    command: Sequence[str]
    environment: Callable[[], Mapping[str, str]] = field(repr=False)
    log: Path | None = None
    ready_file: Path | None = None
    stop_s: float = 20.0


@dataclass
class Running:
    """A program and its process at the moment."""

    program: Program
    process: subprocess.Popen[bytes]
    started_at: float
    backoff: Backoff = field(default_factory=Backoff)
    restarts: int = 0
    restart_at: float | None = None
    held: bool = False
    """Killed on purpose and not to be restarted until asked."""

    @property
    def alive(self) -> bool:
        """Whether the process runs now."""
        return self.process.poll() is None


class Supervisor:
    """One thread starts, watches and stops everything, and outlives all of it.

    The kernel ends a child when the *thread* that started it ends, so no other thread may start one.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._running: dict[str, Running] = {}
        self._requests: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[Any]]] = SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._thread.start()

    def start(self, program: Program) -> int:
        """Start a program, keep it alive from now on, and return its pid."""
        return self._ask(lambda: self._start(program))

    def stop(self, name: str) -> None:
        """Stop a program with SIGTERM, after its grace with SIGKILL, and forget it."""
        self._ask(lambda: self._stop_all([name]))

    def kill(self, name: str, number: int, *, restart: bool = True) -> None:
        """Send a signal to a program's process; without `restart` it stays down if it ends."""

        def act() -> None:
            running = self._running[name]
            running.held = not restart
            if running.alive:
                os.kill(running.process.pid, number)

        self._ask(act)

    def resume(self, name: str) -> int:
        """Start again a program that was killed with `restart=False`, and return its pid."""

        def act() -> int:
            running = self._running[name]
            running.process.wait(timeout=running.program.stop_s)
            running.held = False
            self._spawn_again(running)
            return running.process.pid

        return self._ask(act)

    def snapshot(self) -> dict[str, Running]:
        """Return the programs by name, in the order of their start."""
        return dict(self._running)

    def close(self, order: Sequence[Sequence[str]]) -> None:
        """Stop the named groups one after the other (the members of a group together), then whatever is left."""
        if self._closing.is_set():
            return
        for names in [*order, tuple(self._running)]:
            self._ask(partial(self._stop_all, names))
        self._closing.set()
        self._ask(lambda: None)  # wakes it
        self._thread.join()

    def _ask(self, action: Callable[[], _Value]) -> _Value:
        """Run an action in the supervising thread and return or raise what it does."""
        answer: SimpleQueue[Any] = SimpleQueue()
        self._requests.put((action, answer))
        ok, value = answer.get()
        if not ok:
            raise value
        result: _Value = value
        return result

    def _watch(self) -> None:
        while not self._closing.is_set():
            with suppress(Empty):
                action, answer = self._requests.get(timeout=_POLL_S)
                try:
                    answer.put((True, action()))
                except Exception as error:
                    answer.put((False, error))
            for running in list(self._running.values()):
                self._look(running)

    def _look(self, running: Running) -> None:
        now = time.monotonic()
        if running.held or running.alive:
            return
        if running.restart_at is None:
            running.backoff, pause = running.backoff.after_exit(now - running.started_at)
            running.restart_at = now + pause
            how = _describe(running.process.returncode)
            where = f" (log: {running.program.log})" if running.program.log else ""
            self._note(f"{running.program.name} {how}; again in {pause:g} s{where}")
        elif now >= running.restart_at:
            try:
                self._spawn_again(running)
            except OSError as error:  # out of processes, memory or disk: the next attempt may find some
                running.restart_at = now + LONGEST_S
                self._note(f"{running.program.name} could not be started ({error}); again in {LONGEST_S:g} s")

    def _start(self, program: Program) -> int:
        if program.name in self._running:
            raise ValueError(f"{program.name} is started already")
        self._running[program.name] = Running(program, _spawn(program), time.monotonic())
        return self._running[program.name].process.pid

    def _spawn_again(self, running: Running) -> None:
        running.process = _spawn(running.program)
        running.started_at = time.monotonic()
        running.restarts += 1
        running.restart_at = None

    def _stop_all(self, names: Sequence[str]) -> None:
        leaving = [self._running.pop(name) for name in names if name in self._running]
        for running in leaving:
            _signal_group(running.process, signal.SIGTERM)
            _signal_group(running.process, signal.SIGCONT)
        for running in leaving:
            try:
                running.process.wait(timeout=running.program.stop_s)
            except subprocess.TimeoutExpired:
                self._note(f"{running.program.name} did not stop in {running.program.stop_s:g} s: killed")
            _signal_group(running.process, signal.SIGKILL)  # and whatever it started
            running.process.wait()
            if running.program.ready_file:
                running.program.ready_file.unlink(missing_ok=True)


def _spawn(program: Program) -> subprocess.Popen[bytes]:
    if program.ready_file:
        program.ready_file.unlink(missing_ok=True)
    command = [sys.executable, "-I", "-S", _LAUNCH, str(os.getpid()), *program.command]
    with _output(program.log) as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out and subprocess.STDOUT,
            env=dict(program.environment()),
            process_group=0,
            umask=0o077,  # what it writes is nobody else's to read
        )


@contextmanager
def _output(log: Path | None) -> Iterator[IO[bytes] | None]:
    """Give the file that a process writes to, put aside first when it is long; None for our own output."""
    if log is None:
        yield None
        return
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_MAX_BYTES:
            log.replace(log.with_suffix(".log.1"))
    with open(log, "ab", opener=partial(os.open, mode=0o600)) as file:
        yield file


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _describe(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
