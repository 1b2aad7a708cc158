"""A bootstrap address in front of the broker that lets nobody through until it is opened."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class Gate:
    """A bootstrap address in front of the broker that refuses everyone until it is opened."""

    def __init__(self, broker: str) -> None:
        host, _, port = broker.rpartition(":")
        self._broker = (host, int(port))
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def open(self) -> None:
        """Let everyone through from now on. (Bound but not listening, a port refuses.)"""
        self._listener.listen()
        self._start(self._accept)

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            outer = socket.create_connection(self._broker)
            for source, target in ((inner, outer), (outer, inner)):
                self._start(_pump, source, target)

    def _start(self, work: Callable[..., None], *given: socket.socket) -> None:
        self._threads.append(threading.Thread(target=work, args=given, daemon=True))
        self._threads[-1].start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Copy until either end closes; each end is closed by the thread that reads it."""
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    source.close()
