"""Runs the server until it is told to stop: what was begun is answered within ten seconds, then it lets go."""

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

import uvicorn
from uvicorn.config import Config

from tollmeter.server.app import Server
from tollmeter.server.http import protocol
from tollmeter.server.parts import build
from tollmeter.server.settings import ServerSettings
from tollmeter.settings import Settings

log = logging.getLogger("tollmeter.server")

GRACE_S = 10
KEEP_ALIVE_S = 5
BACKLOG = 2_048
LOOK_S = 1.0
READY_FILE, HEALTH_FILE = "TOLLMETER_READY_FILE", "TOLLMETER_HEALTH_FILE"


class ListenError(Exception):
    """The address cannot be listened at; the text says why and what to do."""


class _Server(uvicorn.Server):
    """Says where it listens, in the log and in the files that a supervisor reads."""

    _loop: asyncio.AbstractEventLoop | None

    def __init__(self, config: Config, address: str, port: int) -> None:
        super().__init__(config)
        self._address, self._port = address, port
        self._told, self._loop = asyncio.Event(), None

    async def main_loop(self) -> None:
        """Look around once a second, and at once when told to end; uvicorn looks ten times a second."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._told.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._told.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        log.info("listening at %s", self._address)
        _write_files(self._port)


def serve(line: Settings, settings: ServerSettings) -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit code. Raises `ListenError`."""
    _raise_file_limit()
    listener = _listen(settings)
    port = int(listener.getsockname()[1])
    scheme = "https" if settings.server_tls_cert else "http"
    host = f"[{settings.server_host}]" if ":" in settings.server_host else settings.server_host
    config = Config(
        Server(build(line, settings)),
        loop="uvloop",
        http=protocol(settings, line.rate_ipv6_prefix),
        ws="none",
        lifespan="on",
        backlog=BACKLOG,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        ssl_certfile=settings.server_tls_cert or None,
        ssl_keyfile=settings.server_tls_key or None,
    )
    server = _Server(config, f"{scheme}://{host}:{port}", port)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises again what it was stopped by
        signal.signal(number, lambda *_: None)
    try:
        server.run(sockets=[listener])
    except OSError as error:  # a certificate that cannot be read
        raise ListenError(f"the server cannot start: {error}") from None
    sys.stderr.flush()
    return 0


def _write_files(port: int) -> None:
    for name, text in ((HEALTH_FILE, f"{port}\n"), (READY_FILE, "")):
        if path := os.environ.get(name):
            Path(path).write_text(text, encoding="ascii")


def _listen(settings: ServerSettings) -> socket.socket:
    host, port = settings.server_host, settings.server_port
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        raise ListenError(
            f"SERVER_PORT: port {port} of {host} cannot be used ({error.strerror or error}): choose another one, "
            "or 0 for any free one"
        ) from None
    listener.setblocking(False)
    return listener


def _raise_file_limit() -> None:
    """Connections are files, and the usual limit is low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 16_384 if hard == resource.RLIM_INFINITY else min(hard, 16_384)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
