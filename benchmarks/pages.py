"""`python -m benchmarks.pages`: how soon a call shows on the page Now, what first paints take, what lookers cost.

The line prices some thousand calls of the last hour; what was before comes into the ledger by SQL, with its minutes,
days and months, so that millions of rows cost minutes and not hours. A looker is a client that asks as the script of
the pages does: the moving part of Now, packed, once a second, from a moment of its own; fifty of them stand for fifty
browsers, in a process of their own: their work is no server's, and no sender's. Times are of the client on this
machine: how busy that was stands beside them as `load` and `busy`, and CPU time holds all the same.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.line import WrongError, stop_workers, wait_settled
from benchmarks.measure import CpuMark, TooLateError, quantile, wait_for
from benchmarks.past import Past, fill
from benchmarks.preload import preload
from tollmeter.admin import setup as provision
from tollmeter.broker.policies import policy_set, write
from tollmeter.embedded.stack import SERVER, STAGES, Stack
from tollmeter.schemas.policy import Policy
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

SEED, SEED_S = 20_000, 2_700
"""Calls that the line prices itself, and the time that they are of."""
BUDGETS = 200
EVERY_S = 1.0
"""As the page Now says it to its script."""
PAGES = ("now", "spend", "calls", "limits", "alerts", "tokens", "prices?model=gpt-4o", "health")
LIVE = "/dashboard/now?part=live"
CALL = {"model_sent": "gpt-4o", "provider": "openai", "input_tokens": 1_000}
SCOPES = """
SELECT org_id, scope, name FROM usage_windows FINAL
WHERE level = 'month' AND scope IN ('org', 'group', 'user', 'api_key') ORDER BY cost_nano DESC LIMIT {top:UInt32}
"""
PACKED = {"accept": "text/html", "accept-encoding": "gzip"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="calls in the ledger [200000]")
    parser.add_argument("--days", type=int, default=20, help="over which they are spread [20]")
    parser.add_argument("--lookers", type=int, default=50, help="pages left open [50]")
    parser.add_argument("--seconds", type=int, default=30, help="of looking [30]")
    parser.add_argument(
        "--samples", type=int, default=40, help="calls that are looked for, and loads of each page [40]"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()
    try:
        figures = measure(chosen)
    except (TooLateError, WrongError) as error:
        sys.stderr.write(f"benchmarks: {error}\n")
        return 2
    if chosen.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        sys.stdout.writelines(f"{name:28} {value}\n" for name, value in figures.items())
    return 0


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return all figures. Raises `TooLateError`, `WrongError`."""
    for name in ("API_KEY", "INGEST_KEY", "READ_KEY"):
        os.environ.pop(name, None)
    os.environ |= {"SERVER_PORT": "0", "INGEST_RPM": "0", "RATE_LIMIT_RPM": "0"}
    with tempfile.TemporaryDirectory() as folder:
        wanted = Settings(kafka="127.0.0.1:0", clickhouse="http://127.0.0.1:0", fx_max_age_days=100_000)
        say("1/5 broker and engine")
        with Stack(Path(folder), workers=(), settings=wanted) as stack:
            provision.apply(stack.settings)
            past = _load(stack, chosen)
            pid = stack.processes()[SERVER].process.pid
            return asyncio.run(_all(stack.health(SERVER) or "", pid, past.calls, chosen))


def say(text: str) -> None:
    """Tell whoever waits how far it is."""
    sys.stderr.write(f"{text}\n")


def _load(stack: Stack, chosen: argparse.Namespace) -> Past:
    """Bring ledger, windows and limits to what a line of some weeks has, and start everything."""
    begun, ledger = time.monotonic(), connect(stack.settings)
    seed = min(SEED, chosen.rows)
    say(f"2/5 {seed:,} calls through the line")
    loaded = preload(stack.settings, seed, SEED_S)
    for stage in STAGES:
        stack.start_worker(stage)
    wait_settled(ledger, loaded, 600)
    scopes = ledger.query(SCOPES, {"top": BUDGETS})
    write(stack.settings, [policy_set(Policy(**one, monthly_limit_micro=10**8)) for one in scopes])
    count = "SELECT count() AS n FROM policies"
    wait_for("WATCH's copy of the policies", lambda: ledger.query(count)[0]["n"] >= len(scopes), 120)
    stop_workers(stack)
    say(f"3/5 {chosen.rows:,} calls of {chosen.days} days by SQL, after {time.monotonic() - begun:.0f} s")
    past = fill(ledger, chosen.rows, chosen.days)
    ledger.close()
    for stage in (*STAGES, SERVER):
        stack.start_worker(stage)
    wait_for("all being ready", lambda: all(stack.worker_ready(one) for one in (*STAGES, SERVER)), 300)
    say(f"    {past.calls:,} calls, minutes, days and months agree, after {time.monotonic() - begun:.0f} s")
    return past


async def _all(address: str, pid: int, rows: int, chosen: argparse.Namespace) -> dict[str, Any]:
    async with _client(address) as client:
        await _get(client, LIVE)
        figures: dict[str, Any] = {"rows": rows, "load": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}
        figures["busy"] = figures["load"] > (os.cpu_count() or 1)
        say(f"4/5 pages and calls looked for, load {figures['load']}")
        figures["pages"] = {}
        for one in PAGES:
            figures["pages"][one] = paints = await _paints(client, f"/dashboard/{one}", chosen.samples)
            say(f"    {one:22} {paints}")
        delays = [await _delay_s(client, number) for number in range(chosen.samples)]
        figures |= {f"shown_p{share}_s": round(quantile(delays, share / 100), 3) for share in (50, 95)}
        say(f"5/5 {chosen.lookers} lookers, shown after {figures['shown_p50_s']} s p50, {figures['shown_p95_s']} s p95")
        return figures | await _lookers(client, address, pid, chosen)


async def _lookers(client: httpx.AsyncClient, address: str, pid: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Return what pages that are left open cost the server, and whoever sends meanwhile."""
    alone = await _ingest(client, chosen.seconds)
    begun = CpuMark.now({SERVER: pid})
    await asyncio.sleep(chosen.seconds / 3)
    idle = CpuMark.now({SERVER: pid})
    with _looking(address, chosen.lookers) as looked:
        await asyncio.sleep(2 * EVERY_S)
        first, before = CpuMark.now({SERVER: pid}), looked()
        await asyncio.sleep(chosen.seconds)
        last, answers = CpuMark.now({SERVER: pid}), looked() - before
        beside = await _ingest(client, chosen.seconds)
    return {
        "lookers": chosen.lookers,
        "answers_per_s": round(answers / (last.at - first.at), 1),
        "server_cpu_alone_pct": _percent(begun, idle),
        "server_cpu_looked_at_pct": _percent(first, last),
        "ingest_p99_alone_ms": round(quantile(alone, 0.99) * 1e3, 1),
        "ingest_p99_looked_at_ms": round(quantile(beside, 0.99) * 1e3, 1),
    }


def _percent(first: CpuMark, last: CpuMark) -> float:
    """Return the CPU time of the server between two moments, in percent of one core."""
    return round(100 * (last.seconds[SERVER] - first.seconds[SERVER]) / (last.at - first.at), 1)


async def _get(client: httpx.AsyncClient, path: str) -> httpx.Response:
    answer = await client.get(path)
    if answer.status_code != 200:
        raise TooLateError(f"{path} answers {answer.status_code}: {answer.text[:200]}")
    return answer


async def _paints(client: httpx.AsyncClient, path: str, samples: int) -> dict[str, float]:
    """Return milliseconds until a page is there, and how many bytes came."""
    took, size = [], 0
    for _ in range(samples):
        begun = time.perf_counter()
        answer = await _get(client, path)
        took.append(time.perf_counter() - begun)
        size = answer.num_bytes_downloaded
    return {f"p{share}_ms": round(quantile(took, share / 100) * 1e3, 1) for share in (50, 95)} | {"bytes": size}


async def _delay_s(client: httpx.AsyncClient, number: int) -> float:
    """Return the seconds from a call's sending until a looker's next part shows its user; dearer ones stand first."""
    user = f"looked-for-{number}"
    sent = asyncio.Event()
    begun = 0.0

    async def send() -> None:
        nonlocal begun
        await asyncio.sleep(random.random() * EVERY_S)
        begun = time.perf_counter()
        call = {**CALL, "user_id": user, "output_tokens": 100_000 + 1_000 * number}
        answer = await client.post("/ingest", json=call)
        answer.raise_for_status()
        sent.set()

    sending = asyncio.create_task(send())
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        text = (await _get(client, LIVE)).text
        if sent.is_set() and user in text:
            await sending
            return time.perf_counter() - begun
        await asyncio.sleep(EVERY_S)
    raise TooLateError(f"{user} did not show on the page")


async def _ingest(client: httpx.AsyncClient, seconds: float) -> list[float]:
    """Return how long single calls took, one after the other, 20 a second."""
    took = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        begun = time.perf_counter()
        answer = await client.post("/ingest", json={**CALL, "output_tokens": 10})
        answer.raise_for_status()
        took.append(time.perf_counter() - begun)
        await asyncio.sleep(0.05)
    return took


@contextmanager
def _looking(address: str, lookers: int) -> Iterator[Callable[[], int]]:
    """Give how many answers lookers got so far, while they look; their own work is another process's."""
    spawn = multiprocessing.get_context("spawn")
    got = spawn.Value("q", 0)
    process = spawn.Process(target=_look, args=(address, lookers, got), daemon=True)
    process.start()
    try:
        wait_for("the first looks", lambda: got.value >= lookers, 120)
        yield lambda: int(got.value)
        if process.exitcode is not None:
            raise TooLateError("the lookers ended")
    finally:
        process.kill()
        process.join()


def _look(address: str, lookers: int, got: Any) -> None:
    async def one(client: httpx.AsyncClient) -> None:
        await asyncio.sleep(random.random() * EVERY_S)
        while True:
            await _get(client, LIVE)
            got.value += 1
            await asyncio.sleep(EVERY_S)

    async def all_of_them() -> None:
        async with _client(address) as client:
            await asyncio.gather(*(one(client) for _ in range(lookers)))

    asyncio.run(all_of_them())


def _client(address: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=address, timeout=60, headers=PACKED, limits=limits)


if __name__ == "__main__":
    raise SystemExit(main())
