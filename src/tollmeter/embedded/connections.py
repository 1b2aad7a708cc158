"""Connections are bounded, and whoever only waits makes room: first those that never showed a writer's password."""

import io
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

MAX_CONNECTIONS = 128


@dataclass
class _State:
    since: float
    trusted: bool = False
    """A writer has shown its password on it."""
    working: bool = False


class Connections:
    """The open connections of the server, each with a thread of its own."""

    def __init__(self, limit: int = MAX_CONNECTIONS) -> None:
        self._limit = limit
        self._states: dict[socket.socket, _State] = {}
        self._lock = threading.Lock()

    def add(self, connection: socket.socket) -> bool:
        """Take in a connection, closing another one if there are too many; False when all of them are in work."""
        with self._lock:
            if len(self._states) >= self._limit:
                waiting = [
                    (state.trusted, state.since, key) for key, state in self._states.items() if not state.working
                ]
                if not waiting:
                    return False
                _, _, oldest = min(waiting, key=lambda entry: entry[:2])
                del self._states[oldest]
                _shut(oldest)
            self._states[connection] = _State(time.monotonic())
            return True

    def remove(self, connection: socket.socket) -> None:
        """Forget a connection that has ended."""
        with self._lock:
            self._states.pop(connection, None)

    def work(self, connection: socket.socket, *, trusted: bool) -> None:
        """A request is in work: the connection is kept. Raises `ConnectionError` when it had to make room before."""
        with self._lock:
            state = self._states.get(connection)
            if state is None:
                raise ConnectionAbortedError
            state.working, state.trusted = True, state.trusted or trusted

    def wait(self, connection: socket.socket) -> None:
        """The request is answered; the connection waits for the next one."""
        with self._lock:
            if state := self._states.get(connection):
                state.working, state.since = False, time.monotonic()


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # its thread reads the end and closes it


class TimedStream(io.RawIOBase):
    """A socket whose reads and writes all end at one deadline, however slowly the bytes drip.

    `idle` waits for the first byte of a request; it begins the time in which the rest of the head must come.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._deadline = time.monotonic()
        self._head_s = 0.0

    def readable(self) -> bool:
        """It is."""
        return True

    def writable(self) -> bool:
        """It is."""
        return True

    def idle(self, seconds: float, head_s: float) -> None:
        """Wait so long for a request, and from its first byte on so long for its head."""
        self._deadline, self._head_s = time.monotonic() + seconds, head_s

    def within(self, seconds: float) -> None:
        """From now on everything must be done in so many seconds."""
        self._deadline, self._head_s = time.monotonic() + seconds, 0.0

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Read some bytes. Raises `TimeoutError`."""
        self._limit()
        size = self._socket.recv_into(buffer)
        if self._head_s:
            self.within(self._head_s)
        return size

    def write(self, data: "ReadableBuffer") -> int:
        """Write some bytes. Raises `TimeoutError`."""
        self._limit()
        return self._socket.send(data)

    def _limit(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
