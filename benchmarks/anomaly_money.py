"""Leaks of money in real tenants, minute by minute: what production's statistics find, when, and at what loss.

Minutes are drawn from the ten-minute windows of the data (`in_minutes`), so delays below ten minutes are synthetic. All
keys and all their leaky copies are rows of one table of production's series; nothing is marked as told in it, so a row
goes on as if nobody had looked.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from benchmarks.anomaly_traffic import PER_DAY, SPENT, Array, Key, in_minutes, quietest, spent_with
from tollmeter.streams.rules.anomalies import series
from tollmeter.streams.rules.anomalies.limits import Limits
from tollmeter.streams.rules.anomalies.unusual import PARTS, mark, of_series
from tollmeter.streams.rules.anomalies.unusual import far as parts_of

WARM_UP = 3 * PER_DAY
EPISODE = 36
EVEN = ("spike5x", "spike2x", "ramp4x", "night", "tokenloop")
"""Leaks that add calls of their own, evenly over the minutes; others multiply what is there."""
STEADY = ("regular", "semi")


@dataclass(frozen=True, slots=True)
class Seen:
    """By kind ("" for untouched), key and window: how far the parts were, as a minute of it showed at most."""

    far: Array
    """Kind, part, key, window; 0 where nothing would be told whatever the figures."""
    steady: Array
    """Kind, key, window: the class that the key was held to be of."""
    minutes: Array
    """Kind, key, window: the minute by which the shipped figures were first reached, -1 for none."""
    starts: Array
    stops: Array
    extra: Array
    """Kind, key, window: what the leak costs."""
    cost: Array
    """Key, window: what the untouched key costs."""
    kinds: tuple[str, ...]
    """Of the keys: regular, semi or irregular, as judged from all of the data."""


def simulate(keys: list[Key], limits: Limits, seed: int, steps: int = 10) -> Seen:
    """Run production's series over all keys and leaky copies, in one step a window or ten."""
    windows = min(key.calls.size for key in keys)
    plain = [_columns(key, windows) for key in keys]
    made, starts, stops = [np.stack(plain, axis=1)], [], []
    for kind in SPENT:
        rng = np.random.default_rng([seed, SPENT.index(kind)])
        begun = [int(rng.integers(5 * PER_DAY, windows - 3 * PER_DAY)) for _ in keys]
        begun = [quietest(key, at) if kind == "night" else at for key, at in zip(keys, begun, strict=True)]
        leaky = [spent_with(key, kind, at) for key, at in zip(keys, begun, strict=True)]
        made.append(np.stack([_columns(key, windows) for key, _ in leaky], axis=1))
        starts.append(begun)
        stops.append([min(stop, windows) for _, stop in leaky])
    per_window = np.stack(made, axis=1)  # column, kind, key, window
    drawn = np.stack([in_minutes(key)[:, :windows] for key in keys], axis=1)
    shares = drawn.reshape(3, len(keys), windows, steps, -1).sum(axis=4)  # column, key, window, step
    far, steady, minutes = _run(per_window, shares, limits)
    cost = per_window[1] * 2_500 + per_window[2] * 10_000
    return Seen(
        far,
        steady,
        minutes,
        np.array(starts),
        np.array(stops),
        cost[1:] - cost[:1],
        cost[0],
        tuple(key.kind for key in keys),
    )


def _columns(key: Key, windows: int) -> Array:
    return np.stack([part[:windows].astype(float) for part in (key.calls, key.input, key.output)])


def _run(per_window: Array, shares: Array, limits: Limits) -> tuple[Array, Array, Array]:
    _, kinds, keys, windows = per_window.shape
    steps = shares.shape[3]
    even = np.array([False, *(kind in EVEN for kind in SPENT)])[None, :, None]
    figures = limits.unusual_use
    classes = [np.array(some.values())[:, None] for some in (figures.steady, figures.irregular)]
    table = np.zeros((kinds * keys, series.WIDTH), dtype=np.int64)
    far = np.zeros((len(PARTS), kinds * keys, windows), dtype=np.float32)
    steady = np.zeros((kinds * keys, windows), dtype=bool)
    minutes = np.full((kinds * keys, windows), -1, dtype=np.int8)
    for window in range(windows):
        now, plain = per_window[..., window], per_window[:, :1, :, window]
        for minute in range(steps):
            share = shares[:, None, :, window, minute]
            columns = np.where(even, plain * share + (now - plain) / steps, now * share)
            calls, tokens_in, tokens_out = np.rint(np.maximum(columns, 0)).astype(np.int64).reshape(3, -1)
            at = np.flatnonzero(calls)
            rows = table[at]
            series.turn(rows, window * 10 + minute * 10 // steps)
            cost = tokens_in * 2_500 + tokens_out * 10_000
            series.add(rows, np.stack((calls, cost, tokens_in, tokens_out), axis=1)[at])
            table[at] = rows
            seen = parts_of(rows, limits)
            steady[at, window] = series.steady(rows, figures)[1]
            reached = (seen >= np.where(steady[at, window], *classes)).any(axis=0)
            last = (minute + 1) * 10 // steps - 1
            minutes[at, window] = np.where(reached & (minutes[at, window] < 0), last, minutes[at, window])
            far[:, at, window] = np.maximum(far[:, at, window], seen)
    shape = (kinds, keys, windows)
    return far.reshape(len(PARTS), *shape).swapaxes(0, 1), steady.reshape(shape), minutes.reshape(shape)


def over(seen: Seen, kind: int, keys: Array, reached: Array) -> Array:
    """Return by key and window whether one of the parts is beyond figures: two rows, steady and irregular."""
    needed = np.where(seen.steady[kind, keys][None], *(some[:, None, None] for some in reached))
    found: Array = (seen.far[kind][:, keys] >= needed).any(axis=0)
    return found


def false_rate(fired: Array) -> float:
    """Return the episodes of a key-day after the warm-up."""
    fired = fired.copy()
    fired[:, :WARM_UP] = False
    count = sum(1 + int((np.diff(np.flatnonzero(row)) >= EPISODE).sum()) for row in fired if row.any())
    return count / (len(fired) * (fired.shape[1] - WARM_UP) / PER_DAY)


def found(seen: Seen, keys: Array, reached: Array) -> Array:
    """Return by kind of leak and key the window in which it is found, counted from its begin, -1 for none."""
    clean = over(seen, 0, keys, reached)
    delays = np.full((len(SPENT), keys.size), -1)
    for kind in range(len(SPENT)):
        fired = over(seen, kind + 1, keys, reached) & ~clean
        for at, key in enumerate(keys.tolist()):
            hits = np.flatnonzero(fired[at, seen.starts[kind, key] : seen.stops[kind, key]])
            delays[kind, at] = hits[0] if hits.size else -1
    return delays


def chosen(some: list[Seen], keys: Array, target: float, tries: int = 1_500) -> Array:
    """Search the figures with the highest mean recall on these keys at no more than a rate of false findings a class.

    A seeded random walk: each step draws one figure anew or moves it, and is kept where more is found.
    """
    return np.stack([_chosen(some, keys, target, tries, steady) for steady in (True, False)])


def _chosen(some: list[Seen], keys: Array, target: float, tries: int, steady: bool) -> Array:
    rng, first = np.random.default_rng(int(steady)), some[0]
    ours = first.steady[0, keys] == steady
    clean = np.where(ours[None], first.far[0][:, keys], 0)
    days = max(ours[:, WARM_UP:].sum() / PER_DAY, 1)
    peaks = np.concatenate([_peaks(seen, keys, steady) for seen in some], axis=1)
    marks = [np.sort(part[:, WARM_UP:][part[:, WARM_UP:] > 100]) for part in clean]

    def draw(part: int) -> float:
        if not marks[part].size:
            return 102.0
        place = int(marks[part].size * (1 - 10 ** (-rng.uniform() * np.log10(max(marks[part].size, 2)))))
        return max(102.0, float(marks[part][min(place, marks[part].size - 1)]) + 1)

    best, most = np.full(len(PARTS), 1e9), -1.0
    for step in range(tries):
        figures = np.array([draw(part) for part in range(len(PARTS))]) if step < tries // 3 or most < 0 else best.copy()
        if step >= tries // 3:
            part = int(rng.integers(len(PARTS)))
            figures[part] = (
                draw(part) if rng.random() < 0.3 else max(102.0, figures[part] * np.exp(rng.normal(0, 0.25)))
            )
        hits = float((peaks >= figures[:, None]).any(axis=0).mean())
        if hits > most and _episodes((clean >= figures[:, None, None]).any(axis=0)) <= target * days:
            best, most = figures, hits
    return best


def _episodes(fired: Array) -> float:
    return false_rate(fired) * len(fired) * (fired.shape[1] - WARM_UP) / PER_DAY


def _peaks(seen: Seen, keys: Array, steady: bool) -> Array:
    """Return by part and leak how far it went beyond the untouched key at most."""
    peaks = []
    for kind in range(len(SPENT)):
        for key in keys.tolist():
            here = slice(seen.starts[kind, key], seen.stops[kind, key])
            far, clean = seen.far[kind + 1][:, key, here], seen.far[0][:, key, here]
            ours = (seen.steady[kind + 1, key, here] == steady)[None] & (far > 1.01 * clean)
            peaks.append(np.where(ours, far, 0).max(axis=1, initial=0))
    return np.array(peaks).T


def told_of(keys: list[Key], limits: Limits) -> dict[tuple[int, str], list[tuple[int, int]]]:
    """Return windows and levels of what is told of untouched keys, by drawn minutes, what was told marked."""
    windows = min(key.calls.size for key in keys)
    per_window = np.stack([_columns(key, windows) for key in keys], axis=1)
    shares = np.stack([in_minutes(key)[:, :windows] for key in keys], axis=1)
    table = np.zeros((len(keys), series.WIDTH), dtype=np.int64)
    told: dict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
    for window, minute in product(range(windows), range(10)):
        made = np.rint(per_window[:, :, window] * shares[:, :, window, minute]).astype(np.int64)
        calls, tokens_in, tokens_out = made
        at = np.flatnonzero(calls)
        rows = table[at]
        series.turn(rows, 10 * window + minute)
        cost = tokens_in * 2_500 + tokens_out * 10_000
        series.add(rows, np.stack((calls, cost, tokens_in, tokens_out), axis=1)[at])
        verdict = of_series(rows, limits)
        fresh = verdict.level > (rows[:, series.RAISED] & 3)
        mark(rows, fresh, limits)
        rows[:, series.RAISED] = np.where(fresh, verdict.level, rows[:, series.RAISED])
        table[at] = rows
        for place in np.flatnonzero(fresh).tolist():
            told[int(at[place]), "unusual_use"].append((window, int(verdict.level[place])))
    return dict(told)


def shipped(limits: Limits) -> Array:
    """Return the figures that ship: steady, then irregular."""
    figures = limits.unusual_use
    return np.array([figures.steady.values(), figures.irregular.values()], dtype=float)


def by_minute(some: list[Seen], keys: Array, reached: Array) -> dict[str, dict[str, list[float]]]:
    """Return by kind the minutes to each leak that is found, its share that was lost, and that of those missed (1)."""
    rows: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"minutes": [], "lost": []})
    for seen in some:
        for kind, delays in enumerate(found(seen, keys, reached)):
            for key, delay in zip(keys.tolist(), delays.tolist(), strict=True):
                lost = 1.0
                if delay >= 0:
                    at = seen.starts[kind, key] + delay
                    minute = int(seen.minutes[kind + 1, key, at])
                    rows[SPENT[kind]]["minutes"].append(10 * delay + minute + 1)
                    extra = seen.extra[kind, key, seen.starts[kind, key] : seen.stops[kind, key]]
                    spent = extra[:delay].sum() + extra[delay] * (minute + 1) / 10
                    lost = float(spent / max(extra.sum(), 1))
                rows[SPENT[kind]]["lost"].append(lost)
    return {kind: dict(found_) for kind, found_ in rows.items()}


def summary(keys: list[Key], limits: Limits, seeds: range) -> dict[str, Any]:
    """Return recall, delay and loss: of the figures that ship, and nested, with figures chosen on the other half."""
    some = [simulate(keys, limits, seed) for seed in seeds]
    every = np.arange(len(keys))
    steady = np.isin(some[0].kinds, STEADY)
    groups = {
        "all": every,
        "regular and semi": every[steady],
        "irregular": every[~steady],
        "others": every[1::2],
        "others, regular and semi": every[1::2][steady[1::2]],
    }
    figures = shipped(limits)
    return {
        "shipped": {name: _of_group(some, group, figures) for name, group in groups.items()},
        "nested": _nested(some, every, steady),
    }


def _of_group(some: list[Seen], group: Array, figures: Array) -> dict[str, Any]:
    rows = by_minute(some, group, figures)
    kinds = {
        kind: {
            "leaks": len(row["lost"]),
            "recall": round(len(row["minutes"]) / len(row["lost"]), 3),
            "median_minutes": float(np.median(row["minutes"])) if row["minutes"] else None,
            "in_two_minutes": round(sum(one <= 2 for one in row["minutes"]) / len(row["lost"]), 3),
            "in_five_minutes": round(sum(one <= 5 for one in row["minutes"]) / len(row["lost"]), 3),
            "lost_of_found": round(float(np.mean([one for one in row["lost"] if one < 1] or [1.0])), 3),
            "lost_with_missed": round(float(np.mean(row["lost"])), 3),
        }
        for kind, row in rows.items()
    }
    return {
        "keys": int(group.size),
        "false_a_key_day": round(false_rate(over(some[0], 0, group, figures)), 4),
        "mean_recall": round(float(np.mean([row["recall"] for row in kinds.values()])), 3),
        "kinds": kinds,
        "bounds": {kind: _bounds(some, group, number) for number, kind in enumerate(SPENT)},
    }


def _bounds(some: list[Seen], group: Array, kind: int) -> dict[str, float]:
    """Return what no figures can beat: how much of a kind goes beyond the highest that its untouched key ever showed.

    `oracle`: in any part, each key held against its own maximum of all of its data, known afterwards: without a single
    false finding. `hidden`: leaks that cost no more a window than the key's own dearest window of two weeks before.
    """
    highest = some[0].far[0][:, group, WARM_UP:].max(axis=2)
    found_, hidden = [], []
    for seen in some:
        for at, key in enumerate(group.tolist()):
            start, stop = seen.starts[kind, key], seen.stops[kind, key]
            far = seen.far[kind + 1][:, key, start:stop].max(axis=1)
            found_.append(bool((far > np.maximum(highest[:, at], 101)).any()))
            before = seen.cost[key, max(0, start - 14 * PER_DAY) : start].max()
            hidden.append(bool(seen.extra[kind, key, start:stop].max() <= before))
    return {"oracle": round(float(np.mean(found_)), 3), "hidden": round(float(np.mean(hidden)), 3)}


def _nested(some: list[Seen], every: Array, steady: Array, target: float = 0.045) -> dict[str, Any]:
    """Choose figures on half of the keys, all placements but the last; measure the other half with the last."""
    rows: dict[str, list[tuple[int, float, Array]]] = defaultdict(list)
    for half in (0, 1):
        figures = chosen(some[:-1] or some, every[half::2], target)
        for name, mask in (("all", np.ones(every.size, dtype=bool)), ("regular and semi", steady)):
            test = every[1 - half :: 2][mask[1 - half :: 2]]
            rate = false_rate(over(some[0], 0, test, figures))
            rows[name].append((test.size, rate, (found(some[-1], test, figures) >= 0).sum(axis=1)))
    result = {}
    for name, parts in rows.items():
        count = sum(size for size, _, _ in parts)
        hits = np.sum([hit for _, _, hit in parts], axis=0)
        result[name] = {
            "keys": count,
            "false_a_key_day": round(sum(size * rate for size, rate, _ in parts) / count, 4),
            "mean_recall": round(float(hits.mean() / count), 3),
            "hits": {kind: int(hit) for kind, hit in zip(SPENT, hits, strict=True)},
        }
    return result
