"""The run: fault after fault in a seeded order under live traffic, each followed by recovery, rest and a full check."""

import asyncio
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from benchmarks.measure import quantile
from tests.chaos.background import Background
from tests.chaos.cluster_faults import faults_for
from tests.chaos.faults import KILL_9, Fault, Scene
from tests.chaos.line import Line
from tests.chaos.manifest import ORGS, Manifest, policies
from tests.chaos.oracle import NAMES, Alerts, Wrong, judge
from tests.chaos.outcome import Outcome, Score
from tests.chaos.producers import Traffic
from tests.chaos.progress import Progress
from tests.patience import Patience
from tollmeter.broker.policies import set_policy
from tollmeter.embedded.stack import FRONT
from tollmeter.schemas import topics
from tollmeter.sinks.clickhouse.client import Unavailable
from tollmeter.sinks.clickhouse.codes import BROKEN_FILES

PATIENCE_S = 240.0
"""A difference that lasts this long at rest is a difference."""
RECOVERY_S = 180.0
CALM_S = 2.0
LEAST_S = 5.0
"""A fault shows in what is behind only after a while."""
AWAY_LONG_S, AWAY_SHORT_S, LONG_RUN_MIN = 60.0, 15.0, 8.0
DELAYS = """
SELECT dateDiff('millisecond', received_at, appended_at) / 1000 AS delay_s FROM alerts FINAL WHERE kind = 'budget'
"""
"""How long after the event that crossed a limit its alert stood in the log."""
NANO_A_CALL = 2_000_000
"""What a call costs on average, roughly: budgets are laid along the run by it."""


class Campaign:
    """One run on one line."""

    def __init__(
        self, folder: Path, minutes: float, seed: int, rate: int, say: Callable[[str], None], brokers: int = 1
    ) -> None:
        self._folder, self._minutes, self._rate, self._say, self._brokers = folder, minutes, rate, say, brokers
        self._rng = random.Random(f"chaos-{seed}")
        self._manifest = Manifest()
        self._outcome = Outcome(seed, minutes)
        self._alerts = Alerts()
        self._letters: set[tuple[int, int]] = set()
        self._read: dict[TopicPartition, int] = {}
        self._awaited: list[str] = []
        """What was still to come at the last look before everything was right."""
        self._mended = False
        self._seed = seed

    def run(self, chosen: tuple[str, ...] = ()) -> Outcome:
        """Attack until the time is up, then check once more. `chosen`: only faults with one of these in their names."""
        with ExitStack() as undo:
            self._background = Background()
            undo.callback(self._background.close)
            self._line = undo.enter_context(Line(self._folder, self._background, self._say, self._brokers))
            self._begin(undo)
            away_s = AWAY_LONG_S if self._minutes >= LONG_RUN_MIN else AWAY_SHORT_S
            scene = Scene(
                self._line, self._background, self._rng, away_s, self._progress.look, lambda: self._traffic.spooled
            )
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
        """Yield the faults that can be injected here in random order, again and again: each once, kill -9 twice."""
        possible = []
        for fault in faults_for(self._brokers):
            score = self._outcome.scores.setdefault(fault.name, Score())
            score.not_run = fault.missing(self._line) or ""
            wanted = not chosen or any(part in fault.name for part in chosen)
            if not score.not_run and wanted:
                possible.append(fault)
            elif not wanted:
                score.not_run = "not chosen"
        while possible:
            often = possible + [fault for fault in possible if fault.name in KILL_9]
            yield from self._rng.sample(often, len(often))

    def _attack(self, fault: Fault, scene: Scene) -> None:
        score = self._outcome.scores[fault.name]
        self._progress.calibrate(CALM_S)
        self._progress.peak_mb = self._progress.stored_twice = 0
        began = time.monotonic()
        try:
            healed_at = fault.inject(scene)
        except (RuntimeError, OSError, SubprocessError) as error:
            score.failed.append(str(error))
            self._say(f"{fault.name}: could not be injected: {error}")
            return
        score.injected += 1
        recovered_s = self._recover(healed_at, scene)
        back_at = time.monotonic()
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
        self._report(f"{fault.name} ({healed_at - began:.0f} s)", recovered_s, time.monotonic() - back_at, new)

    def _recover(self, healed_at: float, scene: Scene) -> float | None:
        """Wait until the line has caught up; return the seconds that took, None when it did not."""
        while time.monotonic() < healed_at + LEAST_S:
            scene.wait(0.3)
        began_at: float | None = None
        patience = Patience(RECOVERY_S)
        while not patience.ended():
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
        self._traffic.on, self._awaited, self._mended = False, [], False
        if self._sending.done():
            self._sending.result()
        try:
            new = self._compared()
        finally:
            self._traffic.on = True
        for name, keys in new.items():
            self._outcome.wrong[name] |= keys
        return new

    def _compared(self) -> Wrong:
        if not self._background.call(self._traffic.settle(PATIENCE_S), PATIENCE_S + 30):
            return {"lost": {"producers could not get rid of their events"}}
        patience = Patience(PATIENCE_S)
        while True:
            self._progress.look()
            new = self._newly_wrong()
            if not any(new.values()) or patience.ended():
                return new
            self._awaited = [name for name, keys in new.items() if keys]
            time.sleep(0.5)

    def _newly_wrong(self) -> Wrong:
        try:
            self._background.call(self._read_topics())
            self._alerts.stored = {row["id"] for row in self._line.ledger.query("SELECT DISTINCT id FROM alerts")}
            wrong = judge(self._line.ledger, self._manifest, self._alerts, self._letters)
        except Unavailable as error:
            self._mend(error)
            return {"lost": {str(error)}}
        except (KafkaError, OSError, TimeoutError) as error:
            return {"lost": {f"the broker does not answer: {error!r}"}}
        return {name: keys - self._outcome.wrong[name] for name, keys in wrong.items()}

    def _mend(self, error: Unavailable) -> None:
        """Start the engine again, as its operator would, when it cannot read a file of its own; say so and count it."""
        if error.code in BROKEN_FILES and not self._mended:
            self._mended = True
            self._outcome.engine_mended += 1
            self._say(f"the engine is started again: {error}")
            self._line.signal(FRONT, signal.SIGTERM)

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
        outcome.brokers = self._brokers
        outcome.alert_delays_s = [row["delay_s"] for row in self._line.ledger.query(DELAYS)]
        outcome.memory_by_process = self._progress.peaks_mb
        outcome.producer = {
            "record_p99_ms": round(quantile(traffic.record_s or [0.0], 0.99) * 1_000, 2),
            "record_max_ms": round(max(traffic.record_s, default=0.0) * 1_000, 2),
            "refused": traffic.refused,
            "given_up": traffic.dropped,
            "sent_again": traffic.retries,
        }

    def _report(self, what: str, recovered_s: float | None, compared_s: float, new: Wrong) -> None:
        bad = {name: len(keys) for name, keys in new.items() if keys}
        took = "not recovered" if recovered_s is None else f"caught up after {recovered_s:.1f} s"
        count = sum(score.injected for score in self._outcome.scores.values())
        compared = " ".join(
            ["compared in", f"{compared_s:.0f} s", *(["behind", *self._awaited] if self._awaited else [])]
        )
        self._say(
            f"{count:3d}  {what}: {took}; {compared}; {bad or 'nothing wrong'}; {len(self._manifest.calls):,} events"
        )
        for name, keys in new.items():
            for key in sorted(map(str, keys))[:5]:
                self._say(f"       {name}: {key}")
