"""Tenants of ServeGen as keys of ours, and leaks put into them; what the data does not name is drawn, seeded."""

import csv
import gzip
import os
import zlib
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tollmeter.streams.rules.anomalies.calls import Calls

PER_DAY = 144
MOST_CALLS = 10
"""Calls that stand for a window of a key; their cost and tokens add up to the window's."""
KEYS_PER_ORG = 8
FEW_HOSTS = 8
TOKEN_SPREAD = 0.8
"""The mean tokens of n calls vary by it / sqrt(n)."""
ERRORS, REPEATED = 0.02, 0.01
"""Shares of failed calls (chosen) and of bodies that come again (118 of Mooncake's 12,031 calls)."""
MODEL, DEAR, BODY = 3_000_000, 3_000_001, 7
"""Numbers of models and of the body that comes again and again."""
LEAKS = ("fan_out", "error_storm", "same_body", "new_model", "new_network", "shared_address")
LEAK_WINDOWS = 3
SPENT = ("spike5x", "spike2x", "ramp4x", "night", "slow", "tokenloop", "dear_model")
_LENGTH = {"spike5x": 12, "spike2x": 36, "ramp4x": 144, "night": 18, "slow": 432, "tokenloop": 6, "dear_model": 6}
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Key:
    """A tenant: per ten minutes its calls and their cost; how many addresses it uses is drawn from its name."""

    name: str
    kind: str
    """regular, semi or irregular, by activity, burst height and daily repetition."""
    calls: Array
    input: Array
    output: Array
    """Tokens, scaled so that a day costs what is drawn for the key."""
    pool: int
    cached_pct: int
    gap_spread: Array
    """By window: standard deviation of the gaps between calls, in means."""

    @property
    def cost_nano(self) -> Array:
        """At 2.50 and 10 USD a million."""
        return self.input * 2_500 + self.output * 10_000

    def usual_nano(self, window: int) -> int:
        """Return the 95th percentile of what a window cost in the three days before."""
        return int(np.quantile(self.cost_nano[max(0, window - 3 * PER_DAY) : window], 0.95))


class Traffic:
    """The calls of all keys, window by window; up to MOST_CALLS of them stand for a window of a key."""

    def __init__(self, keys: list[Key], addresses: Array, seed: int) -> None:
        self.windows = min(key.calls.size for key in keys)
        self._sizes = np.stack([np.minimum(MOST_CALLS, key.calls[: self.windows]).astype(np.int64) for key in keys])
        self._cost = np.stack([key.cost_nano[: self.windows] for key in keys])
        self._input, self._output = (
            np.stack([part[: self.windows] for part in parts])
            for parts in zip(*((key.input, key.output) for key in keys), strict=True)
        )
        self._pool = np.array([key.pool for key in keys])
        self._cached_pct = np.array([key.cached_pct for key in keys])
        self._addresses, self._seed = addresses, seed

    def of(self, window: int, *, spread: bool = False) -> Calls:
        """Return the calls of a window, in its first minute or spread over all ten."""
        rng = np.random.default_rng([self._seed, window])
        sizes = self._sizes[:, window]
        key = np.repeat(np.arange(sizes.size), sizes)
        hosts = np.minimum(self._pool, 1 + window // PER_DAY)  # those of a service come by the day
        hosts = np.where(self._pool > FEW_HOSTS, self._pool, hosts)[key]
        at = (key * 37 + (rng.random(key.size) * hosts).astype(np.int64)) % self._addresses.size
        made = calls(key, window, (self._cost[:, window] // np.maximum(sizes, 1))[key], self._addresses[at])
        made.input[:] = (self._input[:, window] // np.maximum(sizes, 1))[key]
        made.output[:] = (self._output[:, window] // np.maximum(sizes, 1))[key]
        made.cached[:] = made.input * self._cached_pct[key] // 100
        made.errors[:] = rng.random(key.size) < ERRORS
        made.minute[:] += rng.integers(0, 10, key.size) if spread else 0
        made.body[:] = np.where(rng.random(key.size) < REPEATED, BODY, rng.integers(8, 1 << 40, key.size))
        return made


def calls(key: Array, window: int, cost_nano: Array | int, address: Array) -> Calls:
    """Return a call for each entry of `key`, without tokens."""
    zero = np.zeros(key.size, dtype=np.int64)
    return Calls(
        org=1_000_000 + key // KEYS_PER_ORG,
        key=key.astype(np.int64),
        user=zero - 1,
        address=np.resize(address, key.size).astype(np.int64),
        minute=zero + 10 * window,
        received_ms=zero + window * 600_000,
        errors=zero.copy(),
        cost_nano=zero + cost_nano,
        unknown=zero.copy(),
        input=zero.copy(),
        cached=zero.copy(),
        output=zero.copy(),
        body=np.arange(key.size, dtype=np.int64) + (window + 1) * 1_000,
        model=zero + MODEL,
        ahead=zero.copy(),
    )


def leaked(kind: str, key: Key, number: int, window: int, addresses: Array) -> Calls:
    """Return the calls of a leak in a window: as dear as the key's 95th percentile, two dollars at least."""
    size = {"fan_out": 240, "error_storm": 200, "same_body": 200, "new_model": 1}.get(kind, 40)
    recent = slice(max(0, window - PER_DAY), window)
    tokens = max(int(np.median(key.input[recent] + key.output[recent])) // MOST_CALLS, 100)
    own = addresses[[number * 37 % addresses.size]]
    used = {
        "fan_out": addresses[:120],
        "new_network": addresses[-1:] + 256 * (number + 1),
        "shared_address": addresses[[(number * 37 + 500) % addresses.size]],
    }
    made = calls(np.full(size, number), window, max(key.usual_nano(window), 2 * 10**9) // size, used.get(kind, own))
    made.input[:], made.output[:] = tokens * 9 // 10, tokens // 10
    if kind == "error_storm":
        made.errors[:], made.cost_nano[:] = 1, 0
    elif kind == "same_body":
        made.body[:] = BODY
    elif kind == "new_model":  # one short call at five times the price per token
        made.model[:], made.input[:], made.output[:] = DEAR, 9_000, 1_000
        made.cost_nano[:] = int(5 * 10_000 * key.cost_nano.sum() / max((key.input + key.output).sum(), 1)) + 1
    elif kind == "shared_address":
        made.key[:] = np.arange(size) % KEYS_PER_ORG + number // KEYS_PER_ORG * KEYS_PER_ORG
    return made


def spent_with(key: Key, kind: str, start: int) -> tuple[Key, int]:
    """Return a key with a leak from `start` on, relative to its own last three days, and where the leak ends."""
    stop = min(start + _LENGTH[kind], key.calls.size)
    here, recent = slice(start, stop), key.calls[max(0, start - 3 * PER_DAY) : start]
    made, tokens_in, tokens_out = key.calls.astype(float), key.input.copy(), key.output.copy()
    p95, median = max(float(np.quantile(recent, 0.95)), 3.0), max(float(np.median(recent)), 1.0)
    before = np.maximum(made[:start].sum(), 1)
    mean_in, mean_out = key.input[:start].sum() / before, key.output[:start].sum() / before
    if kind == "tokenloop":  # as many calls again, each with a huge prompt and no output
        made[here] += median
        tokens_in[here] += int(median * mean_in * 20)
    elif kind == "dear_model":
        tokens_in[here], tokens_out[here] = 15 * key.input[here], 15 * key.output[here]
    else:
        ramp = p95 * np.linspace(0, 4, stop - start)
        more: Any = {"spike5x": 5 * p95, "spike2x": 2 * p95, "ramp4x": ramp, "night": p95, "slow": made[here] / 2}[kind]
        made[here] += more
        tokens_in[here] += (more * mean_in).astype(np.int64) if isinstance(more, np.ndarray) else int(more * mean_in)
        tokens_out[here] += (more * mean_out).astype(np.int64) if isinstance(more, np.ndarray) else int(more * mean_out)
    return replace(key, calls=np.round(made), input=tokens_in, output=tokens_out), stop


def quietest(key: Key, near: int) -> int:
    """Return the first window at or after `near` that begins the quietest three hours of the last three days."""
    first, length = near - 3 * PER_DAY, _LENGTH["night"]
    by_time = np.array([key.calls[first + at : near : PER_DAY].mean() for at in range(PER_DAY)])
    three_hours = np.convolve(np.r_[by_time, by_time[:length]], np.ones(length), "valid")[:PER_DAY]
    found = near + (first + int(np.argmin(three_hours)) - near) % PER_DAY
    return min(found, key.calls.size - length)


def in_minutes(key: Key) -> Array:
    """Return by column (calls, input, output), window and minute the share of the window, seeded by the key's name.

    Gamma renewal: the n gaps of a window are gamma with the row's spread, so a tenth of its time holds about gamma(n /
    (10 spread²)) of them. Tokens follow the calls, and vary as means of so few do. Synthetic: the data has ten minutes.
    """
    rng = np.random.default_rng([zlib.crc32(key.name.encode()), 1])
    shape = np.maximum(key.calls, 1) / (10 * np.maximum(key.gap_spread, 0.2) ** 2)
    drawn: Array = rng.gamma(np.maximum(shape, 1e-3)[:, None], 1.0, (key.calls.size, 10)) + 1e-300
    calls = drawn / drawn.sum(axis=1, keepdims=True)
    noise = TOKEN_SPREAD / np.sqrt(np.maximum(calls * key.calls[:, None], 1))
    tokens = [calls * np.exp(rng.normal(0, 1, calls.shape) * noise) for _ in range(2)]
    return np.stack([calls, *(some / some.sum(axis=1, keepdims=True) for some in tokens)])


def read_keys() -> list[Key]:
    """Return the language tenants with token data and at least 500 active windows."""
    folder = data_folder() / "servegen"
    counts: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for row in _rows(folder / "servegen_client_rate_10min.csv.gz"):
        point = float(row["t_s"]), float(row["requests_10min"]), float(row["interarrival_cv"] or 1)
        counts[f"{row['model']}/{row['client']}"].append(point)
    means: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in _rows(folder / "servegen_client_token_quantiles.csv.gz"):
        means[f"{row['model']}/{row['client']}", row["field"]].append((float(row["t_s"]), float(row["mean"])))
    keys = []
    for name, points in counts.items():
        at, made, spread = np.array(points).T
        if (made > 0).sum() >= 500 and means[name, "input_tokens"]:
            tokens = [means[name, field] for field in ("input_tokens", "output_tokens")]
            keys.append(replace(_key(name, at, made, tokens), gap_spread=spread))
    return keys


def _key(name: str, at: Array, made: Array, means: list[list[tuple[float, float]]]) -> Key:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    noise = np.where(made > 0, TOKEN_SPREAD / np.sqrt(np.maximum(made, 1)), 0.0)
    tokens_in, tokens_out = (_filled(at, one) * np.exp(rng.normal(0, 1, made.size) * noise) for one in means)
    cost = made * (tokens_in * 2.5 + tokens_out * 10) / 1e6
    day_usd = float(np.exp(rng.uniform(np.log(5), np.log(500))))  # tenants are large: each becomes a key of a team
    scale = day_usd / max(float(cost.sum()) / (cost.size / PER_DAY), 1e-9)
    return Key(
        name,
        _class_of(made),
        made,
        (made * tokens_in * scale).astype(np.int64),
        (made * tokens_out * scale).astype(np.int64),
        int(rng.choice((1, 1, 2, 4, 4, 1_000))),
        int(rng.choice((0, 37))),
        np.ones(made.size),
    )


def _filled(at: Array, means: list[tuple[float, float]]) -> Array:
    found = np.full(at.size, means[0][1])
    for start, mean in sorted(means):
        found[at >= start] = mean
    return found


def _class_of(made: Array) -> str:
    active, burst = float((made > 0).mean()), float(made.max()) / max(float(np.quantile(made, 0.95)), 1.0)
    logs = np.log1p(made)
    daily = float(np.corrcoef(logs[:-PER_DAY], logs[PER_DAY:])[0, 1])
    if active > 0.95 and burst <= 2.5 and daily > 0.5:
        return "regular"
    return "semi" if active > 0.8 and burst <= 6 else "irregular"


def read_addresses() -> Array:
    """Return a number for each address of the Apache log, in order of appearance; 256 numbers are a network."""
    with gzip.open(data_folder() / "apache_access" / "apache_logs.gz", "rt") as file:
        names = dict.fromkeys(line.split(" ", 1)[0] for line in file)
    networks: dict[str, int] = {}
    numbers = [
        networks.setdefault(n.rpartition(".")[0], len(networks)) * 256 + zlib.crc32(n.encode()) % 256 for n in names
    ]
    return np.unique(np.array(numbers, dtype=np.int64)) + 4_096


def _rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="") as file:
        return [row for row in csv.DictReader(file) if row["category"] == "language"]


def data_folder() -> Path:
    """Return where the traces lie."""
    folder = os.environ.get("TOLLMETER_TRACES", "")
    if not folder or not (Path(folder) / "servegen").is_dir():
        raise SystemExit("TOLLMETER_TRACES names no folder with servegen and apache_access: set it to where they lie")
    return Path(folder)
