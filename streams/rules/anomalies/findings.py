"""What a rule found of a scope, and which findings are news."""

from dataclasses import dataclass

import numpy as np

from tollmeter.streams.rules.anomalies.calls import Calls, Sorted
from tollmeter.streams.rules.anomalies.identity import Verdict
from tollmeter.streams.rules.anomalies.layout import HOUR, RAISED, Mask, Matrix


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found of a scope in an hour. `figures` are JSON-ready, with units in their names."""

    kind: str
    level: int
    scope: int
    hour: int
    received_ms: int
    figures: dict[str, int]
    names: dict[str, int]
    """Scopes that belong to it, such as the model."""


def news(verdict: Verdict, profiles: Matrix, open_: Mask) -> Mask:
    """Tell where a verdict is graver than what was told in this hour."""
    found: Mask = (verdict.level > (profiles[:, RAISED] >> 2 * verdict.number & 3)) & open_
    return found


def told(verdict: Verdict, fresh: Mask, profiles: Matrix, calls: Calls, by: Sorted) -> list[Finding]:
    """Return the findings that are news, and mark them as told."""
    found = []
    if not fresh.any():
        return []
    received, unknown = by.greatest(calls.received_ms), by.greatest(calls.unknown)
    for at in np.flatnonzero(fresh).tolist():
        level, example = int(verdict.level[at]), -1 if verdict.example is None else int(verdict.example[at])
        before = int(profiles[at, RAISED]) >> 2 * verdict.number & 3
        profiles[at, RAISED] += (level - before) << 2 * verdict.number
        figures = {name: int(column[at]) for name, column in verdict.figures.items()}
        figures |= {"unknown_price": 1} if unknown[at] else {}
        names = {name: int(getattr(calls, name)[example]) for name in verdict.shows if example >= 0}
        where = int(by.scopes[at]), int(profiles[at, HOUR]), int(received[at])
        found.append(Finding(verdict.kind, level, *where, figures, names))
    return found
