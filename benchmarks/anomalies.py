"""Anomalies on real traffic: what production's rules say of 96 tenants' two weeks, untouched and with leaks put in.

    TOLLMETER_TRACES=FOLDER python -m benchmarks.anomalies [--json] [--seeds N]

Traffic per key and ten minutes is ServeGen's (Alibaba). It names no address, body, model or price, so those are drawn,
seeded: figures about them are synthetic, and marked so. Addresses are those of the Apache log. Findings on untouched
traffic count as false, though real bursts are among them. Thresholds are those that ship, chosen beforehand.
"""

import argparse
import json
from collections import Counter, defaultdict
from math import sqrt
from typing import Any

import numpy as np

from benchmarks.anomaly_traffic import (
    LEAK_WINDOWS,
    LEAKS,
    PER_DAY,
    SPENT,
    Array,
    Key,
    Traffic,
    leaked,
    read_addresses,
    read_keys,
    spent_with,
)
from tollmeter.streams.rules.anomalies.calls import Calls
from tollmeter.streams.rules.anomalies.detector import Detector
from tollmeter.streams.rules.windows.anomalies import SpikeFloors, spike_threshold
from tollmeter.streams.watch.thresholds import shipped_limits

WARM_UP = 3 * PER_DAY
EPISODE = 36
"""Findings within six hours are one."""
APART = 72
HOUR = 6
FLOORS = SpikeFloors(10**9, 5 * 10**9, 10 * 10**9, 3)
PAST_DAYS = 8


Found = dict[tuple[int, str], list[tuple[int, int]]]
"""(scope, rule) to windows and levels of its findings."""
Starts = dict[tuple[int, str], int]
"""(key, kind) to the window in which its leak begins."""


def placed(keys: list[Key], seed: int) -> Starts:
    """Return one leak of each kind in each key, half a day apart, from a drawn window on.

    That of a new network comes first: after a fan-out a key has been used from many.
    """
    rng = np.random.default_rng(seed)
    starts = {}
    for number, key in enumerate(keys):
        first = int(rng.integers(5 * PER_DAY, key.calls.size - (len(LEAKS) + 1) * APART))
        others = rng.permutation([kind for kind in LEAKS if kind != "new_network"]).tolist()
        for place, kind in enumerate(["new_network", *others]):
            starts[number, kind] = first + place * APART
    return starts


def identity(keys: list[Key], addresses: Array, seed: int, starts: Starts) -> Found:
    """Run production's detector over the traffic of all keys, with these leaks in it."""
    names = np.arange(4_000_000, dtype=np.int64) * 0x9E3779B1 % (1 << 61) + 1
    detector = Detector(shipped_limits(), lambda n: names[n], lambda n: n // 256 * 0x9E3779B1 % (1 << 61) + 1)
    traffic = Traffic(keys, addresses, seed)
    begun: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for leak, start in starts.items():
        for window in range(start, start + LEAK_WINDOWS):
            begun[window].append(leak)
    found: Found = defaultdict(list)
    for window in range(traffic.windows):
        leaks = [leaked(kind, keys[number], number, window, addresses) for number, kind in begun[window]]
        detector.note(Calls.joined([traffic.of(window), *leaks]))
        for finding in detector.step(window):
            found[finding.scope, finding.kind].append((window, finding.level))
    return dict(found)


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
        by_kind[kind] += len(episodes(windows))
        by_scope[scope] += windows
    levels = {"told": 1, "warning_or_critical": 2, "critical": 3}
    totals = {name: sum(len(episodes(w, level)) for w in by_scope.values()) for name, level in levels.items()}
    return {
        "key_days": round(days),
        "by_rule": {kind: round(count / days, 4) for kind, count in sorted(by_kind.items())},
        **{name: round(count / days, 4) for name, count in totals.items()},
    }


def recall(keys: list[Key], addresses: Array, clean: Found, seeds: range) -> dict[str, Any]:
    """Return by kind the share of leaks that are found while they last, and of those in their first ten minutes."""
    hits: dict[str, list[int | None]] = defaultdict(list)
    for seed in seeds:
        starts = placed(keys, seed)
        found = identity(keys, addresses, 0, starts)
        for (number, kind), start in starts.items():
            scope = int(addresses[(number * 37 + 500) % addresses.size]) if kind == "shared_address" else number
            span = range(start, start + LEAK_WINDOWS)
            before = {window for window, _ in clean.get((scope, kind), [])}
            windows = [w for w, _ in found.get((scope, kind), []) if w in span and w not in before]
            hits[kind].append(windows[0] - start if windows else None)
    return {
        kind: {
            "leaks": len(rows),
            "recall": round(sum(one is not None for one in rows) / len(rows), 3),
            "interval": interval(sum(one is not None for one in rows), len(rows)),
            "in_first_ten_minutes": round(rows.count(0) / max(1, len(rows) - rows.count(None)), 3),
        }
        for kind, rows in sorted(hits.items())
    }


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


def leaks_of_money(keys: list[Key], addresses: Array, clean: Found, seeds: range) -> dict[str, Any]:
    """Return recall, delay and money lost of `unusual_use` and of dear hours, by kind of leak and group of keys.

    The figures of `unusual_use` were chosen on every other key: "others" are those that they were not chosen on.
    """
    dear = {n: {window for window, _ in spikes(key.cost_nano)} for n, key in enumerate(keys)}
    rows: dict[tuple[str, str], list[tuple[int | None, float]]] = defaultdict(list)
    for seed in seeds:
        for kind in SPENT:
            rng = np.random.default_rng([seed, SPENT.index(kind)])
            starts = [int(rng.integers(5 * PER_DAY, key.calls.size - 3 * PER_DAY)) for key in keys]
            leaky = [spent_with(key, kind, start) for key, start in zip(keys, starts, strict=True)]
            found = identity([key for key, _ in leaky], addresses, 0, {})
            for n, (start, (key, stop)) in enumerate(zip(starts, leaky, strict=True)):
                known = {window for window, _ in clean.get((n, "unusual_use"), [])} | dear[n]
                fired = {window for window, _ in found.get((n, "unusual_use"), [])}
                fired |= {window for window, _ in spikes(key.cost_nano[:stop])}
                news = sorted(window for window in fired - known if start <= window < stop)
                extra = (key.cost_nano - keys[n].cost_nano)[start:stop]
                lost = float(extra[: news[0] - start + 1].sum() / max(extra.sum(), 1)) if news else 1.0
                steady = "regular or semi" if key.kind != "irregular" else "irregular"
                for group in ("all", steady, *(("others", f"others, {steady}") if n % 2 else ())):
                    rows[group, kind].append((10 * (news[0] - start + 1) if news else None, lost))
    return {f"{group}: {kind}": _summary(found_) for (group, kind), found_ in sorted(rows.items())}


def _summary(rows: list[tuple[int | None, float]]) -> dict[str, Any]:
    minutes = [delay for delay, _ in rows if delay is not None]
    return {
        "leaks": len(rows),
        "recall": round(len(minutes) / len(rows), 3),
        "interval": interval(len(minutes), len(rows)),
        "median_minutes": float(np.median(minutes)) if minutes else None,
        "lost_of_found": round(float(np.mean([lost for delay, lost in rows if delay is not None])), 3)
        if minutes
        else None,
        "lost_with_missed": round(float(np.mean([lost for _, lost in rows])), 3),
    }


def measure(seeds: int) -> dict[str, Any]:
    """Return all figures."""
    keys, addresses = read_keys(), read_addresses()
    clean = identity(keys, addresses, 0, {})
    return {
        "keys": dict(Counter(key.kind for key in keys)),
        "identity": {
            "synthetic": "addresses, bodies, models, errors and prices are drawn; traffic and volumes are real",
            "false": false_rates(clean, keys),
            "recall": recall(keys, addresses, clean, range(1, seeds + 1)),
        },
        "money": {
            "granularity": "ten minutes, as in the data: no leak is found sooner",
            "leaks": leaks_of_money(keys, addresses, clean, range(1, seeds + 1)),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--seeds", type=int, default=3, help="placements of each leak (default 3)")
    args = parser.parse_args()
    found = measure(args.seeds)
    print(json.dumps(found) if args.json else json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
