"""What goes wrong with a log is said once, as an alert that LEDGER also files in `ledger_gaps`; then work goes on.

Where going on would be wrong, the partitions pause with the reason: no skip in silence, and no crash loop.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime

from aiokafka.errors import KafkaError
from faust.types import TP

from tollmeter.broker.layout import Layout, ProvisionError, count_problems
from tollmeter.broker.topic_ids import topic_ids
from tollmeter.schemas import topics
from tollmeter.schemas.alert import CONTENT_TYPE, Alert, alert_id
from tollmeter.settings import Settings
from tollmeter.streams.engine import metrics
from tollmeter.streams.engine.gaps import Loss
from tollmeter.streams.rules.windows.epochs import PIPELINE

Send = Callable[[str, int, bytes | None, bytes | None, list[tuple[str, bytes]]], Awaitable[int]]
AskIds = Callable[[Settings, Iterable[str]], Awaitable[dict[str, str]]]
AskCounts = Callable[[Settings, Layout], Awaitable[dict[str, str]]]

log = logging.getLogger("tollmeter")


def utc_now() -> datetime:
    """Return the time of this machine."""
    return datetime.now(UTC)


def gap_alert(stage: str, loss: Loss, topic: str, topic_id: str, now: datetime) -> Alert:
    """Return the alert about offsets that are gone, or about a log made anew. `topic` is the name without prefix."""
    where = f"{topic}/{loss.tp.partition}"
    if loss.kind == "gap":
        id_ = alert_id("gap", stage, topic, str(loss.tp.partition), str(loss.first), str(loss.last), topic_id)
        text = f"{stage} found offsets {loss.first} to {loss.last} of {where} deleted before it had read them"
    else:
        id_ = alert_id("new_epoch", stage, topic, str(loss.tp.partition), topic_id)
        text = f"{stage} found another log under the name {where}: it reads it from its beginning"
    return Alert(
        id=id_,
        kind=loss.kind,
        severity="critical",
        org_id="",
        scope=PIPELINE,
        name=where,
        period=f"{now:%Y-%m-%d}",
        received_at=now,
        text=text,
        source=f"tollmeter/{stage}",
        facts={
            "stage": stage,
            "topic": topic,
            "partition": loss.tp.partition,
            "first_offset": loss.first,
            "last_offset": loss.last,
            "topic_id": topic_id,
        },
    )


def paused_alert(stage: str, topic: str, partition: int, at: str, why: str, now: datetime) -> Alert:
    """Return the alert about a partition that pauses for good; `at` tells one reason to stop from the next."""
    where = f"{topic}/{partition}"
    return Alert(
        id=alert_id("paused", stage, topic, str(partition), at),
        kind="paused",
        severity="critical",
        org_id="",
        scope=PIPELINE,
        name=where,
        period=f"{now:%Y-%m-%d}",
        received_at=now,
        source=f"tollmeter/{stage}",
        text=f"{stage} pauses {where}: {why}",
        facts={"stage": stage, "topic": topic, "partition": partition, "reason": why},
    )


class Incidents:
    """Speaks for one worker of a stage. Every alert is acknowledged before its cause is passed over."""

    def __init__(
        self,
        settings: Settings,
        stage: str,
        send: Send,
        layout: Layout,
        *,
        ask_ids: AskIds = topic_ids,
        ask_counts: AskCounts = count_problems,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._settings, self._stage, self._send, self._layout = settings, stage, send, layout
        self._ask_ids, self._ask_counts, self._now = ask_ids, ask_counts, now
        self._said: set[str] = set()
        self._ids: dict[str, str] = {}

    async def lost(self, loss: Loss) -> None:
        """Declare a loss."""
        if loss.kind == "gap":
            lost = loss.last - loss.first + 1
            metrics.GAP_OFFSETS.labels(self._stage, self._plain(loss.tp.topic)).inc(lost)
        found = await self._topic_ids(loss.tp.topic)
        await self.say(
            gap_alert(self._stage, loss, self._plain(loss.tp.topic), found.get(loss.tp.topic, ""), self._now())
        )

    def know(self, name: str, id_: str) -> None:
        """Take note of the id under which this process knows a topic; whatever it says about it is about that one."""
        if id_:
            self._ids.setdefault(name, id_)

    async def ids(self, names: Iterable[str]) -> dict[str, str]:
        """Return the ids under which this process knows these topics; those it knows none of are left out."""
        wanted = list(names)
        unknown = [name for name in wanted if name not in self._ids]
        for name, id_ in (await self._topic_ids(*unknown)).items() if unknown else ():
            self.know(name, id_)
        return {name: self._ids[name] for name in wanted if name in self._ids}

    def id_of(self, name: str) -> str:
        """Return the id under which this process knows a topic, "" as long as it knows none."""
        return self._ids.get(name, "")

    async def replaced(self, names: Iterable[str]) -> list[str]:
        """Return those of these topics that were made anew since this process knows them."""
        found = await self._topic_ids(*names)
        return sorted(name for name, id_ in found.items() if self._ids.setdefault(name, id_) != id_)

    async def paused(self, tp: TP, at: str, why: str) -> None:
        """Declare that a partition pauses."""
        await self.say(paused_alert(self._stage, self._plain(tp.topic), tp.partition, at, why, self._now()))

    async def why_not_read(self) -> str:
        """Return why nothing may be read now: the partition counts are not those of the layout. "" when they are.

        When the broker does not answer nobody knows, and there is nothing to read either.
        """
        try:
            problems = await self._ask_counts(self._settings, self._layout)
        except ProvisionError as error:
            log.warning("partition counts unknown: %s", error)
            return ""
        for topic, why in sorted(problems.items()):
            await self.paused(TP(topic, 0), why, why)
        return "; ".join(problems.values())

    async def say(self, alert: Alert) -> None:
        """Send an alert and log it, once in this process; everywhere else its id tells."""
        if alert.id in self._said:
            return
        log.error("%s", alert.text)
        topic = self._settings.topic(topics.ALERTS)
        await self._send(topic, 0, f"{PIPELINE}/{alert.name}".encode(), alert.wire(), CONTENT_TYPE)
        self._said.add(alert.id)

    async def _topic_ids(self, *names: str) -> dict[str, str]:
        try:
            return await self._ask_ids(self._settings, names)
        except (KafkaError, OSError) as error:
            log.warning("the ids of %s are unknown: %r", ", ".join(names), error)
            return {}

    def _plain(self, topic: str) -> str:
        return topic.removeprefix(self._settings.topic_prefix)
