"""The Numenta Anomaly Benchmark (v1.1): what its labelled series say of production's statistics, by rules of its own.

The first 15 % of a file (750 rows at most) do not count. A window counts once, the more the earlier its first hit; a
missed one costs its weight, and so does, up to the weight of a false alert, every row told of outside. One threshold
for all files is chosen on these files, as is the custom: 0 is silence, 100 is perfect. The scorer is checked: NAB's
own baseline, run from raw rows, has the published score in every file (`checked`).
"""

import csv
import json
import math
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.nab_reference import ENS, PARTS, Detector

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
EPISODE_S = 6 * 3_600.0
"""False alerts that are closer are one episode."""


class Weights(NamedTuple):
    """What a hit, a missed window and a row told of for nothing are worth."""

    hit: float
    miss: float
    false: float


STANDARD, LOW_FP = Weights(1.0, 1.0, 0.11), Weights(1.0, 1.0, 0.22)


@dataclass(frozen=True, slots=True)
class Series:
    """One file: by row its time, its value, what telling of it is worth, and the window it is in."""

    name: str
    at: Floats
    value: Floats
    probation: int
    windows: tuple[tuple[int, int], ...]
    worth: Floats
    """0 to 1 in a window, -1 to 0 outside."""
    window_of: Ints
    """-1 outside."""


class Report(NamedTuple):
    """What one detector reaches at one threshold; `score` up to 100."""

    score: float
    raw: float
    windows: int
    found: int
    false_episodes: int
    days: float
    per_file: dict[str, float]


def read_all(folder: Path) -> list[Series]:
    """Return the files that have labels, by name."""
    labels = json.loads((folder / "labels" / "combined_windows.json").read_text())
    return [_series(name, folder / "data" / name, labels[name]) for name in sorted(labels)]


def _series(name: str, path: Path, labels: Sequence[Sequence[str]]) -> Series:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    at = np.array([_seconds(row["timestamp"]) for row in rows])
    value = np.array([float(row["value"]) for row in rows])
    first_row: dict[float, int] = {}
    for row, moment in enumerate(at.tolist()):
        first_row.setdefault(moment, row)
    windows = tuple((first_row[_seconds(a)], first_row[_seconds(b)]) for a, b in labels)
    worth, window_of = np.full(value.size, -1.0), np.full(value.size, -1)
    for number, (first, last) in enumerate(windows):
        width, inside = last - first + 1, np.arange(first, last + 1)
        worth[inside] = _sigmoid(-(last - inside + 1) / width) / _sigmoid(np.array(-1.0))
        window_of[inside] = number
        behind = np.arange(last + 1, windows[number + 1][0] if number + 1 < len(windows) else value.size)
        worth[behind] = _sigmoid((behind - last) / max(width - 1, 1))
    return Series(name, at, value, min(math.floor(0.15 * value.size), 750), windows, worth, window_of)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def _sigmoid(y: Floats) -> Floats:
    """Near 1 long before the end of a window, 0 at it, -1 far behind."""
    found: Floats = np.where(y > 3, -1.0, 2 / (1 + np.exp(np.clip(5 * y, -50, 50))) - 1)
    return found


def run(make: Callable[[], Detector], data: Sequence[Series]) -> list[Floats]:
    """Return the scores of a fresh detector over each file."""
    scores = []
    for series in data:
        detector = make()
        pairs = zip(series.value.tolist(), series.at.tolist(), strict=True)
        scores.append(np.array([detector(value, at) for value, at in pairs]))
    return scores


def best_threshold(data: Sequence[Series], scores: Sequence[Floats], weights: Weights) -> float:
    """Return the threshold with the highest sum over these files, infinity where none beats silence."""
    values, worths, owners, before = [], [], [], 0
    for series, score in zip(data, scores, strict=True):
        rows = slice(series.probation, None)
        owner = series.window_of[rows]
        owners.append(np.where(owner >= 0, owner + before, -1))
        values.append(score[rows])
        worths.append(series.worth[rows])
        before += len(series.windows)
    order = np.argsort(-np.concatenate(values), kind="stable")
    value, worth, owner = (np.concatenate(part)[order] for part in (values, worths, owners))
    gain = np.where(owner < 0, worth * weights.false, 0.0)
    best = dict.fromkeys(owner[owner >= 0].tolist(), -weights.miss)
    for row in np.flatnonzero(owner >= 0).tolist():
        window, hit = int(owner[row]), float(worth[row]) * weights.hit
        if hit > best[window]:
            gain[row] = hit - best[window]
            best[window] = hit
    total = np.cumsum(gain)
    last_of_tie = np.flatnonzero(np.append(value[1:] != value[:-1], True))
    top = last_of_tie[np.argmax(total[last_of_tie])]
    return float(value[top]) if total[top] > 0 else math.inf


def score_at(data: Sequence[Series], scores: Sequence[Floats], threshold: float, weights: Weights) -> Report:
    """Score the rows at or above a threshold as alerts."""
    windows = found = episodes = 0
    days, per_file = 0.0, {}
    for series, score in zip(data, scores, strict=True):
        fired = score >= threshold
        fired[: series.probation] = False
        outside = np.flatnonzero(fired & (series.window_of < 0))
        total = float(series.worth[outside].sum()) * weights.false
        if outside.size:
            episodes += 1 + int((np.diff(series.at[outside]) > EPISODE_S).sum())
        days += float(series.at[-1] - series.at[series.probation]) / 86_400
        for first, last in series.windows:
            windows += 1
            hits = first + np.flatnonzero(fired[first : last + 1])
            found += hits.size > 0
            total += float(series.worth[hits].max()) * weights.hit if hits.size else -weights.miss
        per_file[series.name] = total
    raw = sum(per_file.values())
    return Report(_normal(raw, windows, weights), raw, windows, found, episodes, days, per_file)


def _normal(raw: float, windows: int, weights: Weights) -> float:
    return 100 * (raw + weights.miss * windows) / ((weights.hit + weights.miss) * windows) if windows else math.nan


Part = tuple[list[Series], list[Floats]]


def _only(data: Sequence[Series], scores: Sequence[Floats], names: Collection[str]) -> Part:
    kept = [at for at, series in enumerate(data) if series.name in names]
    return [data[at] for at in kept], [scores[at] for at in kept]


def cross_validated(data: Sequence[Series], candidates: Sequence[Sequence[Floats]], splits: int = 10) -> float:
    """Return the mean standard score when all that is chosen is chosen on the other half of the files.

    Of several candidates that with the best score on the other half is taken, too.
    """
    rng, results = random.Random(0), []
    names = [series.name for series in data]
    for _ in range(splits):
        rng.shuffle(names)
        half, raw, windows = len(names) // 2, 0.0, 0
        for learn, test in ((names[:half], names[half:]), (names[half:], names[:half])):
            chosen = [(scores, _only(data, scores, learn)) for scores in candidates]
            ranked = [(best_threshold(*part, STANDARD), part, scores) for scores, part in chosen]
            reached = [score_at(*part, threshold, STANDARD).score for threshold, part, _ in ranked]
            threshold, _, scores = ranked[int(np.argmax(reached))]
            report = score_at(*_only(data, scores, test), threshold, STANDARD)
            raw, windows = raw + report.raw, windows + report.windows
        results.append(_normal(raw, windows, STANDARD))
    return sum(results) / splits


class WindowedGaussian:
    """NAB's baseline: how rare a value is in a normal law fitted to 6,400 rows, moved in steps of a hundred.

    Rounded to 12 digits, as the published rows are.
    """

    def __init__(self) -> None:
        self._seen: list[float] = []
        self._waiting: list[float] = []
        self._law = (0.0, 1.0)

    def __call__(self, value: float, _at: float) -> float:
        mean, deviation = self._law
        score = round(1 - 0.5 * math.erfc(abs(value - mean) / deviation / 1.4142), 12) if self._seen else 0.0
        if len(self._seen) < 6_400:
            self._seen.append(value)
            self._refit()
        else:
            self._waiting.append(value)
            if len(self._waiting) == 100:
                self._seen, self._waiting = self._seen[100:] + self._waiting, []
                self._refit()
        return score

    def _refit(self) -> None:
        seen = np.array(self._seen)
        self._law = float(seen.mean()), float(seen.std()) or 1e-6


def checked(folder: Path, data: Sequence[Series]) -> dict[str, float]:
    """Run NAB's own baseline from raw rows; return its score, and in how many files it equals the published one."""
    with (folder / "results" / "windowedGaussian" / "windowedGaussian_standard_scores.csv").open(newline="") as file:
        published = {row["File"]: float(row["Score"]) for row in csv.DictReader(file) if "/" in row["File"]}
    scores = run(WindowedGaussian, data)
    report = score_at(data, scores, best_threshold(data, scores, STANDARD), STANDARD)
    equal = sum(bool(abs(score - published[name]) <= 0.005) for name, score in report.per_file.items())
    return {"score": round(report.score, 1), "files": len(published), "files_equal": equal}


def summary(data: Sequence[Series], scores: Sequence[Floats]) -> dict[str, float]:
    """Return what a detector reaches: thresholds chosen on these files, and on the other half of them."""
    standard = score_at(data, scores, best_threshold(data, scores, STANDARD), STANDARD)
    low_fp = score_at(data, scores, best_threshold(data, scores, LOW_FP), LOW_FP)
    return {
        "standard": round(standard.score, 1),
        "low_fp": round(low_fp.score, 1),
        "cross_validated": round(cross_validated(data, [scores]), 1),
        "found": standard.found,
        "windows": standard.windows,
        "false_episodes_a_day": round(standard.false_episodes / standard.days, 3),
    }


def reference(data: Sequence[Series]) -> dict[str, float]:
    """Return what ENS reaches; `nested`: with the choice of up to three parts made on the other half, too."""
    parts = {name: [score / unit for score in run(make, data)] for name, (make, unit) in PARTS.items()}
    sets = [chosen for size in (1, 2, 3) for chosen in combinations(PARTS, size)]
    joined = {
        chosen: [np.maximum.reduce(rows) for rows in zip(*map(parts.__getitem__, chosen), strict=True)]
        for chosen in sets
    }
    return summary(data, joined[ENS]) | {"nested": round(cross_validated(data, list(joined.values())), 1)}
