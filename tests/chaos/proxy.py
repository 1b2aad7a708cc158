"""A TCP proxy on loopback that passes bytes on, late, not at all, or loses the answer to a request that was executed.

pass        everything goes on
slow        each piece waits `seconds` first
blackhole   connections stay open, nothing comes through; what was read goes on when the mode ends
refuse      new connections are reset at once, open ones are cut
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

Mode = Literal["pass", "slow", "blackhole", "refuse"]
PIECE = 65_536


class Proxy:
    """One listening port, one place behind it. All methods belong to the loop that `start` ran in."""

    def __init__(self, host: str, port: int) -> None:
        self._behind = host, port
        self.port = 0
        self.mode: Mode = "pass"
        self.seconds = 0.0
        self.answers_lost = 0
        self._passable = asyncio.Event()
        self._passable.set()
        self._lose_marked = b""
        self._lose_left = 0
        self._awaited: tuple[bytes, Callable[[], None]] | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> "Proxy":
        """Listen on a port, a free one unless told."""
        self._server = await asyncio.start_server(self._serve, host, port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Cut everything and stop listening."""
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    def switch(self, mode: Mode, seconds: float = 0.0) -> None:
        """Behave so from now on, also towards connections that are open."""
        self.mode, self.seconds = mode, seconds
        if mode == "blackhole":
            self._passable.clear()
        else:
            self._passable.set()
        if mode == "refuse":
            self.cut()

    def cut(self) -> None:
        """Reset every open connection."""
        for writer in list(self._open):
            _reset(writer)

    def lose_answers(self, count: int, mark: bytes) -> None:
        """Pass on the next `count` requests that contain the mark, and cut the connection when the answer comes."""
        self._lose_left, self._lose_marked = count, mark

    def when_passing(self, mark: bytes, act: Callable[[], None]) -> None:
        """Call `act` once, as soon as a request that contains the mark has been passed on."""
        self._awaited = mark, act

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == "refuse":
            _reset(writer)
            return
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self._open.add(writer)
        try:
            back, onward = await asyncio.open_connection(*self._behind)
        except OSError:
            _reset(writer)
            self._open.discard(writer)
            return
        self._open.add(onward)
        asked = asyncio.Event()  # set while an answer of this connection is to be lost
        try:
            await asyncio.gather(self._up(reader, onward, asked), self._down(back, writer, onward, asked))
        finally:
            self._open -= {writer, onward}
            for half in (writer, onward):
                half.close()
                with suppress(OSError):
                    await half.wait_closed()

    async def _up(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, asked: asyncio.Event) -> None:
        with suppress(OSError):
            while piece := await source.read(PIECE):
                await self._delay()
                if self._lose_left and self._lose_marked in piece:
                    self._lose_left -= 1
                    asked.set()
                sink.write(piece)
                await sink.drain()
                if self._awaited and self._awaited[0] in piece:
                    act, self._awaited = self._awaited[1], None
                    act()
        sink.close()

    async def _down(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        onward: asyncio.StreamWriter,
        asked: asyncio.Event,
    ) -> None:
        with suppress(OSError):
            while piece := await source.read(PIECE):
                if asked.is_set():
                    self.answers_lost += 1
                    _reset(sink)
                    _reset(onward)
                    return
                await self._delay()
                sink.write(piece)
                await sink.drain()
        sink.close()

    async def _delay(self) -> None:
        if self.mode == "slow":
            await asyncio.sleep(self.seconds)
        await self._passable.wait()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: linger on, for no time."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
