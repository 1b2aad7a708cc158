"""Kafka clients are made here and nowhere else, one function a kind; a start that is cut short leaves nothing open.

Faust makes those of the stages, with the options of `streams/engine/app.py`. aiokafka 0.14.0 leaves its first
connection open when a start is cancelled before the broker has answered; a test fails when that method changes.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from types import FunctionType
from typing import Any, TypeAlias

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient, create_conn

from tollmeter.broker.unpack import bound
from tollmeter.settings import Settings

Admin: TypeAlias = AIOKafkaAdminClient
Consumer: TypeAlias = AIOKafkaConsumer
Producer: TypeAlias = AIOKafkaProducer

TIMEOUT_MS = 20_000
LOOK_MS = 100
"""How long the broker keeps a question for records that nobody has written: others wait behind it."""
TAIL_MS = 1_000
"""The same where a log is followed: what comes is handed over at once. No more, as a partition whose records are not
taken within a tenth of a second is left out of the next question."""
LOOP_MS = 1_000
"""How often a client's own loop looks around while nothing wakes it; 200 by default."""
BATCH_BYTES = 400_000
"""Most bytes of a batch that is built whole."""
METADATA_MS = 10_000
"""How soon a member of a group notices new partitions."""


def admin(settings: Settings, timeout_ms: int = TIMEOUT_MS) -> Admin:
    """Return a client for topics, groups and rules of access."""
    return Admin(**settings.kafka_options(), request_timeout_ms=timeout_ms)


def reader(
    settings: Settings,
    *,
    timeout_ms: int = 2 * TIMEOUT_MS,
    start: str = "earliest",
    waits_ms: int = LOOK_MS,
    client_id: str = "tollmeter",
    foreign: bool = False,
) -> Consumer:
    """Return a consumer without a group, for logs with large records.

    What a batch unpacks to is bounded in the whole process, as anybody may have written it; but not where the process
    is a service's (`foreign`), whose own consumers are no business of ours.
    """
    if not foreign:
        bound()
    return Consumer(
        **settings.kafka_options(),
        client_id=client_id,
        enable_auto_commit=False,
        auto_offset_reset=start,
        isolation_level="read_committed",  # what was aborted is nobody's
        request_timeout_ms=timeout_ms,
        fetch_max_wait_ms=waits_ms,
        consumer_timeout_ms=LOOP_MS,
        max_partition_fetch_bytes=8 << 20,
        fetch_max_bytes=32 << 20,
    )


def member(settings: Settings, group: str, assignors: Sequence[type]) -> Consumer:
    """Return a consumer that shares a topic with the others of its group, and commits by hand."""
    bound()
    return Consumer(
        **settings.kafka_options(),
        client_id=f"tollmeter-{group}",
        group_id=settings.group(group),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=TAIL_MS,
        consumer_timeout_ms=LOOP_MS,
        partition_assignment_strategy=list(assignors),
        session_timeout_ms=int(settings.session_timeout_s * 1_000),
        heartbeat_interval_ms=int(min(3.0, settings.session_timeout_s / 3) * 1_000),
        metadata_max_age_ms=METADATA_MS,
    )


def producer(
    settings: Settings, *, timeout_ms: int = 2 * TIMEOUT_MS, client_id: str = "tollmeter", idempotent: bool = True
) -> Producer:
    """Return a producer of single records, acknowledged by all brokers; each once, if it is idempotent."""
    return Producer(
        **settings.kafka_options(),
        client_id=client_id,
        acks="all",
        enable_idempotence=idempotent,
        request_timeout_ms=timeout_ms,
    )


def batch_producer(
    settings: Settings, *, timeout_ms: int = 2 * TIMEOUT_MS, backoff_ms: int = 100, client_id: str = "tollmeter"
) -> Producer:
    """Return an idempotent producer of batches that are built whole (`create_batch`): it waits for no more records."""
    return Producer(
        **settings.kafka_options(),
        client_id=client_id,
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        max_batch_size=BATCH_BYTES,
        linger_ms=0,
        request_timeout_ms=timeout_ms,
        retry_backoff_ms=backoff_ms,
    )


async def begin(client: Admin | Consumer | Producer) -> None:
    """Connect; stop the client afterwards in any case. Raises `KafkaError`, `OSError`.

    Cut short it closes the connection that aiokafka had begun with.
    """
    inner = getattr(client, "client", None) or client._client
    made: list[Any] = []

    async def noted(*place: object, **options: object) -> object:
        made.append(await create_conn(*place, **options))
        return made[-1]

    own = AIOKafkaClient.bootstrap
    bootstrap = FunctionType(own.__code__, {**own.__globals__, "create_conn": noted}, own.__name__)
    inner.bootstrap = lambda: bootstrap(inner)
    try:
        await client.start()
        await asyncio.sleep(0)  # stopped before its own tasks have begun, a client raises CancelledError
    except BaseException:
        for connection in made:
            with suppress(Exception):
                connection.close()
        raise
    finally:
        del inner.bootstrap
        made.clear()
