"""The committed quantiles of real traffic, drawn from by inverting the distribution function."""

import csv
import math
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Quantiles:
    """Rows of `quantiles.csv` by (source, workload, field): values at fixed levels between 0 and 1."""

    levels: Floats
    values: dict[tuple[str, str, str], Floats]

    def draw(self, source: str, workload: str, field: str, uniform: Floats) -> Floats:
        """Return one value per uniform number in [0, 1), piecewise linear between the quantiles."""
        return np.interp(uniform, self.levels, self.values[source, workload, field])

    def draw_one(self, source: str, workload: str, field: str, uniform: float) -> float:
        return float(np.interp(uniform, self.levels, self.values[source, workload, field]))

    def one(self, source: str, workload: str, field: str) -> float:
        """Return a row that holds a single number; 0 when the source does not have it."""
        return float(self.values.get((source, workload, field), np.zeros(1))[0])


def _read() -> Quantiles:
    text = (resources.files(__package__) / "quantiles.csv").read_text(encoding="utf-8")
    rows = list(csv.reader(line for line in text.splitlines() if not line.startswith("#")))
    levels = np.array([float(name.removeprefix("p")) / 100 for name in rows[0][4:]])
    return Quantiles(levels, {(r[0], r[1], r[2]): np.array([float(v) for v in r[4:]]) for r in rows[1:]})


TABLE = _read()


class Workload(NamedTuple):
    """What a caller does. `source` and `trace` name its rows in the table; `shrink` scales its token counts.

    `fixed` (input low, high, output low, high) replaces the table where a leak is acted out.
    """

    name: str
    service: str
    agent: str
    feature: str
    share: float
    source: str
    trace: str
    operation: str = "chat"
    shrink: float = 1.0
    batch_share: float = 0.0
    stream_share: float = 0.5
    fixed: tuple[int, int, int, int] | None = None


WORKLOADS: tuple[Workload, ...] = (
    Workload("assistant", "assistant-web", "concierge", "chat", 30, "azure2023", "conv"),
    Workload("completion", "ide-plugin", "pair", "complete", 24, "azure2023", "code", stream_share=0.9),
    Workload("agentic", "agent-runner", "planner", "plan", 5, "mooncake_fast25", "conversation", shrink=0.25),
    Workload("answers", "help-center", "librarian", "search", 14, "ragpulse", "rag_qa"),
    Workload("support", "support-bot", "greeter", "reply", 14, "vtc_arena", "chat"),
    Workload("digest", "nightly-jobs", "", "summarise", 6, "servegen", "language", batch_share=0.6, stream_share=0.0),
    Workload("reasoning", "research-lab", "solver", "analyse", 2, "servegen", "reason", shrink=0.5),
    Workload("index", "indexer", "", "embed", 4.5, "azure2023", "conv", operation="embeddings", stream_share=0.0),
    Workload("art", "studio", "painter", "illustrate", 0, "vtc_arena", "chat", operation="image", stream_share=0.0),
    Workload("spend_burst", "", "runaway", "retry-storm", 0, "", "", fixed=(9_000, 12_000, 2_500, 4_000)),
    Workload("ingest_loop", "", "crawler", "re-index", 0, "", "", fixed=(60_000, 110_000, 0, 9)),
    Workload("over_budget", "", "power-user", "deep-dive", 0, "", "", fixed=(35_000, 45_000, 4_000, 6_000)),
)


def tokens(workload: Workload, rng: np.random.Generator, count: int) -> tuple[Floats, Floats, Floats]:
    """Draw input, output and cached share of `count` calls; input and output keep their rank correlation."""
    if workload.fixed is not None:
        low_in, high_in, low_out, high_out = workload.fixed
        return (
            rng.integers(low_in, high_in, count).astype(float),
            rng.integers(low_out, high_out, count).astype(float),
            np.zeros(count),
        )
    left, right = rng.random(count), rng.random(count)
    rho = TABLE.one(workload.source, workload.trace, "rank_correlation")
    # Equal ranks with probability |rho|, independent else: a mixture whose Spearman correlation is rho.
    together = rng.random(count) < abs(rho)
    right = np.where(together, left if rho > 0 else 1 - left, right)
    input_ = TABLE.draw(workload.source, workload.trace, "input_tokens", left) * workload.shrink
    output = TABLE.draw(workload.source, workload.trace, "output_tokens", right) * math.sqrt(workload.shrink)
    cached = np.where(
        rng.random(count) < 0.5, TABLE.draw("mooncake_fast25", "conversation", "cached_share", rng.random(count)), 0.0
    )
    return np.maximum(input_, 1), output, cached


def arrivals(rng: np.random.Generator, count: int) -> Floats:
    """Return `count` ascending instants in [0, 1) whose gaps are as uneven as those of the chat trace."""
    gaps = TABLE.draw("azure2023", "conv", "gap", rng.random(count + 1))
    return np.asarray((np.cumsum(gaps)[:count] - gaps[0] / 2) / gaps.sum())
