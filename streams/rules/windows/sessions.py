"""Sessions and runs end: with their period, or where there are too many, the least used ones first.

What has used up a limit keeps its place until the period is over, so nothing that is forgotten may call again. What is
forgotten within its period is emptied first, and saved so: a checkpoint holds what was known, a replay decides alike.
"""

from collections.abc import Iterator

import numpy as np

from tollmeter.schemas.policy import ASKED_COLUMNS
from tollmeter.streams.rules.limits.budgets import used
from tollmeter.streams.rules.limits.policies import Budget
from tollmeter.streams.rules.limits.used import totals_of
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import LEVELS, Vector, bucket_end_s
from tollmeter.streams.rules.windows.windows import Cells

KEPT_PCT = 90
"""To so much of what there is room for their number falls at once: room is made seldom."""
_PER_MILLE = 1_000


def is_over(level: str, bucket: int, sealed_s: int) -> bool:
    """Tell whether nothing of a session can be counted in a bucket any more."""
    return bucket_end_s(level, bucket) <= sealed_s


def settle_sessions(state: State, now_s: int, sealed_s: int) -> None:
    """Make room where there is none, and forget what is over, at a barrier; `sealed_s`: before it all is final."""
    crowded = _make_room(state, now_s)
    if crowded or sealed_s // 60 != state.ended_minute:
        state.ended_minute = sealed_s // 60
        _end(state, sealed_s)


def _make_room(state: State, now_s: int) -> bool:
    """Empty the least used sessions of organisations that have too many; those that spent a limit stay."""
    crowded = False
    for kind in ASKED_COLUMNS:
        for org_id in sorted(state.budgets.asked[kind]):
            members = state.budgets.members(org_id, kind)
            if len(members) <= state.rules.sessions_per_org:
                continue
            crowded = True
            names = sorted(members)
            numbers = np.array([members[name] for name in names], dtype=np.int64)
            numbers = numbers[_alive(state, numbers)]
            if numbers.size > state.rules.sessions_per_org:
                _empty(state, numbers, now_s)
    return crowded


def _empty(state: State, numbers: Vector, now_s: int) -> None:
    share = _used_share(state, numbers, now_s)
    order = np.argsort(share, kind="stable")
    surplus = numbers.size - state.rules.sessions_per_org * KEPT_PCT // 100
    chosen = order[:surplus]
    gone = numbers[chosen[share[chosen] < _PER_MILLE]]
    for _, _, cells in _extra_cells(state):
        cells.empty(gone[cells.has(gone)])
    state.to_publish.update(gone.tolist())


def _used_share(state: State, numbers: Vector, now_s: int) -> Vector:
    """Return the largest share of any limit that each has used in its present period, in thousandths."""
    share = np.zeros(numbers.size, dtype=np.int64)
    limits: dict[tuple[tuple[str, str], int], tuple[Budget, list[int]]] = {}
    for place, number in enumerate(numbers.tolist()):
        for budget in state.budgets.of(number):
            limits.setdefault((budget.kind, budget.amount), (budget, []))[1].append(place)
    for budget, places in limits.values():
        at = np.array(places, dtype=np.int64)
        spent = used(totals_of(state, budget, numbers[at], now_s), budget.unit)
        part = np.minimum((spent / budget.amount * _PER_MILLE).astype(np.int64), _PER_MILLE - 1)
        spent_all = np.where(spent >= budget.amount, _PER_MILLE, part)
        share[at] = np.maximum(share[at], spent_all)
    return share


def _alive(state: State, numbers: Vector) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    alive = np.zeros(numbers.size, dtype=bool)
    for _, _, cells in _extra_cells(state):
        alive |= cells.filled(numbers)
    return alive


def _end(state: State, sealed_s: int) -> None:
    """Forget what is over or empty and saved, and free the numbers of sessions of which nothing is left."""
    state.budgets.look_at_new_scopes()
    held = np.zeros(len(state.scopes), dtype=bool)
    for level, bucket, cells in _extra_cells(state):
        ours = cells.scopes[state.scopes.are_asked(cells.scopes)]
        if ours.size:
            over = is_over(level, bucket, sealed_s)
            cells.drop(ours[cells.saved(ours) & (over | ~cells.filled(ours))])
            held[cells.scopes] = True
    every = state.scopes.asked_numbers()
    for number in every[~held[every]].tolist():
        org_id, kind, name = state.scopes.names[number]
        if not state.budgets.has_own(org_id, kind, name):
            state.budgets.leave(number)
            state.to_publish.add(number)
            state.scopes.release(number)


def _extra_cells(state: State) -> Iterator[tuple[str, int, Cells]]:
    for level, buckets in sorted(state.levels.items()):
        if level not in LEVELS:
            yield from ((level, bucket, cells) for bucket, cells in sorted(buckets.items()))
