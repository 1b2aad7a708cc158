"""What the company puts on the wire: events, the producers' own resends of some, and, on request, poison."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tollmeter.traffic.calls import BLOCK, Calls, Traffic
from tollmeter.traffic.company import Company, Leak
from tollmeter.traffic.encode import encode_calls, fragments
from tollmeter.traffic.fields import fields_of
from tollmeter.traffic.poison import poison

RESEND_WITHIN = 2_000
"""A resend follows its original by at most so many records."""


@dataclass
class Wire:
    """Blocks of records, each with the time it is due. After iteration the counters say what was sent."""

    company: Company
    events: int
    start_us: int
    span_us: int
    leak: str = "none"
    duplicates: float = 0.005
    poison_share: float = 0.0
    block: int = BLOCK
    sent_events: int = field(default=0, init=False)
    sent_resends: int = field(default=0, init=False)
    sent_poison: int = field(default=0, init=False)

    @property
    def traffic(self) -> Traffic:
        return Traffic(self.company, self.events, self.start_us, self.span_us, self.leaks, self.block)

    @property
    def leaks(self) -> tuple[Leak, ...]:
        """The leaks asked for; the over-budget user comes with any of them."""
        if self.leak == "none":
            return ()
        return tuple(
            leak
            for leak in self.company.leaks
            if leak.kind == "over_budget" or self.leak == "both" or leak.past == (self.leak == "old")
        )

    def blocks(self) -> Iterator[tuple[int, list[bytes]]]:
        """Yield (time of the last event in µs, records) block by block."""
        parts = fragments(self.company)
        for number, calls in enumerate(self.traffic.blocks()):
            yield int(calls.at_us[-1]), self._mixed(number, calls, encode_calls(parts, calls))

    def _mixed(self, number: int, calls: Calls, values: list[bytes]) -> list[bytes]:
        """Put resends behind their originals and poison anywhere."""
        count = len(values)
        rng = np.random.default_rng([self.company.seed, number, 1])
        again = np.flatnonzero(rng.random(count) < self.duplicates)
        spoiled = int(rng.binomial(count, self.poison_share)) if self.poison_share else 0
        self.sent_events += count
        self.sent_resends += len(again)
        self.sent_poison += spoiled
        if not len(again) and not spoiled:
            return values
        bad = poison(values[0], self._fields(calls), random.Random(f"{self.company.seed}-{number}"))
        values = values + [next(bad) for _ in range(spoiled)]
        which = np.concatenate([np.arange(count), again, np.arange(count, count + spoiled)])
        place = np.concatenate(
            [
                np.arange(count),
                again + rng.integers(1, RESEND_WITHIN, len(again)),
                rng.integers(0, count, spoiled),
            ]
        )
        return [values[i] for i in which[np.argsort(place, kind="stable")].tolist()]

    def _fields(self, calls: Calls) -> dict[str, Any]:
        return next(fields_of(self.company, calls))
