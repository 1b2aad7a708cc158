"""Calls of a company as columns: drawn block by block from a seeded generator, event times ascending."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tollmeter.traffic.company import Company, Leak
from tollmeter.traffic.models import MODELS, UNKNOWN, UNKNOWN_SHARE
from tollmeter.traffic.table import WORKLOADS, arrivals, tokens

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

BLOCK = 25_000
LEAK_FROM = 2 / 3
"""Leaks happen in the last third of the calls: what came before is the past of the old keys."""
MAX_LEAK_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended. `usage` = the counters are kept; a failed or refused call has none."""

    status: str
    http_status: int | None
    error_type: str
    usage_source: str
    share: float

    @property
    def usage(self) -> bool:
        return self.usage_source != "NONE"


OUTCOMES: tuple[Outcome, ...] = (
    Outcome("OK", 200, "", "PROVIDER", 0.9705),
    Outcome("ERROR", 429, "rate_limit", "NONE", 0.011),
    Outcome("ERROR", 500, "server_error", "NONE", 0.006),
    Outcome("ERROR", None, "timeout", "NONE", 0.003),
    Outcome("CANCELLED", 200, "", "ESTIMATED", 0.0075),
    Outcome("BLOCKED", None, "cost_cap", "NONE", 0.002),
)


@dataclass(slots=True)
class Calls:
    """Columns of calls: indexes into the company's tables, plain numbers, and in `ids` 48 random bytes a call."""

    at_us: Ints
    caller: Ints
    ip: Ints
    model: Ints
    variant: Ints
    outcome: Ints
    latency_ms: Ints
    ttft_ms: Ints
    input: Ints
    cache_read: Ints
    cache_write: Ints
    output: Ints
    reasoning: Ints
    prompt_chars: Ints
    ids: Bytes

    def __len__(self) -> int:
        return len(self.at_us)


VARIANTS = ("plain", "stream", "batch", "tier", "tier_stream")


@dataclass(frozen=True)
class Traffic:
    """A seeded stream of `events` calls between `start_us` and `start_us + span_us`."""

    company: Company
    events: int
    start_us: int
    span_us: int
    leaks: tuple[Leak, ...] = ()
    block: int = BLOCK

    @cached_property
    def _weights(self) -> npt.NDArray[np.float64]:
        weights = np.array([c.weight for c in self.company.callers])
        return np.asarray(weights / weights.sum())

    @cached_property
    def leak_calls(self) -> int:
        """Calls of each leak: enough to cross every floor, never more than a fair part of the traffic."""
        wanted = max(40, min(200, self.events // 500))
        return min(wanted, int(self.events * MAX_LEAK_SHARE))

    def blocks(self) -> Iterator[Calls]:
        """Yield the calls in blocks; a block is a function of seed, start and its own number alone."""
        for number, first in enumerate(range(0, self.events, self.block)):
            yield self._draw(number, first, min(self.block, self.events - first))

    def _draw(self, number: int, first: int, count: int) -> Calls:
        rng = np.random.default_rng([self.company.seed, number])
        # Ids hang on the start too: another run of the same seed makes new events, not conflicting ones.
        id_rng = np.random.default_rng([self.company.seed, number, self.start_us])
        fractions = (first + arrivals(rng, count) * count) / self.events
        caller = rng.choice(len(self._weights), size=count, p=self._weights)
        self._wake_leaks(rng, first, fractions, caller)
        calls = _columns(self.company, rng, caller)
        calls.at_us = self.start_us + (fractions * self.span_us).astype(np.int64)
        calls.ids = id_rng.integers(0, 256, (count, 48), dtype=np.uint8)
        return calls

    def _wake_leaks(
        self, rng: np.random.Generator, first: int, fractions: npt.NDArray[np.float64], caller: Ints
    ) -> None:
        """Give calls of the last third to the leaking callers, in equal parts over the blocks they touch."""
        begin = int(self.events * LEAK_FROM)
        inside = np.flatnonzero(first + np.arange(len(caller)) >= begin)
        if not self.leaks or not len(inside):
            return
        done = max(first, begin) - begin
        room = self.events - begin
        taken = rng.permutation(inside)
        for leak in self.leaks:
            count = self.leak_calls * (done + len(inside)) // room - self.leak_calls * done // room
            caller[taken[:count]] = leak.caller
            taken = taken[count:]


def _columns(company: Company, rng: np.random.Generator, caller: Ints) -> Calls:
    count = len(caller)
    zeros = np.zeros(count, dtype=np.int64)
    workload = np.array([WORKLOADS.index(c.workload) for c in company.callers])[caller]
    model = _pick(rng, caller, [c.models for c in company.callers])
    chat = np.array([w.operation == "chat" and w.fixed is None for w in WORKLOADS])[workload]
    model = np.where(chat & (rng.random(count) < UNKNOWN_SHARE), rng.choice(UNKNOWN, count), model)
    calls = Calls(
        at_us=zeros,
        caller=caller,
        ip=rng.integers(0, 12, count),
        model=model,
        variant=zeros.copy(),
        outcome=rng.choice(len(OUTCOMES), size=count, p=_shares()),
        latency_ms=zeros,
        ttft_ms=zeros.copy(),
        input=zeros.copy(),
        cache_read=zeros.copy(),
        cache_write=zeros.copy(),
        output=zeros.copy(),
        reasoning=zeros.copy(),
        prompt_chars=zeros,
        ids=np.zeros((0, 0), dtype=np.uint8),
    )
    cached = np.zeros(count)
    for index in np.unique(workload):
        rows = np.flatnonzero(workload == index)
        input_, output, share = tokens(WORKLOADS[index], rng, len(rows))
        calls.input[rows], calls.output[rows] = input_.astype(np.int64), output.astype(np.int64)
        cached[rows] = share
        calls.variant[rows] = _variants(rng, WORKLOADS[index].batch_share, WORKLOADS[index].stream_share, len(rows))
        if WORKLOADS[index].fixed is not None:
            calls.variant[rows] = calls.outcome[rows] = 0
    _finish(calls, rng, cached)
    return calls


def _finish(calls: Calls, rng: np.random.Generator, cached: npt.NDArray[np.float64]) -> None:
    """Fit the counters to model and outcome: what a model does not report is 0, a failed call has none."""
    count = len(calls)
    of_model = [_flags(model.cache, model.operation, model.reasoning, bool(model.tiers)) for model in MODELS]
    reads, writes, answers, thinks, tiered = (np.array(column)[calls.model] for column in zip(*of_model, strict=True))
    calls.variant = np.where(~tiered & (calls.variant >= VARIANTS.index("tier")), calls.variant - 3, calls.variant)
    usage = np.array([outcome.usage for outcome in OUTCOMES])[calls.outcome]
    priced = usage & (np.array([not model.images for model in MODELS])[calls.model])
    calls.input = np.where(priced, calls.input, 0)
    calls.output = np.where(priced & answers, calls.output, 0)
    calls.cache_read = np.where(reads, (calls.input * cached).astype(np.int64), 0)
    fresh = calls.input - calls.cache_read
    calls.cache_write = np.where(writes & (cached > 0), (fresh * rng.random(count)).astype(np.int64), 0)
    calls.reasoning = np.where(thinks, (calls.output * rng.random(count) * 0.8).astype(np.int64), 0)
    calls.ttft_ms = 80 + calls.input // 20 + rng.integers(0, 400, count)
    calls.latency_ms = calls.ttft_ms + calls.output * 12 + rng.integers(0, 300, count)
    calls.prompt_chars = (calls.input * 4.1).astype(np.int64)


def _variants(rng: np.random.Generator, batch_share: float, stream_share: float, count: int) -> Ints:
    """0 plain, 1 stream, 2 batch, 3 a service tier, 4 the tier streamed."""
    streamed = (rng.random(count) < stream_share).astype(np.int64)
    tier = np.where(rng.random(count) < 0.06, 3, 0)
    return np.where(rng.random(count) < batch_share, 2, streamed + tier)


def _flags(cache: str, operation: str, reasoning: bool, tiered: bool) -> tuple[bool, bool, bool, bool, bool]:
    return cache != "", cache == "write", operation != "embeddings", reasoning, tiered


def _shares() -> npt.NDArray[np.float64]:
    shares = np.array([outcome.share for outcome in OUTCOMES])
    return np.asarray(shares / shares.sum())


def _pick(rng: np.random.Generator, caller: Ints, choices: Sequence[Sequence[int]]) -> Ints:
    """Pick one of each caller's choices, the first ones more often."""
    width = max(map(len, choices))
    table = np.array([[*row, *([row[0]] * (width - len(row)))] for row in choices], dtype=np.int64)
    return table[caller, rng.choice(width, size=len(caller), p=np.arange(width, 0, -1) / (width * (width + 1) / 2))]
