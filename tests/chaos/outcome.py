"""What a run came to: per kind of fault and in all, and the one document that both faces of it are made from."""

from dataclasses import dataclass, field
from typing import Any

from benchmarks.measure import quantile
from tests.chaos.faults import KILL_9
from tests.chaos.oracle import NAMES, Wrong


@dataclass
class Score:
    """What one kind of fault did, over all its injections."""

    injected: int = 0
    not_run: str = ""
    recovery_s: list[float] = field(default_factory=list)
    wrong: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    physical_duplicates: int = 0
    memory_mb: int = 0
    not_recovered: int = 0
    failed: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """The whole run."""

    seed: int
    minutes: float
    brokers: int = 1
    alert_delays_s: list[float] = field(default_factory=list)
    """From the event that crossed a limit to its alert in the log."""
    scores: dict[str, Score] = field(default_factory=dict)
    wrong: Wrong = field(default_factory=lambda: {name: set() for name in NAMES})
    physical_duplicates: int = 0
    engine_mended: int = 0
    """Times that the engine had to be started again because it could not read a file of its own."""
    events: int = 0
    resends: int = 0
    poison: int = 0
    alerts: int = 0
    producer: dict[str, Any] = field(default_factory=dict)
    memory_max_mb: int = 0
    memory_by_process: dict[str, int] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether nothing at all was wrong."""
        unwell = any(score.not_recovered or score.failed for score in self.scores.values())
        return not unwell and not any(self.wrong.values()) and not self.producer["given_up"]

    def document(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        recoveries = [value for name in KILL_9 for value in self.scores[name].recovery_s]
        return {
            "seed": self.seed,
            "minutes": self.minutes,
            "brokers": self.brokers,
            "faults": sum(s.injected for s in self.scores.values()),
            **{name: len(keys) for name, keys in self.wrong.items()},
            "physical_duplicates": self.physical_duplicates,
            "engine_mended": self.engine_mended,
            "recovery_p95_s": round(quantile(recoveries, 0.95), 1) if recoveries else None,
            "memory_max_mb": self.memory_max_mb,
            "memory_by_process": self.memory_by_process,
            "events": self.events,
            "resends": self.resends,
            "poison": self.poison,
            "alerts": self.alerts,
            "alert_delay_s": {
                name: round(quantile(self.alert_delays_s, share), 2) if self.alert_delays_s else None
                for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))
            },
            "producer": self.producer,
            "by_fault": {name: _as_document(score) for name, score in self.scores.items() if not score.not_run},
            "not_run": [{"fault": name, "reason": s.not_run} for name, s in self.scores.items() if s.not_run],
        }


def _as_document(score: Score) -> dict[str, Any]:
    recovered = score.recovery_s
    return {
        "injected": score.injected,
        **score.wrong,
        "physical_duplicates": score.physical_duplicates,
        "recovery_p50_s": round(quantile(recovered, 0.5), 1) if recovered else None,
        "recovery_p95_s": round(quantile(recovered, 0.95), 1) if recovered else None,
        "memory_max_mb": score.memory_mb,
        "not_recovered": score.not_recovered,
        "failed": score.failed,
    }
