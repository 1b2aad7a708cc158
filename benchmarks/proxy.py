"""`python -m benchmarks.proxy`: what a call through the proxy takes longer, and what it costs in CPU.

The real server with the real broker behind it, in front of a provider in a process of its own that answers at once.
Calls go out at a steady pace, one straight to the provider and one through the proxy by turns, whatever became of the
earlier ones. The server's CPU is what it takes beyond the same time of idling. Load comes from this process: on a
machine of two cores all four share them, so the direct call waits, too.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import cpu_seconds, quantile, wait_for
from tollmeter.admin import setup
from tollmeter.embedded.stack import Stack
from tollmeter.settings import Settings

KEY, PATH = "ingest-key-of-the-benchmark", "/v1/chat/completions"
ASK = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x" * 400}], "max_tokens": 50}
USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
MESSAGE = {"role": "assistant", "content": "hi" * 20}
PLAIN = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o",
    "choices": [{"index": 0, "finish_reason": "stop", "message": MESSAGE}],
    "usage": USAGE,
}
CHUNK = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4o"}
PAUSE_S = 0.02
"""Between the first and the last part of a streamed answer."""
KEPT_S = 3.0
"""A connection that was idle for longer may be closed by the server."""
PROVIDER = "import asyncio\nfrom benchmarks.proxy import provide\nasyncio.run(provide())"


# ------------------------------------------------------------------------------------------------------ the provider


async def provide() -> None:
    """Answer chats at once, on a port that is printed."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    plain = json.dumps(PLAIN).encode()
    begin = {**CHUNK, "choices": [{"index": 0, "delta": {"content": "hi"}}]}
    end = {**CHUNK, "choices": [], "usage": USAGE}
    first = f"data: {json.dumps(begin)}\n\n".encode()
    last = f"data: {json.dumps(end)}\n\ndata: [DONE]\n\n".encode()
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            asked = await reader.readexactly(int(length[15:]))
            if b'"stream": true' not in asked:
                writer.write(_head(b"application/json", len(plain)) + plain)
                continue
            writer.write(_head(b"text/event-stream", len(first) + len(last)) + first)
            await asyncio.sleep(PAUSE_S)
            writer.write(last)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def _head(kind: bytes, length: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n" % (kind, length)


# -------------------------------------------------------------------------------------------------------- the caller


class Line:
    """Kept connections to one address; a call takes one, or opens one."""

    def __init__(self, port: int, path: str) -> None:
        self._port, self._path = port, path
        self._free: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(self, *, stream: bool) -> tuple[float, float]:
        """Return milliseconds to the first byte of the body, and to its end."""
        body = json.dumps({**ASK, "stream": stream, "stream_options": {"include_usage": True}}).encode()
        head = f"POST {self._path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        head += f"content-type: application/json\r\naccept-encoding: gzip\r\ncontent-length: {len(body)}\r\n\r\n"
        reader, writer = await self._connection()
        began = time.perf_counter()
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer.decode() + (await reader.read(2_000)).decode())
        length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        data = await reader.read(1)
        first = time.perf_counter()
        await reader.readexactly(int(length[15:]) - len(data))
        done = time.perf_counter()
        self._free.append((done, reader, writer))
        return (first - began) * 1_000, (done - began) * 1_000

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._free:
            since, reader, writer = self._free.pop()
            if time.perf_counter() - since < KEPT_S:
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)

    def close(self) -> None:
        while self._free:
            self._free.pop()[2].close()


async def paced(
    lines: dict[str, Line], rate: int, seconds: float, *, stream: bool
) -> dict[str, list[tuple[float, float]]]:
    """Make calls by turns, so many a second to each address."""
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in lines}
    running: set[asyncio.Task[None]] = set()

    async def one(name: str) -> None:
        took[name].append(await lines[name].call(stream=stream))

    step = 1 / rate / len(lines)
    due = time.perf_counter()
    for turn in range(round(rate * seconds) * len(lines)):
        due += step
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        running.add(asyncio.create_task(one(list(lines)[turn % len(lines)])))
    await asyncio.gather(*running)
    return took


# ------------------------------------------------------------------------------------------------------- the whole


@dataclass(frozen=True, slots=True)
class Served:
    """The server and the provider behind it."""

    process: subprocess.Popen[str]
    port: int
    provider: int


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proxy", description=__doc__)
    parser.add_argument("--rate", type=int, default=100, help="calls a second through the proxy [100]")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as served:
        figures = asyncio.run(measure(served, chosen.rate, chosen.seconds))
    if chosen.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        sys.stdout.writelines(f"{name:28} {value}\n" for name, value in figures.items())
    return 0


async def measure(served: Served, rate: int, seconds: float) -> dict[str, float]:
    """Warm up, idle, call, stream."""
    lines = {"direct": Line(served.provider, PATH), "proxied": Line(served.port, f"/proxy/openai{PATH}")}
    await paced(lines, rate, 2, stream=False)
    for line in lines.values():  # an idle connection is closed by the server
        line.close()
    idle = await _cpu(served, asyncio.sleep(seconds))
    await paced(lines, rate, 2, stream=False)
    began = cpu_seconds(served.process.pid)
    plain = await paced(lines, rate, seconds, stream=False)
    busy = cpu_seconds(served.process.pid) - began
    streamed = await paced(lines, rate // 2, seconds / 2, stream=True)
    for line in lines.values():
        line.close()
    figures: dict[str, float] = {"rate_per_s": rate, "calls": len(plain["proxied"])}
    for name, took, place in (("call", plain, 1), ("first_byte", streamed, 0)):
        for share, word in ((0.5, "p50"), (0.99, "p99")):
            direct, proxied = (quantile([one[place] for one in took[way]], share) for way in ("direct", "proxied"))
            figures |= {
                f"{name}_direct_{word}_ms": round(direct, 2),
                f"{name}_added_{word}_ms": round(proxied - direct, 2),
            }
    figures["idle_cpu_share"] = round(idle / seconds, 3)
    figures["added_cpu_ms"] = round((busy - idle) / len(plain["proxied"]) * 1_000, 2)
    return figures


async def _cpu(served: Served, work: Awaitable[None]) -> float:
    began = cpu_seconds(served.process.pid)
    await work
    return cpu_seconds(served.process.pid) - began


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """Run broker, provider and server in a folder; the server knows the price book and a budget."""
    from tests.guard_rows import publish, real_book

    wanted = Settings().model_copy(update={"kafka": "127.0.0.1:0", "clickhouse": "http://127.0.0.1:0"})
    with Stack(folder / "stack", workers=(), settings=wanted) as stack:
        setup.apply(stack.settings)
        publish(stack.settings, [real_book()])
        provider = subprocess.Popen([sys.executable, "-c", PROVIDER], stdout=subprocess.PIPE, text=True)
        assert provider.stdout is not None
        port = int(provider.stdout.readline())
        entry = {"url": f"http://127.0.0.1:{port}", "key_from": ["SHOP_KEY"], "provider": "openai"}
        (folder / "proxy.yaml").write_text(json.dumps({"upstreams": {"openai": entry}}), encoding="utf-8")
        environment = {
            **os.environ,
            "TOLLMETER_KAFKA": stack.settings.kafka,
            "TOLLMETER_CLICKHOUSE": stack.settings.clickhouse,
            "TOLLMETER_PROXY_FILE": str(folder / "proxy.yaml"),
            "TOLLMETER_SPOOL_DIR": str(folder / "spool"),
            "TOLLMETER_HEALTH_FILE": str(folder / "port"),
            "SERVER_PORT": "0",
            "API_KEY": "admin-key-of-the-benchmark",
            "INGEST_KEY": KEY,
            "SHOP_KEY": "sk-of-the-benchmark",
        }
        server = subprocess.Popen(
            [sys.executable, "-m", "tollmeter", "serve"], env=environment, text=True, stderr=subprocess.DEVNULL
        )
        try:
            wait_for("the server", (folder / "port").exists, 60)
            yield Served(server, int((folder / "port").read_text()), port)
        finally:
            for one in (server, provider):
                one.terminate()
                one.wait(20)


if __name__ == "__main__":
    raise SystemExit(main())
