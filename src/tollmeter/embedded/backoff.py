"""How long to wait before a process is started again: doubling, forgotten once it has run for a while."""

from dataclasses import dataclass

FIRST_S = 0.5
LONGEST_S = 30.0
STEADY_S = 60.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Failures in a row; a value, so that the caller brings the clock."""

    failures: int = 0

    def after_exit(self, ran_s: float) -> tuple["Backoff", float]:
        """Return the next state and the pause in seconds after a process that ran for `ran_s`."""
        failures = 1 if ran_s >= STEADY_S else self.failures + 1
        return Backoff(failures), min(LONGEST_S, FIRST_S * 2 ** min(failures - 1, 16))
