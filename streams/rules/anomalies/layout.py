"""The columns of a profile: all that is remembered of one key or address, as 64-bit integers.

Everything adds up, grows or is a set of bits, so the order in which calls come in between two barriers changes nothing.
Two weeks are kept, the present one and the one before: a week without calls costs nothing and is caught up at the next.
"""

from typing import Any

import numpy as np

Matrix = np.ndarray[Any, np.dtype[np.int64]]
Vector = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

VERSION = 2
"""Stands in the first column; a profile of another version begins anew."""
WINDOW_MINUTES = 10
PER_HOUR, PER_DAY, PER_WEEK = 6, 144, 1_008
"""Windows in an hour, a day, a week."""
KEPT_WINDOWS = 60 * PER_DAY
"""Who was silent for so long is new again."""

SINGLES = (
    "layout",
    "born",
    "window",
    "hour",
    "week",
    "raised",
    "slept",
    "hours",
    "network_met",
    "network_windows",
    "hour_cost",
    "young_model_cost",
    "young_network_cost",
    "calls",
    "errors",
    "cost",
    "input",
    "cached",
    "output",
    "ahead",
)
"""Windows are counted since 1970, hours and weeks too. `raised`: a bit for each finding of the present hour. `slept`:
windows without calls before this one. `hours`: hours of the day in use, 24 bits for this fortnight and 24 for the one
before. `network_met`: the window of the last network that was new; then the windows with calls since. From `hour_cost`
on: sums of the open hour; from `calls` on: of the open window."""
LAYOUT, BORN, WINDOW, HOUR, WEEK, RAISED, SLEPT, HOURS = range(8)
NETWORK_MET, NETWORK_WINDOWS, HOUR_COST, YOUNG_MODEL_COST, YOUNG_NETWORK_COST = range(8, 13)
CALLS, ERRORS, COST, INPUT, CACHED, OUTPUT, AHEAD = range(13, 20)
HOUR_SUMS = slice(HOUR_COST, YOUNG_NETWORK_COST + 1)
OPEN_SUMS = slice(CALLS, AHEAD + 1)

WEEKLY = ("windows", "calls", "cost", "input", "cached", "output")
"""Sums of the closed windows of this week, then of the week before; `windows` counts those with calls."""
W_WINDOWS, W_CALLS, W_COST, W_INPUT, W_CACHED, W_OUTPUT = range(6)
PEAKED = ("partners", "errors", "repeats")
"""Highest value of a closed window of this week, then of the week before."""
P_PARTNERS, P_ERRORS, P_REPEATS = range(len(PEAKED))


def _block(start: int, size: int) -> slice:
    return slice(start, start + size)


THIS_WEEK = _block(len(SINGLES), len(WEEKLY))
LAST_WEEK = _block(THIS_WEEK.stop, len(WEEKLY))
PEAKS = _block(LAST_WEEK.stop, len(PEAKED))
LAST_PEAKS = _block(PEAKS.stop, len(PEAKED))
SET_BITS = 512
_SET_WORDS = SET_BITS // 64
PARTNERS = _block(LAST_PEAKS.stop, _SET_WORDS)
"""The open window's addresses of a key, or keys of an address: a bit by the hash of each name."""
ADDRESS_WIDTH = PARTNERS.stop
"""Profiles of addresses end here."""
MODELS = _block(PARTNERS.stop, _SET_WORDS)
YOUNG_MODELS = _block(MODELS.stop, _SET_WORDS)
"""Dear models that a key with a past began with in this week, then in the week before."""
LAST_YOUNG_MODELS = _block(YOUNG_MODELS.stop, _SET_WORDS)
NETWORKS = _block(LAST_YOUNG_MODELS.stop, _SET_WORDS)
LAST_NETWORKS = _block(NETWORKS.stop, _SET_WORDS)
YOUNG_NETWORKS = _block(LAST_NETWORKS.stop, _SET_WORDS)
"""Networks that a key with a past and few networks was first used from in this week, then in the week before."""
LAST_YOUNG_NETWORKS = _block(YOUNG_NETWORKS.stop, _SET_WORDS)
BODY_COUNTS = 64
BODIES = _block(LAST_YOUNG_NETWORKS.stop, BODY_COUNTS // 4)
"""Calls of the open window by the hash of their body: 64 counts of 16 bits."""
WIDTH = BODIES.stop


def _distinct_by_bits() -> Vector:
    """Return for each number of set bits how many distinct names set them: linear counting (Whang et al., 1990)."""
    free = np.maximum(SET_BITS - np.arange(SET_BITS + 1), 1) / SET_BITS
    counted: Vector = np.rint(-SET_BITS * np.log(free)).astype(np.int64)
    return counted


_DISTINCT = _distinct_by_bits()


def distinct(words: Matrix) -> Vector:
    """Return how many distinct names a set of bits holds: exact for a few, within 10 % up to a thousand."""
    found: Vector = _DISTINCT[np.bitwise_count(words.view(np.uint64)).sum(axis=1, dtype=np.int64)]
    return found


def partners(profiles: Matrix) -> Vector:
    """Return how many addresses or keys the open window has, which are never more than its calls."""
    found: Vector = np.minimum(distinct(profiles[:, PARTNERS]), profiles[:, CALLS])
    return found


def set_bits(profiles: Matrix, block: slice, places: Vector, hashes: Vector) -> None:
    """Set the bit of each hash in its profile; a hash of 0 is nobody's."""
    named = np.flatnonzero(hashes)
    bits = hashes[named] % SET_BITS
    words = np.ascontiguousarray(profiles[:, block])
    np.bitwise_or.at(words, (places[named], bits >> 6), np.int64(1) << (bits & 63))
    profiles[:, block] = words


def has_bits(words: Matrix, places: Vector, hashes: Vector) -> Mask:
    """Tell for each hash whether its bit is set in its profile's words; nobody's is."""
    bits = hashes % SET_BITS
    found: Mask = (words[places, bits >> 6] >> (bits & 63) & 1 != 0) | (hashes == 0)
    return found


def repeats(profiles: Matrix) -> Vector:
    """Return how often the most frequent body came, less what chance puts beside it: never more than it did."""
    counts = np.ascontiguousarray(profiles[:, BODIES]).view(np.uint16).astype(np.int64)
    most = counts.max(axis=1)
    found: Vector = np.maximum(0, most - 2 * (counts.sum(axis=1) - most) // (BODY_COUNTS - 1))
    return found


def two_weeks(profiles: Matrix, column: int) -> Vector:
    """Return a weekly sum over both weeks."""
    found: Vector = profiles[:, THIS_WEEK.start + column] + profiles[:, LAST_WEEK.start + column]
    return found


def usual_day(profiles: Matrix) -> Vector:
    """Return what a day cost in both weeks, in nano-USD; a past of hours counts as a day."""
    since = np.maximum(profiles[:, BORN], (profiles[:, WEEK] - 1) * PER_WEEK)
    found: Vector = two_weeks(profiles, W_COST) * PER_DAY // np.maximum(profiles[:, WINDOW] - since, PER_DAY)
    return found


def peak(profiles: Matrix, column: int) -> Vector:
    """Return the highest value of both weeks."""
    found: Vector = np.maximum(profiles[:, PEAKS.start + column], profiles[:, LAST_PEAKS.start + column])
    return found
