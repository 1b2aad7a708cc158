"""Processes that begin warm: a server imports the package once and forks a child for every command of ours.

A child is a process like any other, with arguments, environment, folder and streams of its own; only its imports are
done already. A test that is about starting itself starts `sys.executable`. Polars is left out: it starts threads when
it is loaded, and a fork has none of them.
"""

import array
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
PRELOADED = (
    *("numpy", "aiohttp", "faust.app", "aiokafka.admin", "fastavro", "orjson", "yaml", "prometheus_client"),
    *("clickhouse_connect", "clickhouse_connect.driver.httpclient", "genai_prices.data", "currency_converter"),
    *("rich.console", "rich.table", "tollmeter.cli.root", "tollmeter.broker.layout"),
    *("tollmeter.producers.client.client", "tollmeter.admin.setup", "tollmeter.streams.engine.consumer"),
    *("tollmeter.streams.price.book.plans", "tollmeter.server.parts", "faust.worker"),
)
_FEW_THREADS = {"POLARS_MAX_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_LENGTH = array.array("I").itemsize


class Child:
    """A process of the server: what the tests use of `subprocess.Popen`."""

    def __init__(self, arguments: Sequence[str], connection: socket.socket, pid: int) -> None:
        self.args, self.pid, self._connection = list(arguments), pid, connection
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative after a signal, None while the process runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code. Raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._connection, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0)
            with self._connection:
                try:
                    self.returncode = int(_receive(self._connection)[0]["returncode"])
                except (EOFError, ConnectionError):
                    self.returncode = -signal.SIGKILL  # the server has ended, and its children with it
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to a process that has not ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The server's process, started with the first child."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fork")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _address(self) -> str:
        return str(Path(self._folder.name, "socket"))

    def _started(self) -> None:
        if self._process is not None:
            return
        environment = {**os.environ, **_FEW_THREADS, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        command = [sys.executable, "-m", "tests.forkserver", self._address]
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def start(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdout: IO[Any],
        stderr: IO[Any] | None = None,
        stdin: IO[Any] | None = None,
        folder: Path | None = None,
    ) -> Child:
        """Start `tollmeter ARGUMENTS`; without `stderr` errors go where the output goes."""
        self._started()
        wanted = {"arguments": list(arguments), "environment": dict(environment), "folder": str(folder or Path.cwd())}
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._address)
        with Path(os.devnull).open("rb") as nothing:
            streams = [stdin or nothing, stdout, stderr or stdout]
            _send(connection, wanted, [stream.fileno() for stream in streams])
            pid = int(_receive(connection)[0]["pid"])
        return Child(arguments, connection, pid)

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, folder: Path, text: str = "", timeout: float
    ) -> "subprocess.CompletedProcess[str]":
        """Run `tollmeter ARGUMENTS` to its end. Raises `subprocess.TimeoutExpired`."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
            given.write(text.encode())
            given.seek(0)
            child = self.start(arguments, environment, stdin=given, stdout=out, stderr=error, folder=folder)
            try:
                code = child.wait(timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                raise
            said = []
            for stream in (out, error):
                stream.seek(0)
                said.append(stream.read().decode())
        return subprocess.CompletedProcess(child.args, code, *said)

    def close(self) -> None:
        """End the server and whatever it still runs."""
        if self._process is not None:
            self._process.communicate()
        self._folder.cleanup()


def _send(connection: socket.socket, document: Mapping[str, Any], streams: Sequence[int] = ()) -> None:
    text = json.dumps(document).encode()
    length = array.array("I", [len(text)]).tobytes()
    socket.send_fds(connection, [length], list(streams))
    connection.sendall(text)


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    head, streams, _flags, _address = socket.recv_fds(connection, _LENGTH, 3)
    if not head:
        raise EOFError("the other side has gone")
    left = array.array("I", head)[0]
    text = b""
    while len(text) < left:
        text += connection.recv(left - len(text))
    return json.loads(text), streams


class Server:
    """Forks a child for each connection and tells its exit code there; ends, with every child, when the tests do."""

    def __init__(self, address: str) -> None:
        for name in PRELOADED:
            import_module(name)
        import_module("tollmeter.streams.price.book.compile").compile_book()  # the book that ships, for all of them
        assert "polars" not in sys.modules
        assert threading.active_count() == 1, "a fork has one thread"
        gc.freeze()
        self._children: dict[int, socket.socket] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen(64)
        self._woken, self._wakes = os.pipe()
        for end in (self._woken, self._wakes):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wakes)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda number, frame: self._end())

    def serve(self) -> list[str]:
        """Return in a child, with its arguments."""
        print("ready", flush=True)
        with selectors.DefaultSelector() as selector:
            for source in (self._listener, self._woken, sys.stdin):
                selector.register(source, selectors.EVENT_READ)
            while True:
                for source in [key.fileobj for key, _ in selector.select()]:
                    if source is self._listener:
                        wanted = self._fork()
                        if wanted is not None:
                            return _become(*wanted)
                    elif source is sys.stdin:  # its other end is closed
                        self._end()
                    else:
                        self._tell_ends()

    def _fork(self) -> tuple[dict[str, Any], list[int]] | None:
        """Return in the child what it shall be, in the server nothing."""
        connection, _ = self._listener.accept()
        wanted, streams = _receive(connection)
        pid = os.fork()
        if pid:
            for stream in streams:
                os.close(stream)
            self._children[pid] = connection
            _send(connection, {"pid": pid})
            return None
        signal.set_wakeup_fd(-1)
        for ours in (connection, self._listener, *self._children.values()):
            ours.close()
        for end in (self._woken, self._wakes):
            os.close(end)
        return wanted, streams

    def _tell_ends(self) -> None:
        """Say of every child that has ended how."""
        with suppress(BlockingIOError):
            os.read(self._woken, 4096)
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with self._children.pop(pid) as connection, suppress(OSError):
                _send(connection, {"returncode": os.waitstatus_to_exitcode(status)})

    def _end(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        os._exit(0)


def _become(wanted: Mapping[str, Any], streams: Sequence[int]) -> list[str]:
    """Take on signals, streams, environment and folder as after an exec."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
        for number, mode in enumerate(("r", "w", "w"))
    )
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["folder"])
    arguments: list[str] = wanted["arguments"]
    return arguments


if __name__ == "__main__":
    sys.argv[1:] = Server(sys.argv[1]).serve()
    from tollmeter.__main__ import main

    sys.argv[0] = "tollmeter"
    sys.exit(main())
