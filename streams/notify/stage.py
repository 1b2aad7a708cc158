"""`tollmeter notify`: alerts from Kafka into the journal, then committed; messages out, then journalled as sent.

Killed at any point it loses nothing: an alert is committed once its notice is durable, and a message is repeated unless
its success is. Between a receiver's answer and that record lies the one moment in which a repeat is possible; it has
the same key. The unexpected ends the process: whoever starts next goes on from the journal.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Any

import orjson
from aiokafka import TopicPartition
from aiokafka.abc import ConsumerRebalanceListener

from tollmeter.broker import make
from tollmeter.broker.layout import read_layout
from tollmeter.broker.make import Consumer
from tollmeter.schemas import topics
from tollmeter.schemas.alert import CONTENT_TYPE
from tollmeter.schemas.record import Record
from tollmeter.settings import Settings
from tollmeter.sinks.channels.message import Channel
from tollmeter.streams.notify import texts
from tollmeter.streams.notify.causes import Ledger
from tollmeter.streams.notify.daily import Answers, Daily
from tollmeter.streams.notify.dispatcher import Dispatcher
from tollmeter.streams.notify.evidence import Causes
from tollmeter.streams.notify.feedback import KEPT_S
from tollmeter.streams.notify.journal import ACK, FEEDBACK, FORGET, MUTE, NOTICE, Journal, Records, dropped
from tollmeter.streams.notify.leader import OneInCharge
from tollmeter.streams.notify.notice import Delivery, Notice
from tollmeter.streams.notify.outcome import attempt_once
from tollmeter.streams.notify.routes import Routes
from tollmeter.streams.notify.self_alerts import digest_notice, storm_alert
from tollmeter.streams.notify.states import States
from tollmeter.streams.notify.texts import message

log = logging.getLogger("tollmeter.notify")

POLL_MS = 100
SWEEP_S = 1.0
TAKE_MOST = 500
EXPLAIN_MOST = 20
"""Alerts of one batch that get causes: more come as a digest anyhow."""
HAND_OVER_S = 20.0
ALERT_BYTES = 250_000
"""A record of the journal holds at most a megabyte."""


class Notifier:
    """One instance. `dispatcher` is there while it is in charge."""

    def __init__(
        self, settings: Settings, routes: Routes, consumers: Mapping[str, Channel], priced: int, answers: Answers
    ) -> None:
        self._settings, self._routes, self._consumers = settings, routes, consumers
        self._journal = Journal(settings)
        self._ledger = Ledger(settings, time)
        self._states = States(settings)
        self._daily = Daily(settings, routes.report, answers)
        self.dispatcher: Dispatcher | None = None
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._swept_at = 0.0
        self._priced = priced

    # ---- one round

    async def round(self, source: Consumer) -> None:
        """Take what has arrived, let time pass, and start what is due."""
        found = await source.getmany(timeout_ms=POLL_MS, max_records=TAKE_MOST)
        if self.dispatcher is None:
            if not source.assignment():
                return
            self.dispatcher = await self._take_charge()
        if found:
            # a mute counts for every alert that was raised after its command answered
            await self._listen(self.dispatcher, await self._journal.news(time()))
            await self._take(sorted((record for records in found.values() for record in records), key=_appended))
            await source.commit({tp: records[-1].offset + 1 for tp, records in found.items()})
        if time() - self._swept_at >= SWEEP_S or time() < self._swept_at:
            self._swept_at = time()
            await self._sweep(self.dispatcher)
        self._start_due()

    async def _take_charge(self) -> Dispatcher:
        records = await self._journal.load(time())
        dispatcher = Dispatcher(self._routes, self._settings.alert_max_age_h * 3_600)
        dispatcher.load(records.notices.values(), time())
        await self._journal.put(dispatcher.orphans())
        self._states.all(dispatcher.notices)
        await self._listen(dispatcher, records)
        waiting = sum(d.status == "pending" for notice in dispatcher.notices.values() for d in notice.deliveries)
        log.info("in charge: %d alerts known, %d messages wait", len(dispatcher.notices), waiting)
        return dispatcher

    async def _take(self, records: Sequence[Record]) -> None:
        """Return when the notices of these alerts are durable."""
        dispatcher = self.dispatcher
        assert dispatcher is not None
        fresh: list[Notice] = []
        stormy = dispatcher.weather.storm
        for record in records:
            try:
                notice = dispatcher.take(readable(record.value), time())
            except ValueError as error:
                log.warning("%s/%d@%d is passed over: %s", record.topic, record.partition, record.offset, error)
                continue
            if notice is not None:
                fresh.append(notice)
        found = await asyncio.gather(*(self._causes(notice) for notice in fresh[:EXPLAIN_MOST]))
        told = [
            _worded(dispatcher, notice, causes)
            for notice, causes in zip(fresh, [*found, *[Causes()] * (len(fresh) - len(found))], strict=True)
        ]
        await self._keep(told)
        for notice in told:
            dispatcher.add(notice)
        if dispatcher.weather.storm and not stormy:
            await self._raise_storm()

    async def _causes(self, notice: Notice) -> Causes:
        return Causes() if notice.held else await self._ledger.causes(notice)

    async def _raise_storm(self) -> None:
        alert = storm_alert(datetime.now(UTC), self._routes.limits.storm_per_minute)
        log.warning("%s", alert.text)
        target = topics.org_partition(alert.org_id, self._priced)
        await self._journal.publish(self._settings.topic(topics.ALERTS), target, b"storm", alert.wire(), CONTENT_TYPE)

    async def _tell(self, dispatcher: Dispatcher, notice: Notice) -> None:
        await self._keep([notice])
        dispatcher.add(notice)

    async def _keep(self, notices: list[Notice]) -> None:
        await self._journal.put(notices)
        self._states.changed(notices)

    # ---- time and people

    async def _sweep(self, dispatcher: Dispatcher) -> None:
        await self._listen(dispatcher, await self._journal.news(time()))
        now_s = time()
        await self._keep(dispatcher.sweep(now_s))
        for consumer, members in list(dispatcher.digests(now_s)):
            await self._tell(dispatcher, digest_notice(consumer, members, now_s))
            await self._keep(dispatcher.digested(consumer, members))
        if (report := self._daily.due(dispatcher, now_s)) is not None:
            await self._tell(dispatcher, report)
        gone: dict[str, None] = {f"{kind}{name}": None for name in dispatcher.forget(now_s) for kind in (NOTICE, ACK)}
        gone |= {f"{MUTE}{name}": None for name in dropped(dispatcher.mutes, lambda mute: mute.until_s <= now_s)}
        gone |= {
            f"{FEEDBACK}{name}": None for name in dropped(dispatcher.feedback, lambda said: said.at_s + KEPT_S <= now_s)
        }
        if gone:
            await self._journal.write(dict(gone))
        await self._states.flush()

    async def _listen(self, dispatcher: Dispatcher, records: Records) -> None:
        """Act on what commands wrote: mutes, acknowledgements, words about incidents, policies, who is forgotten."""
        for name, mute in records.mutes.items():
            if mute is None:
                dispatcher.mutes.pop(name, None)
            else:
                dispatcher.mutes[name] = mute
        changed = [dispatcher.acknowledge(notice_id, said) for notice_id, said in records.acks.items()]
        known = [(dispatcher.notices.get(name), said) for name, said in records.forgotten.items()]
        changed += [dispatcher.add(notice.reworded(said)) for notice, said in known if notice is not None]
        changed += [notice for said in records.feedback.values() for notice in dispatcher.judge(said)]
        changed += dispatcher.policies(records.policies, time())
        await self._keep([notice for notice in changed if notice is not None])
        await self._journal.write({f"{FORGET}{name}": None for name in records.forgotten})

    # ---- messages

    def _start_due(self) -> None:
        dispatcher = self.dispatcher
        if dispatcher is None:
            return
        for name, task in list(self._sending.items()):
            if task.done():
                del self._sending[name]
                task.result()  # the unexpected rises here
        for name, notice, delivery in dispatcher.due(time(), self._sending):
            self._sending[name] = asyncio.create_task(self._send(dispatcher, name, notice, delivery))

    async def _send(self, dispatcher: Dispatcher, name: str, notice: Notice, delivery: Delivery) -> None:
        """Deliver one message after the other to a consumer, while some are due."""
        while True:
            outcome = await asyncio.to_thread(attempt_once, self._consumers[name], message(notice, delivery.about))
            settled = dispatcher.settle(notice.id, delivery, outcome, time())
            if outcome.error:
                attempt = delivery.attempts + 1
                log.warning("consumer %s, alert %s, attempt %d: %s", name, notice.id, attempt, outcome.error)
            await self._keep([settled])
            following = dispatcher.due(time(), set(self._consumers) - {name})
            if not following or self.dispatcher is not dispatcher:
                return
            _, notice, delivery = following[0]

    async def hand_over(self) -> None:
        """Stop being in charge: what is on its way is waited for and recorded, nothing new starts."""
        self.dispatcher = None
        if self._sending:
            await asyncio.wait(self._sending.values(), timeout=HAND_OVER_S)
        self._sending.clear()

    # ---- the process

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(len(self._consumers) + 6))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        source = make.member(self._settings, "notify", [OneInCharge])
        await self._journal.start()
        await make.begin(source)
        source.subscribe([self._settings.topic(topics.ALERTS)], listener=_Listener(self))
        try:
            while not stop.is_set():
                await self.round(source)
            await self.hand_over()
        finally:
            await source.stop()
            await self._journal.stop()
        return 0


async def run(settings: Settings, routes: Routes, consumers: Mapping[str, Channel], answers: Answers) -> int:
    """Run one instance until SIGTERM or SIGINT and return its exit code. Raises `ProvisionError` before it starts.

    `answers`: what the daily report asks about providers.
    """
    layout = await read_layout(settings)
    return await Notifier(settings, routes, consumers, layout.priced, answers).run()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is read untyped
    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        await self._notifier.hand_over()

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        if not assigned:
            log.info("another instance is in charge; this one waits")
        _say_ready()


def _say_ready() -> None:
    if path := os.environ.get("TOLLMETER_READY_FILE"):
        Path(path).touch()


def readable(value: bytes | None) -> dict[str, Any]:
    """Return the CloudEvent in a record. Raises `ValueError` for what the journal could not hold."""
    if value is None or len(value) > ALERT_BYTES:
        raise ValueError(f"an alert has 1 to {ALERT_BYTES} bytes")
    event = orjson.loads(value)
    if not isinstance(event, dict):
        raise ValueError("no CloudEvent")
    Notice(id="", event=event, opened_s=0.0).model_dump_json()
    return event


def _appended(record: Record) -> int:
    return record.timestamp


def _worded(dispatcher: Dispatcher, notice: Notice, causes: Causes) -> Notice:
    """Return a notice with its title and text; the incident of one that nobody hears of is not looked up."""
    standing = dispatcher.standing(notice) if notice.incident and notice.deliveries else None
    title, body = texts.opened(notice, causes, standing)
    return notice.model_copy(update={"title": title, "body": body})
