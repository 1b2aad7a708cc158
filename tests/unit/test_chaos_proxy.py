"""The fault proxy: every mode against a server that remembers what it has executed."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.chaos.background import Background
from tests.chaos.proxy import Proxy

Eventually = Callable[..., object]
Connect = Callable[[int], "Client"]


class Server:
    """Answers each line with `ok`, and remembers it."""

    def __init__(self) -> None:
        self.executed: list[bytes] = []

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while line := await reader.readline():
                self.executed.append(line.strip())
                writer.write(b"ok\n")
        await _close(writer)


class Client:
    """One connection through the proxy."""

    def __init__(self, background: Background, port: int) -> None:
        self._background = background
        self._reader, self._writer = background.call(asyncio.open_connection("127.0.0.1", port))

    def ask(self, line: bytes, timeout_s: float = 5.0) -> bytes:
        return self._background.call(self._ask(line, timeout_s))

    def close(self) -> None:
        self._background.call(_close(self._writer))

    async def _ask(self, line: bytes, timeout_s: float) -> bytes:
        self._writer.write(line + b"\n")
        return await asyncio.wait_for(self._reader.readline(), timeout_s)


@pytest.fixture
def background() -> Iterator[Background]:
    made = Background()
    yield made
    made.close()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def connect(background: Background) -> Iterator[Callable[[int], Client]]:
    made: list[Client] = []

    def one(port: int) -> Client:
        made.append(Client(background, port))
        return made[-1]

    yield one
    for client in made:
        client.close()


@pytest.fixture
def proxy(background: Background, server: Server) -> Iterator[Proxy]:
    made = background.call(_start(Proxy("127.0.0.1", background.call(server.start()))))
    yield made
    background.call(made.stop())
    background.call(server.stop())


async def _start(proxy: Proxy) -> Proxy:
    return await proxy.start()


def do(background: Background, act: Callable[[], None]) -> None:
    """Do something in the proxy's own thread, and wait for it."""

    async def run() -> None:
        act()

    background.call(run())


def test_pass(connect: Connect, server: Server, proxy: Proxy) -> None:
    client = connect(proxy.port)
    assert [client.ask(b"one"), client.ask(b"two")] == [b"ok\n", b"ok\n"]
    assert server.executed == [b"one", b"two"]


def test_slow_delays_both_ways(connect: Connect, background: Background, proxy: Proxy) -> None:
    client = connect(proxy.port)
    do(background, lambda: proxy.switch("slow", 0.3))
    with pytest.raises(TimeoutError):
        client.ask(b"one", 0.4)
    do(background, lambda: proxy.switch("pass"))
    assert connect(proxy.port).ask(b"two") == b"ok\n"


def test_blackhole_keeps_what_was_said(
    connect: Connect, background: Background, server: Server, proxy: Proxy, eventually: Eventually
) -> None:
    client = connect(proxy.port)
    assert client.ask(b"one") == b"ok\n"
    do(background, lambda: proxy.switch("blackhole"))
    with pytest.raises(TimeoutError):
        client.ask(b"two", 0.3)
    assert server.executed == [b"one"]
    do(background, lambda: proxy.switch("pass"))
    eventually(lambda: server.executed == [b"one", b"two"])


def test_refuse_cuts_open_connections_and_takes_no_new_ones(
    connect: Connect, background: Background, proxy: Proxy
) -> None:
    client = connect(proxy.port)
    assert client.ask(b"one") == b"ok\n"
    do(background, lambda: proxy.switch("refuse"))
    with pytest.raises(ConnectionResetError):
        client.ask(b"two")
    with pytest.raises(ConnectionResetError):
        connect(proxy.port).ask(b"three")


def test_an_answer_is_lost_after_the_request_was_executed(
    connect: Connect, background: Background, server: Server, proxy: Proxy
) -> None:
    do(background, lambda: proxy.lose_answers(1, b"insert"))
    client = connect(proxy.port)
    assert client.ask(b"select") == b"ok\n"
    with pytest.raises(ConnectionResetError):
        client.ask(b"insert 1")
    assert server.executed == [b"select", b"insert 1"]
    assert proxy.answers_lost == 1
    assert connect(proxy.port).ask(b"insert 2") == b"ok\n"


def test_somebody_hears_of_a_request_that_passes(connect: Connect, background: Background, proxy: Proxy) -> None:
    passed = threading.Event()
    do(background, lambda: proxy.when_passing(b"insert", passed.set))
    client = connect(proxy.port)
    assert client.ask(b"select") == b"ok\n"
    assert not passed.is_set()
    assert client.ask(b"insert") == b"ok\n"
    assert passed.wait(5)


def test_nobody_behind_it_is_a_reset(connect: Connect, background: Background) -> None:
    nowhere = background.call(_start(Proxy("127.0.0.1", 1)))
    with pytest.raises(ConnectionResetError):
        connect(nowhere.port).ask(b"one")
    background.call(nowhere.stop())
