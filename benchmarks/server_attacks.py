"""`python -m benchmarks.server_attacks`: what healthy clients of the server notice while others do their worst.

Each attack runs in a process of its own beside 100 calls a second: 2,000 half-open connections at once and 10,000 a
minute, wrong keys at 1,000 a second, and zip bombs and bodies of 100 MB, sent with a valid key.
"""

import argparse
import asyncio
import gzip
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from benchmarks.measure import quantile, rss_mb
from benchmarks.server import CALL, KEYS, Target, ask, load, request_of, running
from tollmeter.admin import setup as provision
from tollmeter.embedded import ports
from tollmeter.embedded.environment import settings_environment
from tollmeter.embedded.stack import Stack
from tollmeter.settings import Settings

RATE = 100
SINGLE = request_of("/ingest", json.dumps(CALL).encode())
Attack = Callable[[int], Awaitable[None]]


async def half_open(port: int) -> None:
    """2,000 at once, then 167 a second, each with half a head."""
    held = []

    async def one() -> None:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(SINGLE[:40])
            held.append((reader, writer))

    await asyncio.gather(*(one() for _ in range(2_000)))
    while True:
        await asyncio.gather(*(one() for _ in range(17)))
        for _, writer in held[:-3_000]:
            writer.close()
        del held[:-3_000]
        await asyncio.sleep(0.1)


async def wrong_keys(port: int) -> None:
    """1,000 a second over ten connections."""
    wrong = SINGLE.replace(b"ingest-key\r\n", b"wrong--key\r\n")

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            with suppress(RuntimeError):
                await ask(reader, writer, wrong)
            head = await asyncio.wait_for(reader.read(4_096), 5) if reader.at_eof() else b""
            await asyncio.sleep(0.01 if not head else 0)

    await asyncio.gather(*(one() for _ in range(10)))


async def large_bodies(port: int) -> None:
    """Bombs of a gigabyte and plain bodies of 100 MB, four at a time."""
    packed = gzip.compress(bytes(1 << 30))
    bomb = request_of("/ingest", packed).replace(b"host: x", b"host: x\r\ncontent-encoding: gzip")
    plain = request_of("/ingest", b"").replace(b"content-length: 0", b"transfer-encoding: chunked")

    async def one(place: int) -> None:
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(bomb if place % 2 else plain)
                for _ in range(0 if place % 2 else 100):
                    writer.write(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
                    await writer.drain()
                await reader.readuntil(b"\r\n\r\n")
                writer.close()

    await asyncio.gather(*(one(place) for place in range(4)))


ATTACKS: dict[str, Attack] = {"half_open": half_open, "wrong_keys": wrong_keys, "large_bodies": large_bodies}


def attack(name: str, port: int) -> None:
    """Run one attack until the process is ended."""
    asyncio.run(ATTACKS[name](port))


def healthy(target: Target, seconds: float) -> dict[str, float]:
    took = asyncio.run(load(target.port, SINGLE, 8, seconds, RATE))
    return {
        "answers": len(took),
        **{f"p{share}_ms": round(quantile(took, share / 100) * 1e3, 1) for share in (50, 99)},
        "rss_mb": round(rss_mb(target.pid)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server_attacks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each attack [15]")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()
    wanted = Settings(kafka="127.0.0.1:0", clickhouse="http://127.0.0.1:0")
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder, "data"), workers=(), settings=wanted) as stack:
        provision.apply(stack.settings)
        [port] = ports.choose([0])
        environment = {**settings_environment(stack.settings), **KEYS, "SERVER_PORT": str(port)}
        environment["TOLLMETER_SPOOL_DIR"] = folder
        with running([sys.executable, "-m", "tollmeter", "serve"], environment, port, "/ingest") as target:
            found["quiet"] = healthy(target, chosen.seconds)
            for name in ATTACKS:
                attacker = multiprocessing.get_context("spawn").Process(target=attack, args=(name, port), daemon=True)
                attacker.start()
                found[name] = healthy(target, chosen.seconds)
                attacker.kill()
                attacker.join()
            found["quiet_again"] = healthy(target, chosen.seconds)
    sys.stdout.write(json.dumps(found, indent=None if chosen.json else 2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
