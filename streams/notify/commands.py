"""What commands say to notify: an acknowledgement, a mute, a word about an incident; done when the journal holds it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from pydantic import BaseModel, ValidationError

from tollmeter.broker.client import kafka_consumer, read_all
from tollmeter.broker.layout import ProvisionError, read_layout
from tollmeter.schemas import topics
from tollmeter.schemas.secrets import NO_KEY, holds_secret
from tollmeter.settings import Settings
from tollmeter.streams.notify.feedback import Feedback, Verdict, judged
from tollmeter.streams.notify.journal import ACK, FEEDBACK, MUTE, Journal, Records
from tollmeter.streams.notify.notice import Acknowledgement, Mute, Notice

_Value = TypeVar("_Value")
_Model = TypeVar("_Model", bound=BaseModel)


class Said(NamedTuple):
    """Who says it, and why."""

    by: str
    reason: str = ""


class JournalError(Exception):
    """The journal cannot be reached, or does not hold what was asked for; one line for the user."""


def acknowledge(settings: Settings, wanted: str, by: str, now_s: float) -> Notice:
    """Return the alert that was acknowledged, by its id or the beginning of it. Raises `JournalError`."""

    async def work(journal: Journal) -> Notice:
        notice = chosen(await journal.load(now_s), wanted)
        await journal.write({ACK + notice.id: Acknowledgement(by=by, at_s=now_s)})
        return notice

    return _with_journal(settings, work)


def mute(settings: Settings, wanted: Mute, *, off: bool) -> None:
    """Return when the mute is on the journal, or its end. Raises `JournalError`."""
    if holds_secret(wanted.model_dump_json()):
        raise JournalError(NO_KEY)

    async def work(journal: Journal) -> None:
        await journal.write({MUTE + wanted.id: None if off else wanted})

    _with_journal(settings, work)


def judge(settings: Settings, wanted: str, verdict: Verdict, until_s: float, said: Said, now_s: float) -> Feedback:
    """Return the word about an incident, by the beginning of its id or of an alert of it. Raises `JournalError`."""
    if holds_secret(f"{said.by} {said.reason}"):
        raise JournalError(NO_KEY)

    async def work(journal: Journal) -> Feedback:
        notices = (await journal.load(now_s)).notices.values()
        made = judged(_incident(list(notices), wanted), verdict, until_s, said.by, said.reason, now_s)
        await journal.write({FEEDBACK + made.incident: made})
        return made

    return _with_journal(settings, work)


def feedback(settings: Settings) -> list[Feedback]:
    """Return what people said of incidents, the newest first. Raises `JournalError`."""
    found = _said(settings, FEEDBACK, Feedback)
    return sorted(found, key=lambda one: (-one.at_s, one.incident))


def mutes(settings: Settings, now_s: float) -> list[Mute]:
    """Return the mutes in force, the first to end first. Raises `JournalError`."""
    found = _said(settings, MUTE, Mute)
    return sorted((one for one in found if one.until_s > now_s), key=lambda one: (one.until_s, one.id))


def _said(settings: Settings, begins: str, model: type[_Model]) -> list[_Model]:
    """Return what the journal holds under keys that begin so."""
    found: dict[bytes, bytes | None] = {}

    async def read() -> None:
        place = TopicPartition(settings.topic(topics.NOTICES), 0)
        async with kafka_consumer(settings) as consumer:
            if place.topic not in await consumer.topics():
                raise JournalError(f"topic {place.topic} does not exist on {settings.kafka}: run 'tollmeter setup'")
            async for record in read_all(consumer, [place]):
                if record.key is not None and record.key.startswith(begins.encode()):
                    found[record.key] = record.value

    try:
        asyncio.run(read())
        return [model.model_validate_json(value) for value in found.values() if value is not None]
    except (KafkaError, OSError) as error:
        raise JournalError(f"Kafka at {settings.kafka} does not answer ({type(error).__name__})") from None
    except ValidationError:
        raise JournalError(f"a {begins.rstrip(':')} was written by a newer version: upgrade this one") from None


def _incident(notices: Sequence[Notice], wanted: str) -> list[Notice]:
    """Return the alerts of the one incident that is meant, those of its last turn."""
    near = [one for one in notices if one.incident.startswith(wanted) or one.id.startswith(wanted)] if wanted else []
    ids = {one.incident for one in near}
    if near and ids == {""}:
        raise JournalError(f"alert {near[0].id} is of kind {near[0].kind}, and of no incident: acknowledge it")
    if not ids:
        seen = "see 'tollmeter anomalies incidents', and that notify runs"
        raise JournalError(f"notify knows no incident {wanted!r}: {seen}")
    if len(ids) > 1:
        raise JournalError(f"{len(ids)} incidents or alerts begin with {wanted!r}: give more of the id")
    members = [one for one in notices if one.incident in ids]
    return [one for one in members if one.turn == max(member.turn for member in members)]


def chosen(records: Records, wanted: str) -> Notice:
    """Return the one alert whose id begins so. Raises `JournalError`."""
    found = [notice for notice_id, notice in records.notices.items() if notice_id.startswith(wanted)]
    if not found or not wanted:
        raise JournalError(f"notify knows no alert {wanted!r}: see 'tollmeter alerts list', and that notify runs")
    if len(found) > 1:
        raise JournalError(f"{len(found)} alerts begin with {wanted!r}: give more of the id")
    (notice,) = found
    if notice.state == "resolved":
        raise JournalError(f"alert {notice.id} is over: {notice.resolution}")
    return notice


def _with_journal(settings: Settings, work: Callable[[Journal], Awaitable[_Value]]) -> _Value:
    async def run() -> _Value:
        await read_layout(settings)  # a broker that is away, and a line that is not set up, are one clear error here
        journal = Journal(settings)
        try:
            await journal.start()
            return await work(journal)
        finally:
            await journal.stop()

    try:
        return asyncio.run(run())
    except ProvisionError as error:
        raise JournalError(str(error)) from None
    except (KafkaError, OSError) as error:
        raise JournalError(f"Kafka at {settings.kafka} does not answer ({type(error).__name__})") from None
