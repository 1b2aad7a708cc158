"""Anomalies of API keys, each relative to the key's own past and with a floor in money or tokens.

Absolute rules misfire on real traffic: of 332 production keys one in ten moves 13-fold on its own, and an input/output
ratio above 100 is normal for code completion. A key without a past has only an absolute floor to be held against.
"""

from dataclasses import dataclass

import numpy as np

from tollmeter.streams.rules.windows.totals import CALLS, INPUT, OUTPUT, UNKNOWN_MODEL, Matrix, Vector

LOOP_INPUT_TOKENS = 1_000_000
LOOP_RATIO = 20
LOOP_MEDIANS = 8
UNPRICED_MIN_CALLS = 100


@dataclass(frozen=True, slots=True)
class SpikeFloors:
    """Money below which a new extreme is nobody's concern, nano-USD; `factor`: how far beyond the past it must lie."""

    minute_nano: int
    hour_nano: int
    new_key_hour_nano: int
    factor: int


def spike_threshold(level: str, past_peak_nano: Vector, floors: SpikeFloors) -> Vector:
    """Return the cost (nano-USD, exclusive) beyond which a key's open minute or hour is a spike.

    `past_peak_nano` is the dearest closed bucket of the same length in the key's past, 0 without a past.
    """
    floor = floors.minute_nano if level == "minute" else floors.hour_nano
    unknown = np.iinfo(np.int64).max if level == "minute" else floors.new_key_hour_nano
    known = np.maximum(floor, floors.factor * past_peak_nano)
    threshold: Vector = np.where(past_peak_nano > 0, known, unknown)
    return threshold


def loop_candidates(hour: Matrix) -> Vector:
    """Return the rows whose hour has more than a million input tokens and hardly any output: the cheap first sieve."""
    inputs, outputs = hour[:, INPUT], np.maximum(hour[:, OUTPUT], 1)
    return np.flatnonzero((inputs > LOOP_INPUT_TOKENS) & (inputs > LOOP_RATIO * outputs))


def is_loop(inputs: int, outputs: int, past: Matrix) -> bool:
    """Tell whether an hour of a key looks like an ingest loop: ratio above 20 and above 8 times its own median.

    `past` holds the totals of the key's closed hours; hours without input do not count.
    """
    used = past[past[:, INPUT] > 0]
    median = float(np.median(used[:, INPUT] / np.maximum(used[:, OUTPUT], 1))) if len(used) else 0.0
    return inputs > LOOP_INPUT_TOKENS and inputs / max(outputs, 1) > max(LOOP_RATIO, LOOP_MEDIANS * median)


def unpriced_share(day: Matrix, share_pct: float) -> Vector:
    """Return the rows (organisations) of which more than `share_pct` percent of at least 100 calls have no price."""
    calls, unknown = day[:, CALLS], day[:, UNKNOWN_MODEL]
    return np.flatnonzero((calls >= UNPRICED_MIN_CALLS) & (unknown * 100 > calls * share_pct))
