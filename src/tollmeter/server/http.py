"""Connections that cost more than they bring are closed: slow headers, slow bodies, half-open ones above a number.

uvicorn's protocol knows none of this. Every connection is looked at once a second, so a request pays for no timer.
Above the bound the oldest one whose request is not whole goes first; one that works is never closed for another.
"""

import asyncio
import time
from collections import OrderedDict

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tollmeter.schemas.addresses import IPV6_PREFIX, rated_as
from tollmeter.server.problems import MEDIA_TYPE, Problem
from tollmeter.server.settings import ServerSettings

HEADER_S = 10.0
"""A request's head is whole so soon after its first byte, or after the connection began."""
STALL_S = 10.0
"""Longest time without a byte of a body that has begun."""
BODY_S = 120.0
MAX_HEAD_BYTES = 32 * 1024


class Connections:
    """The connections of one server: counted in all and by address; the incomplete ones in their order."""

    def __init__(self, most: int, most_per_address: int, ipv6_prefix: int = IPV6_PREFIX) -> None:
        self._most, self._most_per_address, self._ipv6_prefix = most, most_per_address, ipv6_prefix
        self._open: dict[LimitedProtocol, str] = {}
        self._incomplete: OrderedDict[LimitedProtocol, None] = OrderedDict()
        self._by_address: dict[str, OrderedDict[LimitedProtocol, None]] = {}
        self._counts: dict[str, int] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self.closed = 0
        """Connections that were closed to make room or since they took too long."""

    def __len__(self) -> int:
        return len(self._open)

    def add(self, one: "LimitedProtocol", address: str) -> bool:
        """Take a connection in, if need be in the place of an incomplete one; False when there is no room."""
        address = rated_as(address, self._ipv6_prefix) if ":" in address else address
        if self._counts.get(address, 0) >= self._most_per_address and not self._drop(self._by_address.get(address)):
            return False
        if len(self._open) >= self._most and not self._drop(self._incomplete):
            return False
        self._open[one] = address
        self._counts[address] = self._counts.get(address, 0) + 1
        self.begin(one)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(1.0, self._look)
        return True

    def begin(self, one: "LimitedProtocol") -> None:
        """The next request of a connection is not whole yet."""
        address = self._open.get(one)
        if address is not None:
            self._incomplete[one] = None
            self._by_address.setdefault(address, OrderedDict())[one] = None

    def complete(self, one: "LimitedProtocol") -> None:
        """A request is whole: this connection works."""
        self._incomplete.pop(one, None)
        address = self._open.get(one, "")
        same = self._by_address.get(address)
        if same is not None:
            same.pop(one, None)
            if not same:
                del self._by_address[address]

    def remove(self, one: "LimitedProtocol") -> None:
        """A connection is gone."""
        self.complete(one)
        address = self._open.pop(one, None)
        if address is not None:
            self._counts[address] -= 1
            if not self._counts[address]:
                del self._counts[address]

    def _drop(self, among: "OrderedDict[LimitedProtocol, None] | None") -> bool:
        if not among:
            return False
        oldest = next(iter(among))
        self.closed += 1
        self.remove(oldest)
        oldest.transport.abort()
        return True

    def _look(self) -> None:
        now = time.monotonic()
        for one in list(self._incomplete):
            if one.overdue(now):
                self.closed += 1
        self._sweep = asyncio.get_running_loop().call_later(1.0, self._look) if self._open else None


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with bounds on time, size and number. `connections` is the class's, one for a server."""

    connections_of_server: Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._began = self._last = time.monotonic()
        self._head_bytes = self._named_bytes = self._heads = 0
        self._in_head, self._in_body = True, False
        if not self.connections_of_server.add(self, self.client[0] if self.client else ""):
            self._refuse(Problem(503, "too_many_connections", "too many connections: try again in a moment"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections_of_server.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._last = time.monotonic()
        if self.transport.is_closing():
            return
        if self._in_head and not self._head_bytes:
            self._began = self._last
        before = self._in_head, self._heads
        super().data_received(data)
        if self._in_head and before == (True, self._heads):  # else what came is the rest of a request
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_large_head())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._in_body, self._named_bytes = True, False, 0
        self.connections_of_server.begin(self)

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        if self._in_body:
            return  # a trailer: nothing here reads any
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._named_bytes += size
        if self._named_bytes > MAX_HEAD_BYTES:
            raise _HeadError

    def on_headers_complete(self) -> None:
        self._in_head, self._in_body, self._head_bytes = False, True, 0
        self._heads += 1
        self._began = self._last
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        self._in_head = True  # of the next request, which has as long from its first byte on
        self.connections_of_server.complete(self)
        super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing in the log of another protocol that was asked for: the answer is of this one."""

    def send_400_response(self, msg: str) -> None:
        too_large = self._named_bytes > MAX_HEAD_BYTES
        self._refuse(_large_head() if too_large else Problem(400, "not_http", "this is no HTTP request"))

    def overdue(self, now: float) -> bool:
        """Close a connection whose request takes too long; tell whether it was."""
        if self._in_head:
            late = now - self._began > HEADER_S
        else:
            late = not self.flow.read_paused and (now - self._last > STALL_S or now - self._began > BODY_S)
        if late:
            self._refuse(Problem(408, "too_slow", "the request took too long to arrive"))
        return late

    def _refuse(self, problem: Problem) -> None:
        """Answer without the application, and close: it may be waiting for a body that never comes."""
        cycle = self.cycle
        self.connections_of_server.complete(self)
        if self.transport.is_closing():
            return
        if cycle is None or cycle.response_complete or not cycle.response_started:
            body = problem.body("")
            head = b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (
                problem.status,
                _phrase(problem),
                MEDIA_TYPE,
                len(body),
            )
            self.transport.write(head + body)
        self.transport.close()
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()


class _HeadError(Exception):
    """Ends the parsing of a head that is too large."""


def _large_head() -> Problem:
    return Problem(431, "large_head", f"the head of the request is larger than {MAX_HEAD_BYTES} bytes")


def _phrase(problem: Problem) -> bytes:
    return str(problem.document("")["title"]).encode("ascii")


def protocol(settings: ServerSettings, ipv6_prefix: int = IPV6_PREFIX) -> type[LimitedProtocol]:
    """Return the protocol class of one server, with the connections that it counts."""
    counted = Connections(settings.server_connections, settings.server_connections_per_address, ipv6_prefix)
    return type("ServerProtocol", (LimitedProtocol,), {"connections_of_server": counted})
