"""A worker is alive while its loops turn, and ready while all that it reads becomes durable in time.

Waiting for ClickHouse is no reason to end it: a new process would wait as well. Such a worker is alive and not ready.
Times are monotonic seconds, given by the caller.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

STUCK_S = 60.0
UNCOMMITTED_S = 120.0
UNSTORED_S = 60.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What the consumer says about itself."""

    polled_at: float
    """When the fetch loop turned last."""
    busy: bool = False
    """The fetch loop waits for the stage: for room in its buffer, or for the position to start from."""
    settled: bool = True
    """Partitions are assigned (perhaps none), and reading from the right positions has begun."""
    oldest_at: float | None = None
    """Arrival of the oldest delivery that is not committed, without those of paused partitions."""
    paused: Mapping[str, str] = field(default_factory=dict)
    """Partitions that are paused for good, with the reason."""


class Health:
    """What is known of one worker, and the two verdicts. Read from another thread than the one that writes."""

    def __init__(self, stage: str, facts: Callable[[], Facts | None]) -> None:
        self.stage = stage
        self._facts = facts
        self._waits: dict[str, tuple[float, str]] = {}
        self._unstored: dict[str, float] = {}
        self.started = False

    def wait(self, what: str, why: str, now: float) -> None:
        """Say that the stage waits for something outside, and why; repeated, it keeps its first time."""
        self._waits[what] = (self._waits.get(what, (now, ""))[0], why)

    def go_on(self, what: str) -> None:
        """Say that it waits for this no longer."""
        self._waits.pop(what, None)

    @property
    def waits(self) -> bool:
        return bool(self._waits)

    def storing(self, what: str, now: float) -> None:
        """Say that something is to be stored; repeated before it was, it keeps its first time."""
        self._unstored.setdefault(what, now)

    def stored(self, what: str) -> None:
        """Say that everything of this kind is stored."""
        self._unstored.pop(what, None)

    def not_alive(self, now: float) -> list[str]:
        """Return why this process should be ended and started again; empty while all is well."""
        facts = self._facts()
        if facts is None:
            return []
        found = []
        if not facts.busy and now > facts.polled_at + STUCK_S:
            found.append(f"the fetch loop has not turned for {now - facts.polled_at:.0f} s")
        if not self._waits and facts.oldest_at is not None and now > facts.oldest_at + UNCOMMITTED_S:
            found.append(f"a delivery is uncommitted for {now - facts.oldest_at:.0f} s")
        return found

    def not_ready(self, now: float) -> list[str]:
        """Return why this worker does not do its work now; empty while it does."""
        facts = self._facts()
        if facts is None or not facts.settled:
            starting = "no partitions are assigned yet, or their state is being loaded"
            return [starting, *self._waiting(now)]
        found = self.not_alive(now) + self._waiting(now)
        if self._waits and facts.oldest_at is not None and now > facts.oldest_at + UNCOMMITTED_S:
            found.append(f"a delivery is uncommitted for {now - facts.oldest_at:.0f} s")
        for what, since in sorted(self._unstored.items()):
            if now > since + UNSTORED_S:
                found.append(f"nothing was stored in {what} for {now - since:.0f} s, and something waits")
        return found + [f"{partition} is paused: {why}" for partition, why in sorted(facts.paused.items())]

    def not_started(self, now: float) -> list[str]:
        """Return why it has not been ready yet, since this process began; empty for ever once it was."""
        problems = [] if self.started else self.not_ready(now)
        self.started = not problems
        return problems

    def _waiting(self, now: float) -> list[str]:
        waits = sorted(self._waits.copy().items())
        return [f"waits for {what} since {now - since:.0f} s: {why}" for what, (since, why) in waits]
