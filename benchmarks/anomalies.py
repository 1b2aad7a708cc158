"""Anomalies on real traffic: what production's rules say of 96 tenants' two weeks, untouched and with leaks put in.

    TOLLMETER_TRACES=FOLDER python -m benchmarks.anomalies [--json] [--seeds N]

Traffic per key and ten minutes is ServeGen's (Alibaba). It names no address, body, model or price, so those are drawn,
seeded: figures about them are synthetic, and marked so. Addresses are those of the Apache log. Findings on untouched
traffic count as false, though real bursts are among them. Thresholds are those that ship, chosen beforehand.
"""

import argparse
import json
import time
from collections import Counter, defaultdict
from itertools import product
from math import sqrt
from typing import Any

import numpy as np

from benchmarks.anomaly_money import EPISODE, WARM_UP, told_of
from benchmarks.anomaly_money import summary as money
from benchmarks.anomaly_traffic import (
    FEW_HOSTS,
    LEAK_WINDOWS,
    LEAKS,
    PER_DAY,
    Array,
    Key,
    Traffic,
    calls,
    data_folder,
    leaked,
    read_addresses,
    read_keys,
)
from benchmarks.nab import Series, checked, reference, summary
from benchmarks.nab import read_all as read_nab
from tollmeter.streams.rules.anomalies import series
from tollmeter.streams.rules.anomalies.calls import Calls
from tollmeter.streams.rules.anomalies.detector import Detector
from tollmeter.streams.rules.anomalies.unusual import beyond, has_past
from tollmeter.streams.rules.windows.anomalies import SpikeFloors, spike_threshold
from tollmeter.streams.watch.thresholds import shipped_limits

HOUR = 6
STEPS = 60
"""Steps of ten seconds in a window."""
FLOORS = SpikeFloors(10**9, 5 * 10**9, 10 * 10**9, 3)
PAST_DAYS = 8


Found = dict[tuple[int, str], list[tuple[int, int]]]
"""(scope, rule) to windows and levels of its findings."""
Starts = dict[tuple[int, str], int]
"""(key, kind) to the window in which its leak begins."""


def placed(keys: list[Key], seed: int, kind: str) -> Starts:
    """Return one leak of a kind in each key from a drawn window on; each kind has a run of its own.

    Leaks of several kinds would be each other's past: a key that was used from many networks has many.
    """
    rng = np.random.default_rng([seed, LEAKS.index(kind)])
    last = [key.calls.size - LEAK_WINDOWS for key in keys]
    return {(number, kind): int(rng.integers(5 * PER_DAY, last[number])) for number in range(len(keys))}


def new_detector() -> Detector:
    """Return production's detector, for scopes that are numbers."""
    names = np.arange(4_000_000, dtype=np.int64) * 0x9E3779B1 % (1 << 61) + 1
    return Detector(shipped_limits(), lambda n: names[n], lambda n: n // 256 * 0x9E3779B1 % (1 << 61) + 1)


def identity(keys: list[Key], addresses: Array, seed: int, starts: Starts) -> Found:
    """Run production's detector over the traffic of all keys, with these leaks in it; without any, minute by minute."""
    detector, traffic = new_detector(), Traffic(keys, addresses, seed)
    begun: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for leak, start in starts.items():
        for window in range(start, start + LEAK_WINDOWS):
            begun[window].append(leak)
    found: Found = defaultdict(list)
    for window in range(traffic.windows):
        leaks = [leaked(kind, keys[number], number, window, addresses) for number, kind in begun[window]]
        detector.note(Calls.joined([traffic.of(window, spread=not starts), *leaks]))
        for finding in detector.step(window):
            found[finding.scope, finding.kind].append((window, finding.level))
    return dict(found)


def told_after(keys: list[Key], addresses: Array, kind: str, seed: int) -> dict[str, float]:
    """Return after how many seconds leaks of a kind are told in their first ten minutes, their calls spread evenly.

    Quantiles of those that are told in them. A leak begins at a drawn second, so most go on in another window, and
    costs a usual dear window, or two dollars, in its ten minutes.
    """
    detector, traffic, starts = new_detector(), Traffic(keys, addresses, 0), placed(keys, seed, kind)
    first = np.random.default_rng([seed, LEAKS.index(kind), 1]).integers(0, STEPS, len(keys))
    begins: dict[int, list[int]] = defaultdict(list)
    for (number, _), start in starts.items():
        begins[start].append(number)
    leaks: dict[int, tuple[int, Calls]] = {}
    seconds: list[int] = []
    for window in range(traffic.windows):
        detector.note(traffic.of(window))
        detector.step(window * (STEPS + 1))
        for number in begins[window]:
            begun = window * STEPS + int(first[number])
            leaks[_shown_by(kind, number, addresses)] = begun, leaked(kind, keys[number], number, window, addresses)
        for step in range(STEPS if leaks else 0):
            now = window * STEPS + step
            leaks = {scope: leak for scope, leak in leaks.items() if now - leak[0] < STEPS}
            parts = [_part(leak, now - begun, now) for begun, leak in leaks.values() if now >= begun]
            if parts:
                detector.note(Calls.joined(parts))
            found = detector.step(window * (STEPS + 1) + step + 1)
            ours = {finding.scope for finding in found if finding.kind == kind} & leaks.keys()
            seconds += [(now - leaks.pop(scope)[0] + 1) * 600 // STEPS for scope in sorted(ours)]
    return {f"p{pct}": float(np.percentile(seconds, pct)) for pct in (10, 50, 90)} | {"told": len(seconds)}


def _part(leak: Calls, step: int, now: int) -> Calls:
    """Return a sixtieth of the calls of a leak, as made now."""
    made = leak.only(np.arange(leak.size) * STEPS // leak.size == step)
    made.minute[:] = now * 10 // STEPS
    return made


def _shown_by(kind: str, number: int, addresses: Array) -> int:
    """Return the scope that a leak of a key is told of."""
    return int(addresses[(number * 37 + 500) % addresses.size]) if kind == "shared_address" else number


def episodes(windows: list[tuple[int, int]], least: int = 1) -> list[int]:
    """Return where episodes of findings of at least a level begin, after the warm-up."""
    begun: list[int] = []
    last = -EPISODE
    for window, level in sorted(windows):
        if level >= least and window >= WARM_UP:
            begun += [window] if window - last >= EPISODE else []
            last = window
    return begun


def interval(hits: int, count: int) -> list[float]:
    """Return the 95 % interval of a share (Wilson, 1927)."""
    if not count:
        return [0.0, 1.0]
    p, z = hits / count, 1.96
    middle, half = p + z * z / (2 * count), z * sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return [round((middle - half) / (1 + z * z / count), 3), round((middle + half) / (1 + z * z / count), 3)]


def false_rates(found: Found, keys: list[Key]) -> dict[str, Any]:
    """Return episodes per key-day on untouched traffic: by rule, of warnings and up, and of critical ones."""
    days = sum(key.calls.size - WARM_UP for key in keys) / PER_DAY
    by_kind: Counter[str] = Counter()
    by_scope: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for (scope, kind), windows in found.items():
        whose = "" if kind != "unusual_use" or scope < len(keys) else " of addresses and organisations"
        by_kind[kind + whose] += len(episodes(windows))
        by_scope[scope] += windows
    kinds = {key.kind for key in keys}
    by_class = {
        kind: sum(len(episodes(found.get((n, "unusual_use"), []))) for n, key in enumerate(keys) if key.kind == kind)
        / (days * sum(key.kind == kind for key in keys) / len(keys))
        for kind in sorted(kinds)
    }
    levels = {"told": 1, "warning_or_critical": 2, "critical": 3}
    totals = {name: sum(len(episodes(w, level)) for w in by_scope.values()) for name, level in levels.items()}
    return {
        "key_days": round(days),
        "by_rule": {kind: round(count / days, 4) for kind, count in sorted(by_kind.items())},
        "unusual_use_by_class": {kind: round(rate, 4) for kind, rate in by_class.items()},
        **{name: round(count / days, 4) for name, count in totals.items()},
    }


def recall(keys: list[Key], addresses: Array, clean: Found, seeds: range) -> dict[str, Any]:
    """Return by kind the share of leaks that are found while they last, and of those in their first ten minutes.

    A rule is meant for some keys alone; for a new network these are keys with few of them (`concerned`).
    """
    hits: dict[str, list[int | None]] = defaultdict(list)
    for kind, seed in product(LEAKS, seeds):
        starts = placed(keys, seed, kind)
        found = identity(keys, addresses, 0, starts)
        for (number, _), start in starts.items():
            scope = _shown_by(kind, number, addresses)
            before = {window for window, _ in clean.get((scope, kind), [])}
            span = range(start, start + LEAK_WINDOWS)
            windows = [w for w, _ in found.get((scope, kind), []) if w in span and w not in before]
            for name in (kind, *([f"{kind}, concerned"] if _concerned(kind, keys[number], start) else [])):
                hits[name].append(windows[0] - start if windows else None)
    return {
        kind: {
            "leaks": len(rows),
            "recall": round(sum(one is not None for one in rows) / len(rows), 3),
            "interval": interval(sum(one is not None for one in rows), len(rows)),
            "in_first_ten_minutes": round(rows.count(0) / max(1, len(rows) - rows.count(None)), 3),
        }
        for kind, rows in sorted(hits.items())
    }


def _concerned(kind: str, key: Key, start: int) -> bool:
    """Tell whether a key is one that a rule about what is new is meant for: few hosts, and in use for some days."""
    used = int((key.calls[max(0, start - 7 * PER_DAY) : start] > 0).sum())
    return kind == "new_network" and key.pool <= FEW_HOSTS and used >= PER_DAY


def spikes(cost: Array) -> list[tuple[int, int]]:
    """Return the ten-minute windows in which production's rule about dear hours begins to fire."""
    hours = cost[: cost.size // HOUR * HOUR].reshape(-1, HOUR)
    open_, closed = hours.cumsum(axis=1), hours.sum(axis=1)
    found = []
    for hour in range(1, len(hours)):
        past = closed[max(0, hour - 24 * PAST_DAYS) : hour].max()
        over = np.flatnonzero(open_[hour] > spike_threshold("hour", np.array([past]), FLOORS)[0])
        found += [(hour * HOUR + int(over[0]), 2)] if over.size else []
    return found


def costs() -> dict[str, Any]:
    """Return CPU by call and by key and closed window, memory and size of a checkpoint, of all that WATCH does here.

    100,000 keys in organisations of eight; `us_a_call` of steps of so many calls, as a second brings them.
    """
    detector, size = new_detector(), 100_000
    tables = detector.tables.values()
    _cpu_s(detector, [called(np.arange(size), 1)])  # makes the rows
    closing_s = _cpu_s(detector, [called(np.arange(size), window) for window in range(2, 7)])
    rng, by_call = np.random.default_rng(1), {}
    for count in (8_000, 1_000):
        parts = [called(rng.integers(0, count // 4, count), 7, rng) for _ in range(22)]
        _cpu_s(detector, parts[:2])
        by_call[count] = round(_cpu_s(detector, parts[2:]) / 20 / count * 1e6, 2)
    for table in tables:
        table.drain_dirty()
    _cpu_s(detector, [called(np.arange(size // 20), 8)])
    drained = [table.drain_dirty()[1] for table in tables]
    return {
        "us_a_call": by_call,
        "us_a_key_and_closed_window": round(closing_s / 5 / size * 1e6, 2),
        "rows": {kind: table.size for kind, table in detector.tables.items()},
        "mb_of_these_rows": round(sum(part.nbytes for table in tables for part in table.held()) / 1e6, 1),
        "checkpoint_mb_of_5000_keys": round(sum(part.nbytes for part in drained) / 1e6, 2),
    }


def _cpu_s(detector: Detector, parts: list[Calls]) -> float:
    """Step once for each part; return the processor time."""
    began = time.process_time()
    for part in parts:
        detector.note(part)
        detector.step(time.monotonic_ns())
    return time.process_time() - began


def called(key: Array, window: int, rng: np.random.Generator | None = None) -> Calls:
    """Return a cent's call for each entry of `key`; drawn users, addresses and bodies if there is something to draw."""
    made = calls(key, window, 10**7, np.full(key.size, -1))
    if rng is not None:
        made.user[:], made.address[:] = 3_900_000 + key % 300, 3_500_000 + rng.integers(0, 500, key.size)
        made.body[:] = rng.integers(8, 1 << 40, key.size)
    return made


def nab() -> dict[str, Any]:
    """Return what NAB says of production's statistics of cost, and of ENS, a reference."""
    folder = data_folder() / "nab"
    data = read_nab(folder)
    return {
        "scorer": checked(folder, data),
        "production": summary(data, production(data)),
        "ens": reference(data),
        "tuned": "ENS on these files, but for its cross-validated and nested scores; production on none of them",
    }


def production(data: list[Series]) -> list[Array]:
    """Return by file how far production's series of cost are beyond their past, a row a window: 1 is told.

    The parts in use, each by the shipped figure of a steady scope: cost of a window, of an hour of six, and the sum.
    """
    limits = shipped_limits()
    figures = np.array(limits.unusual_use.steady.values(), dtype=float)[:, None]
    longest = max(one.value.size for one in data)
    table, scores = np.zeros((len(data), series.WIDTH), dtype=np.int64), np.zeros((len(data), longest))
    for row in range(longest):
        at = np.flatnonzero([row < one.value.size for one in data])
        cost = np.array([int(max(data[n].value[row], 0) * 1_000_000) for n in at.tolist()], dtype=np.int64)
        now = table[at]
        series.turn(now, 10 * row)
        series.add(now, np.stack((np.ones_like(cost), cost, np.zeros_like(cost), np.zeros_like(cost)), axis=1))
        table[at] = now
        far = beyond(now) / figures
        scores[at, row] = np.maximum.reduce((far[0], far[1], far[4])) * has_past(now, limits)
    return [scores[at, : one.value.size] for at, one in enumerate(data)]


def measure(seeds: int) -> dict[str, Any]:
    """Return all figures."""
    keys, addresses = read_keys(), read_addresses()
    clean = identity(keys, addresses, 0, {})
    rest = {part: windows for part, windows in clean.items() if part[1] != "unusual_use" or part[0] >= len(keys)}
    exact = told_of(keys, shipped_limits())  # traffic has ten calls a window, which are not the key's own
    dear = {(number, "spend_spike"): spikes(key.cost_nano) for number, key in enumerate(keys)}
    return {
        "keys": dict(Counter(key.kind for key in keys)),
        "false": false_rates({**rest, **exact, **dear}, keys),
        "identity": {
            "synthetic": "addresses, bodies, models, errors and prices are drawn; traffic and volumes are real",
            "recall": recall(keys, addresses, clean, range(1, seeds + 1)),
            "seconds": {kind: told_after(keys, addresses, kind, 1) for kind in LEAKS},
        },
        "money": {
            "synthetic": "minutes are drawn from windows of ten",
            **money(keys, shipped_limits(), range(1, seeds + 2)),
        },
        "nab": nab(),
        "costs": costs(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--seeds", type=int, default=2, help="placements of each leak (default 2)")
    args = parser.parse_args()
    found = measure(args.seeds)
    print(json.dumps(found) if args.json else json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
