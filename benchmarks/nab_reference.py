"""Detectors that NAB is known with, row by row: the reference that production's own are measured beside.

Each is called with a value and its time in seconds since 1970, in order, and returns a score from 0 on; it learns from
a value after it has scored it. Scores of different detectors compare only once each is divided by a unit of its own.
"""

import math
from collections.abc import Callable

DAY, WEEK = 86_400.0, 7 * 86_400.0
TINY = 1e-12
Detector = Callable[[float, float], float]


class EwmaZ:
    """Distance from an exponentially weighted mean, in exponentially weighted deviations.

    The first ``1 / alpha`` points use a plain running mean so that the start is not
    dominated by the first value.  Silent for 20 points.  State: two floats and a count.
    """

    __slots__ = ("alpha", "mean", "n", "var")

    def __init__(self, alpha: float = 0.01) -> None:
        self.alpha = alpha
        self.mean = 0.0
        self.var = 0.0
        self.n = 0

    def __call__(self, x: float, at: float) -> float:
        n = self.n
        self.n = n + 1
        if n == 0:
            self.mean = x
            return 0.0
        diff = x - self.mean
        score = 0.0
        if n > 20:
            score = abs(diff) / (math.sqrt(self.var) + 1e-9 * abs(self.mean) + TINY)
        alpha = self.alpha if n * self.alpha > 1 else 1.0 / (n + 1)
        step = alpha * diff
        self.mean += step
        self.var = (1 - alpha) * (self.var + diff * step)
        return score


class NewExtreme:
    """How far a value lies outside everything seen so far, as a share of the seen range.

    With ``decay`` > 0 both ends of the range drift towards a slow mean, so that an old
    extreme is forgotten.  Silent for 50 points.  State: two floats (three with decay).
    """

    __slots__ = ("decay", "high", "low", "mean", "n")

    def __init__(self, decay: float = 0.0) -> None:
        self.decay = decay
        self.low = math.inf
        self.high = -math.inf
        self.mean = 0.0
        self.n = 0

    def __call__(self, x: float, at: float) -> float:
        self.n += 1
        if self.n == 1:
            self.low = self.high = self.mean = x
            return 0.0
        span = self.high - self.low
        excess = 0.0
        if x > self.high:
            excess, self.high = x - self.high, x
        elif x < self.low:
            excess, self.low = self.low - x, x
        if self.decay:
            self.mean += 0.01 * (x - self.mean)
            self.high += self.decay * (self.mean - self.high)
            self.low += self.decay * (self.mean - self.low)
        return excess / span if span > 0 and self.n > 50 else 0.0


class HoltWinters:
    """Level plus a ring of seasonal offsets (no trend); score = residual / its deviation.

    The *update* is winsorised: from point 200 on, a residual beyond ``clip`` deviations
    teaches no more than ``clip`` deviations, so that a leak cannot become the norm in one
    bucket.  The deviation itself learns from the full residual; without that floor the
    score explodes on flat series.  Silent for 30 points.  State: ``2 * slots + 3`` numbers.
    """

    __slots__ = ("alpha", "clip", "gamma", "hits", "level", "n", "period", "rate", "ring", "slots", "var")

    def __init__(
        self,
        slots: int = 48,
        period: float = DAY,
        *,
        alpha: float = 0.02,
        gamma: float = 0.1,
        rate: float = 0.002,
        clip: float = 5.0,
    ) -> None:
        self.alpha = alpha
        self.gamma = gamma
        self.rate = rate
        self.clip = clip
        self.slots = slots
        self.period = period
        self.level = 0.0
        self.var = 0.0
        self.ring = [0.0] * slots
        self.hits = [0] * slots
        self.n = 0

    def residual(self, x: float, at: float) -> tuple[float, float]:
        """Return (signed residual, deviation before this point), then learn from x."""
        n = self.n
        self.n = n + 1
        if n == 0:
            self.level = x
            return 0.0, 0.0
        slot = int(at % self.period / self.period * self.slots)
        residual = x - self.level - self.ring[slot]
        deviation = math.sqrt(self.var)
        learned = residual
        if n + 1 > 200:
            limit = self.clip * deviation
            learned = max(-limit, min(limit, residual))
        self.level += (self.alpha if n * self.alpha > 1 else 1.0 / (n + 1)) * learned
        alpha = self.alpha if n * self.alpha > 1 else 1.0 / (n + 1)
        hits = self.hits[slot]
        self.hits[slot] = hits + 1
        gamma = self.gamma if hits * self.gamma > 1 else 1.0 / (hits + 1)
        self.ring[slot] += gamma * (1 - alpha) * learned
        rate = self.rate if n * self.rate > 1 else 1.0 / (n + 1)
        self.var += rate * (residual * residual - self.var)
        return residual, deviation

    def __call__(self, x: float, at: float) -> float:
        level = self.level
        residual, deviation = self.residual(x, at)
        if self.n <= 31:
            return 0.0
        return abs(residual) / (deviation + 1e-9 * abs(level) + TINY)


class HourOfWeekResidual:
    """Feed a child detector with the residual of a 168-slot weekly `HoltWinters`.

    ``HourOfWeekResidual(NewExtreme())`` finds values that are normal in size but not at
    this hour of this weekday.  State: the ring (168 floats) plus the child.
    """

    __slots__ = ("child", "model")

    def __init__(self, child: Detector, slots: int = 168, period: float = WEEK) -> None:
        self.model = HoltWinters(slots, period)
        self.child = child

    def __call__(self, x: float, at: float) -> float:
        return self.child(self.model.residual(x, at)[0], at)


class Spot:
    """Peaks over threshold on a child's score; returns -log10 of the tail probability.

    After ``init`` scores the ``q`` quantile becomes the fixed threshold.  Excesses over it
    are fitted with a generalised Pareto law by the method of moments (no optimiser), and
    each later excess updates the two moments, capped at ten times their mean.
    State after the start: five numbers, plus the child.
    """

    __slots__ = ("child", "init", "n", "peaks", "q", "start", "sum1", "sum2", "threshold")

    def __init__(self, child: Detector, init: int = 300, q: float = 0.98) -> None:
        self.child = child
        self.init = init
        self.q = q
        self.start: list[float] = []
        self.threshold = math.inf
        self.n = 0
        self.peaks = 0
        self.sum1 = 0.0
        self.sum2 = 0.0

    def __call__(self, x: float, at: float) -> float:
        score = self.child(x, at)
        self.n += 1
        if self.n <= self.init:
            self.start.append(score)
            if self.n == self.init:
                self._calibrate()
            return 0.0
        if score <= self.threshold:
            return 0.0
        excess = score - self.threshold
        rarity = -math.log10(max(self._tail(excess), 1e-300))
        mean = max(self.sum1 / max(self.peaks, 1), 1e-9)
        self._learn(min(excess, 10 * mean + 1e-9) if self.peaks > 10 else excess)
        return rarity

    def _calibrate(self) -> None:
        ordered = sorted(self.start)
        self.start = []
        self.threshold = ordered[int(self.q * len(ordered))]
        for score in ordered:
            if score > self.threshold:
                self._learn(score - self.threshold)

    def _learn(self, excess: float) -> None:
        self.peaks += 1
        self.sum1 += excess
        self.sum2 += excess * excess

    def _tail(self, excess: float) -> float:
        """Probability of an excess at least this large, by the fitted Pareto law."""
        peaks = max(self.peaks, 1)
        mean = self.sum1 / peaks
        var = max(self.sum2 / peaks - mean * mean, TINY)
        mean = max(mean, 1e-9)
        shape = max(-0.4, min(0.45, 0.5 * (1 - mean * mean / var)))
        scale = max(0.5 * mean * (mean * mean / var + 1) if var > 1e-11 else mean, 1e-9)
        if abs(shape) < 1e-4:
            survival = math.exp(-excess / scale)
        else:
            u = 1 + shape * excess / scale
            survival = u ** (-1 / shape) if u > 0 else 1e-300
        return survival * self.peaks / self.n


class Cusum:
    """Two-sided cumulative sum of the z score: finds ramps and slow leaks, not spikes.

    Each point adds its z (clipped to +-6) minus ``slack`` to a sum that cannot fall below
    zero nor rise above ``cap`` (the cap bounds how long it stays high afterwards).
    State: four floats and a count.
    """

    __slots__ = ("alpha", "cap", "down", "mean", "n", "slack", "up", "var")

    def __init__(self, alpha: float = 0.002, slack: float = 1.5, cap: float = 500.0) -> None:
        self.alpha = alpha
        self.slack = slack
        self.cap = cap
        self.mean = 0.0
        self.var = 0.0
        self.up = 0.0
        self.down = 0.0
        self.n = 0

    def __call__(self, x: float, at: float) -> float:
        n = self.n
        self.n = n + 1
        if n == 0:
            self.mean = x
            return 0.0
        diff = x - self.mean
        z = 0.0
        if n > 20:
            z = diff / (math.sqrt(self.var) + 1e-9 * abs(self.mean) + TINY)
            z = max(-6.0, min(6.0, z))
        self.up = max(0.0, min(self.cap, self.up + z - self.slack))
        self.down = max(0.0, min(self.cap, self.down - z - self.slack))
        alpha = self.alpha if n * self.alpha > 1 else 1.0 / (n + 1)
        step = alpha * diff
        self.mean += step
        self.var = (1 - alpha) * (self.var + diff * step)
        return max(self.up, self.down)


PARTS: dict[str, tuple[Callable[[], Detector], float]] = {
    "new_extreme": (NewExtreme, 0.00488),
    "weekly_residual": (lambda: HourOfWeekResidual(NewExtreme()), 0.0301),
    "spot": (lambda: Spot(EwmaZ(0.01)), 3.12),
    "ewma": (lambda: EwmaZ(0.01), 10.0),
    "cusum": (lambda: Cusum(0.005, 0.5, 20.0), 10.0),
}
"""Detectors and their units; those of the first three, which make up ENS, were tuned on NAB."""
ENS = ("new_extreme", "weekly_residual", "spot")
