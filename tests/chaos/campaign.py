"""The run: fault after fault in a seeded order under live traffic, each followed by recovery, rest and a full check."""

import asyncio
import random
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.measure import quantile
from tests.chaos.background import Background
from tests.chaos.faults import FAULTS, KILL_9, Fault, Scene
from tests.chaos.line import Line, LineError
from tests.chaos.manifest import ORGS, Manifest, policies
from tests.chaos.oracle import NAMES, Alerts, Wrong, judge
from tests.chaos.producers import Traffic
from tests.chaos.progress import Progress
from tollmeter.policies import set_policy
from tollmeter.schemas import topics
from tollmeter.sinks.clickhouse import Unavailable

PATIENCE_S = 240.0
"""A difference that lasts this long at rest is a difference."""
RECOVERY_S = 180.0
CALM_S = 2.5
LEAST_S = 5.0
"""A fault shows in what is behind only after a while."""
AWAY_LONG_S, AWAY_SHORT_S, LONG_RUN_MIN = 60.0, 15.0, 8.0
NANO_A_CALL = 2_000_000
"""What a call costs on average, roughly: budgets are laid along the run by it."""


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
    scores: dict[str, Score] = field(default_factory=dict)
    wrong: Wrong = field(default_factory=lambda: {name: set() for name in NAMES})
    physical_duplicates: int = 0
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
            "seed": self.seed, "minutes": self.minutes, "faults": sum(s.injected for s in self.scores.values()),
            **{name: len(keys) for name, keys in self.wrong.items()},
            "physical_duplicates": self.physical_duplicates,
            "recovery_p95_s": round(quantile(recoveries, 0.95), 1) if recoveries else None,
            "memory_max_mb": self.memory_max_mb, "memory_by_process": self.memory_by_process,
            "events": self.events, "resends": self.resends, "poison": self.poison, "alerts": self.alerts,
            "producer": self.producer,
            "by_fault": {name: _as_document(score) for name, score in self.scores.items() if not score.not_run},
            "not_run": [{"fault": name, "reason": s.not_run} for name, s in self.scores.items() if s.not_run],
        }  # fmt: skip


def _as_document(score: Score) -> dict[str, Any]:
    recovered = score.recovery_s
    return {
        "injected": score.injected, **score.wrong, "physical_duplicates": score.physical_duplicates,
        "recovery_p50_s": round(quantile(recovered, 0.5), 1) if recovered else None,
        "recovery_p95_s": round(quantile(recovered, 0.95), 1) if recovered else None,
        "memory_max_mb": score.memory_mb, "not_recovered": score.not_recovered, "failed": score.failed,
    }  # fmt: skip


class Campaign:
    """One run on one line."""

    def __init__(self, folder: Path, minutes: float, seed: int, rate: int, say: Callable[[str], None]) -> None:
        self._folder, self._minutes, self._rate, self._say = folder, minutes, rate, say
        self._rng = random.Random(f"chaos-{seed}")
        self._manifest = Manifest()
        self._outcome = Outcome(seed, minutes)
        self._alerts = Alerts()
        self._letters: set[tuple[int, int]] = set()
        self._read: dict[TopicPartition, int] = {}
        self._seed = seed

    def run(self, chosen: tuple[str, ...] = ()) -> Outcome:
        """Attack until the time is up, then check once more. `chosen`: only faults with one of these in their names."""
        with ExitStack() as undo:
            self._background = Background()
            undo.callback(self._background.close)
            self._line = undo.enter_context(Line(self._folder, self._background, self._say))
            self._begin(undo)
            away_s = AWAY_LONG_S if self._minutes >= LONG_RUN_MIN else AWAY_SHORT_S
            scene = Scene(self._line, self._background, self._rng, away_s, self._progress.look)
            self._progress.calibrate(CALM_S)
            deadline = time.monotonic() + self._minutes * 60
            for fault in self._order(chosen):
                if time.monotonic() > deadline:
                    break
                self._attack(fault, scene)
            self._finish()
        return self._outcome

    def _begin(self, undo: ExitStack) -> None:
        spend_nano = int(self._rate * self._minutes * 60 / len(ORGS) * NANO_A_CALL)
        self._manifest.policies = policies(self._rng, spend_nano)
        for policy in self._manifest.policies:
            set_policy(self._line.settings, policy)
        self._traffic = Traffic(self._line.settings, self._manifest, self._rate, self._seed, self._folder / "spool")
        self._progress = Progress(self._line, self._manifest, self._background)
        undo.callback(self._progress.close)
        self._sending = self._background.start(self._traffic.run())
        undo.callback(self._sending.cancel)

    def _order(self, chosen: tuple[str, ...]) -> Iterator[Fault]:
        """Yield the faults that can be injected here, each once in random order, again and again."""
        possible = []
        for fault in FAULTS:
            score = self._outcome.scores.setdefault(fault.name, Score())
            score.not_run = fault.missing(self._line) or ""
            wanted = not chosen or any(part in fault.name for part in chosen)
            if not score.not_run and wanted:
                possible.append(fault)
            elif not wanted:
                score.not_run = "not chosen"
        while possible:
            yield from self._rng.sample(possible, len(possible))

    def _attack(self, fault: Fault, scene: Scene) -> None:
        score = self._outcome.scores[fault.name]
        self._progress.calibrate(CALM_S)
        self._progress.peak_mb = self._progress.stored_twice = 0
        try:
            healed_at = fault.inject(scene)
        except (RuntimeError, OSError) as error:
            score.failed.append(str(error))
            self._say(f"{fault.name}: could not be injected: {error}")
            return
        score.injected += 1
        recovered_s = self._recover(healed_at, scene)
        if recovered_s is None:
            score.not_recovered += 1
        else:
            score.recovery_s.append(recovered_s)
        new = self._check()
        for name, keys in new.items():
            score.wrong[name] += len(keys)
        score.physical_duplicates += self._progress.stored_twice
        score.memory_mb = max(score.memory_mb, self._progress.peak_mb)
        self._outcome.memory_max_mb = max(self._outcome.memory_max_mb, self._progress.peak_mb)
        self._report(fault, recovered_s, new)

    def _recover(self, healed_at: float, scene: Scene) -> float | None:
        """Wait until the line has caught up; return the seconds that took, None when it did not."""
        while time.monotonic() < healed_at + LEAST_S:
            scene.wait(0.3)
        began_at: float | None = None
        while time.monotonic() < healed_at + RECOVERY_S:
            self._progress.look()
            if self._progress.caught_up():
                began_at = began_at or time.monotonic()
                if time.monotonic() > began_at + 1.0:
                    return began_at - healed_at
            else:
                began_at = None
            time.sleep(0.2)
        limits = f"{self._progress.ledger_fresh_s:.0f} s and {self._progress.watch_fresh_s:.0f} s"
        behind = f"ledger {self._progress.ledger_behind_s():.0f} s, watch {self._progress.watch_behind_s():.0f} s"
        self._say(
            f"not caught up within {RECOVERY_S:g} s: {behind} behind of {limits}, all back: {self._line.settled()}"
        )
        return None

    def _check(self) -> Wrong:
        """Stop the traffic, wait for rest, and return what is newly wrong when patience has run out."""
        self._traffic.on = False
        if self._sending.done():
            self._sending.result()
        try:
            if not self._background.call(self._traffic.settle(PATIENCE_S), PATIENCE_S + 30):
                raise LineError("producers could not get rid of their events")
            until = time.monotonic() + PATIENCE_S
            while True:
                self._progress.look()
                new = self._newly_wrong()
                if not any(new.values()) or time.monotonic() > until:
                    break
                time.sleep(0.5)
        finally:
            self._traffic.on = True
        for name, keys in new.items():
            self._outcome.wrong[name] |= keys
        return new

    def _newly_wrong(self) -> Wrong:
        try:
            self._background.call(self._read_topics())
            self._alerts.stored = {row["id"] for row in self._line.ledger.query("SELECT DISTINCT id FROM alerts")}
            wrong = judge(self._line.ledger, self._manifest, self._alerts, self._letters)
        except Unavailable as error:
            return {"lost": {str(error)}}
        return {name: keys - self._outcome.wrong[name] for name, keys in wrong.items()}

    async def _read_topics(self) -> None:
        """Take in new alerts and dead letters."""
        settings = self._line.settings
        consumer = AIOKafkaConsumer(**settings.kafka_options(), enable_auto_commit=False)
        await consumer.start()
        try:
            tps = [TopicPartition(settings.topic(name), n) for name in (topics.ALERTS, topics.DLQ) for n in range(4)]
            consumer.assign(tps)
            ends = await consumer.end_offsets(tps)
            for tp in tps:
                consumer.seek(tp, self._read.get(tp, 0))
            while open_ := [tp for tp in tps if self._read.get(tp, 0) < ends[tp]]:
                for tp, records in (await consumer.getmany(*open_, timeout_ms=500)).items():
                    self._take(tp, records)
                await asyncio.sleep(0)
        finally:
            await consumer.stop()

    def _take(self, tp: TopicPartition, records: list[Any]) -> None:
        self._read[tp] = records[-1].offset + 1
        for record in records:
            if tp.topic == self._line.settings.topic(topics.ALERTS):
                self._alerts.add(record.value)
            else:
                headers = dict(record.headers)
                place = int(headers["source_partition"]), int(headers["source_offset"])
                value = self._manifest.poison.get(place)
                if headers["reason"] and (value == record.value or headers["reason"] == b"secret"):
                    self._letters.add(place)

    def _finish(self) -> None:
        self._say("last check")
        final = self._check()
        assert set(final) <= set(NAMES)
        outcome, traffic = self._outcome, self._traffic
        outcome.physical_duplicates = sum(score.physical_duplicates for score in outcome.scores.values())
        outcome.events, outcome.resends = len(self._manifest.calls), self._manifest.resends
        outcome.poison, outcome.alerts = len(self._manifest.poison), len(self._alerts.found)
        outcome.memory_by_process = self._progress.peaks_mb
        outcome.producer = {
            "record_p99_ms": round(quantile(traffic.record_s or [0.0], 0.99) * 1_000, 2),
            "record_max_ms": round(max(traffic.record_s, default=0.0) * 1_000, 2), "refused": traffic.refused,
            "given_up": traffic.dropped, "sent_again": traffic.retries,
        }  # fmt: skip

    def _report(self, fault: Fault, recovered_s: float | None, new: dict[str, set[Hashable]]) -> None:
        bad = {name: len(keys) for name, keys in new.items() if keys}
        took = "not recovered" if recovered_s is None else f"caught up after {recovered_s:.1f} s"
        count = sum(score.injected for score in self._outcome.scores.values())
        self._say(f"{count:3d}  {fault.name}: {took}; {bad or 'nothing wrong'}; {len(self._manifest.calls):,} events")
        for name, keys in new.items():
            for key in sorted(map(str, keys))[:5]:
                self._say(f"       {name}: {key}")
