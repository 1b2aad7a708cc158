"""What a key meets for the first time: models and networks. Dear or foreign ones are watched for one to two weeks.

A key without a past meets everything for the first time, so nothing is told of it; what it has met it knows later.
"""

from typing import NamedTuple

import numpy as np

from tollmeter.streams.rules.anomalies.calls import Calls, Sorted
from tollmeter.streams.rules.anomalies.layout import (
    HOUR,
    LAST_NETWORKS,
    LAST_YOUNG_MODELS,
    LAST_YOUNG_NETWORKS,
    MODELS,
    NETWORK_MET,
    NETWORK_WINDOWS,
    NETWORKS,
    PER_HOUR,
    W_COST,
    W_INPUT,
    W_OUTPUT,
    WINDOW,
    YOUNG_MODEL_COST,
    YOUNG_MODELS,
    YOUNG_NETWORK_COST,
    YOUNG_NETWORKS,
    Mask,
    Matrix,
    Vector,
    distinct,
    has_bits,
    set_bits,
    two_weeks,
)
from tollmeter.streams.rules.anomalies.limits import Limits

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


class Met(NamedTuple):
    """By profile: who met something now, the first call with something young (-1 for none), and a ratio in percent."""

    now: Mask
    example: Vector
    ratio_pct: Vector


def meet_models(profiles: Matrix, past: Mask, calls: Calls, by: Sorted, models: Vector, factor: int) -> Met:
    """Learn the models of calls; those at `factor` times a key's usual price per token are young. Hashes by call."""
    places, hashes, cost = by.places, models[by.order], calls.cost_nano[by.order]
    tokens = calls.input[by.order] + calls.output[by.order]
    priced = (cost > 0) & (tokens > 0)
    fresh = priced & ~has_bits(profiles[:, MODELS], places, hashes)
    price = _ratio(_sum(places, cost, fresh, len(profiles)), _sum(places, tokens, fresh, len(profiles)))
    used = two_weeks(profiles, W_INPUT) + two_weeks(profiles, W_OUTPUT)
    usual = _ratio(two_weeks(profiles, W_COST), used)
    dear = past & (usual > 0) & (price >= factor * usual)
    set_bits(profiles, MODELS, places[priced], hashes[priced])
    news = fresh & dear[places]
    set_bits(profiles, YOUNG_MODELS, places[news], hashes[news])
    young = _young(profiles, (YOUNG_MODELS, LAST_YOUNG_MODELS), places, hashes)
    profiles[:, YOUNG_MODEL_COST] += _sum(places, cost, young, len(profiles))
    ratio = np.where(dear, 100 * _ratio(price, usual), 0).astype(np.int64)
    return Met(_any(places, news, len(profiles)), _first(places, young, by, len(profiles)), ratio)


def meet_networks(profiles: Matrix, past: Mask, calls: Calls, by: Sorted, networks: Vector, limits: Limits) -> Met:
    """Learn the networks of calls; a new one is young for a key with few of them that is settled.

    Settled: none was new for a while and some use, so its hosts do not come by the day; those of one hour are met
    together.
    """
    places, hashes = by.places, networks[by.order]
    known = profiles[:, NETWORKS] | profiles[:, LAST_NETWORKS]
    count, met = distinct(known), profiles[:, NETWORK_MET]
    settled = profiles[:, WINDOW] - met >= limits.settled_windows
    settled &= profiles[:, NETWORK_WINDOWS] >= limits.settled_used
    settled |= (met // PER_HOUR == profiles[:, HOUR]) & (profiles[:, YOUNG_NETWORKS] != 0).any(axis=1)
    news = ~has_bits(known, places, hashes)
    now = _any(places, news, len(profiles))
    profiles[:, NETWORK_MET] = np.where(now, profiles[:, WINDOW], met)
    profiles[now, NETWORK_WINDOWS] = 0
    fresh = news & (past & settled & (count <= limits.few_networks) & (count > 0))[places]
    set_bits(profiles, NETWORKS, places, hashes)
    set_bits(profiles, YOUNG_NETWORKS, places[fresh], hashes[fresh])
    young = _young(profiles, (YOUNG_NETWORKS, LAST_YOUNG_NETWORKS), places, hashes)
    profiles[:, YOUNG_NETWORK_COST] += _sum(places, calls.cost_nano[by.order], young, len(profiles))
    return Met(_any(places, fresh, len(profiles)), _first(places, young, by, len(profiles)), count)


def _young(profiles: Matrix, blocks: tuple[slice, slice], places: Vector, hashes: Vector) -> Mask:
    this, last = blocks
    words = profiles[:, this] | profiles[:, last]
    if not words.any():
        return np.zeros(places.size, dtype=bool)
    found: Mask = (hashes != 0) & has_bits(words, places, hashes)
    return found


def _sum(places: Vector, column: Vector, chosen: Mask, size: int) -> Vector:
    found = np.zeros(size, dtype=np.int64)
    at = np.flatnonzero(chosen)
    np.add.at(found, places[at], column[at])
    return found


def _any(places: Vector, chosen: Mask, size: int) -> Mask:
    found = np.zeros(size, dtype=bool)
    found[places[chosen]] = True
    return found


def _first(places: Vector, chosen: Mask, by: Sorted, size: int) -> Vector:
    """Return by profile the position of its first chosen call, -1 for none."""
    found = np.full(size, -1, dtype=np.int64)
    at = np.flatnonzero(chosen)[::-1]
    found[places[at]] = by.order[at]
    return found


def _ratio(above: Vector | Floats, below: Vector | Floats) -> Floats:
    """Return a quotient, 0 where there is nothing to divide by."""
    found: Floats = np.divide(above, below, out=np.zeros(above.size), where=below > 0)
    return found
