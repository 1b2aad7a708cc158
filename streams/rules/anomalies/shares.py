"""Who takes how much of an organisation's hour: one row per organisation, its keys in 64 groups by the hash of a name.

Nothing here looks at a key's own profile, so an organisation's row is right whichever other rows a checkpoint has.
"""

import numpy as np

from tollmeter.streams.rules.anomalies.layout import KEPT_WINDOWS, PER_HOUR, PER_WEEK, Mask, Matrix, Vector

GROUPS = 64
SINGLES = ("layout", "born", "window", "hour", "week", "raised", "hours", "last_hours")
"""`window` as in profiles; `raised`: a bit for each group told of in this hour; `hours`: closed hours that count."""
LAYOUT, BORN, WINDOW, HOUR, WEEK, RAISED, HOURS, LAST_HOURS = range(len(SINGLES))
VERSION = 2


def _block(number: int) -> slice:
    return slice(len(SINGLES) + number * GROUPS, len(SINGLES) + (number + 1) * GROUPS)


OPEN, THIS_WEEK, LAST_WEEK, PEAK, LAST_PEAK, DEAREST, LAST_DEAREST = map(_block, range(7))
"""Cost by group: of the open hour, of the closed hours of this week and the last; then the highest shares of an hour
in both, in thousandths; then the dearest hour in both."""
WIDTH = LAST_DEAREST.stop
_GENERATIONS = ((THIS_WEEK, LAST_WEEK), (PEAK, LAST_PEAK), (DEAREST, LAST_DEAREST), (HOURS, LAST_HOURS))
COUNTED_NANO = 10**9
"""Hours of an organisation below it teach no shares: the first call of a night is all of it."""


def turn(orgs: Matrix, window: int) -> None:
    """Bring organisations to a window, but for those that are beyond it: learn from closed hours, and age."""
    at = np.maximum(orgs[:, WINDOW], window)
    hour, week = at // PER_HOUR, at // PER_WEEK
    orgs[at - orgs[:, WINDOW] > KEPT_WINDOWS] = 0
    new = orgs[:, LAYOUT] == 0
    orgs[new, LAYOUT], orgs[new, BORN] = VERSION, at[new]
    orgs[new, HOUR], orgs[new, WEEK] = hour[new], week[new]
    over = np.flatnonzero(orgs[:, HOUR] < hour)
    if over.size:
        old = orgs[over]
        _close_hour(old)
        weeks = week[over] - old[:, WEEK]
        for this, last in _GENERATIONS:
            old[weeks > 0, last] = old[weeks > 0, this]
            old[weeks > 0, this] = 0
            old[weeks > 1, last] = 0
        orgs[over] = old
    orgs[:, WINDOW], orgs[:, HOUR], orgs[:, WEEK] = at, hour, week


def _close_hour(orgs: Matrix) -> None:
    orgs[:, DEAREST] = np.maximum(orgs[:, DEAREST], orgs[:, OPEN])
    counts = orgs[:, OPEN].sum(axis=1) >= COUNTED_NANO
    closed = orgs[counts]
    closed[:, PEAK] = np.maximum(closed[:, PEAK], thousandths(closed[:, OPEN]))
    closed[:, THIS_WEEK] += closed[:, OPEN]
    closed[:, HOURS] += 1
    orgs[counts] = closed
    orgs[:, OPEN] = orgs[:, RAISED : RAISED + 1] = 0


def add(orgs: Matrix, places: Vector, keys: Vector, cost_nano: Vector) -> Mask:
    """Add calls to the rows at `places`; `keys` are hashes of the names of their keys. Return whom calls were of."""
    named = np.flatnonzero(keys)
    opened = np.ascontiguousarray(orgs[:, OPEN])
    np.add.at(opened, (places[named], keys[named] % GROUPS), cost_nano[named])
    orgs[:, OPEN] = opened
    called = np.zeros(opened.shape, dtype=bool)
    called[places[named], keys[named] % GROUPS] = True
    return called


def thousandths(costs: Matrix) -> Matrix:
    """Return the share of each group, 0 where there is no cost."""
    found: Matrix = costs * 1_000 // np.maximum(costs.sum(axis=1, keepdims=True), 1)
    return found


def usual(orgs: Matrix) -> Matrix:
    """Return the share of each group over the closed hours of two weeks, in thousandths."""
    return thousandths(orgs[:, THIS_WEEK] // 1_000 + orgs[:, LAST_WEEK] // 1_000)


def highest(orgs: Matrix) -> Matrix:
    """Return the highest share of each group in a closed hour of two weeks, in thousandths."""
    found: Matrix = np.maximum(orgs[:, PEAK], orgs[:, LAST_PEAK])
    return found


def dearest(orgs: Matrix) -> Matrix:
    """Return what the dearest closed hour of two weeks cost, by group."""
    found: Matrix = np.maximum(orgs[:, DEAREST], orgs[:, LAST_DEAREST])
    return found
