"""Which cluster answers, and whether it is ours: nothing is written to a broker that has not our layout record."""

import asyncio

from aiokafka import TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError, for_code
from aiokafka.protocol.metadata import MetadataRequest

from tollmeter.broker import make
from tollmeter.broker.make import Producer
from tollmeter.schemas.topics import LAYOUT_KEY, POLICIES
from tollmeter.settings import Settings

_TIMEOUT_S = 10.0
_known: set[tuple[str, str]] = set()
"""Cluster and topic of policies in which this process has seen the record."""


class NotOursError(Exception):
    """The broker has not our layout record, or not our topics; the text says so, without the address."""


async def require_ours(producer: Producer, settings: Settings, topic: str) -> str:
    """Return the id of the cluster to which a producer is connected, "" from a broker that has none.

    `topic` is the one to be written to, by its full name; the topic of policies holds the layout record. A user who
    may not read that one is believed: he was let in by name. Raises `NotOursError`, `KafkaError`, `OSError`,
    `TimeoutError`.
    """
    client, policies = producer.client, settings.topic(POLICIES)
    async with asyncio.timeout(_TIMEOUT_S):
        answer = await client.send(client.get_random_node(), MetadataRequest([topic, policies], False))
        codes = {name: for_code(code) for code, name, *_ in answer.topics}
        cluster = str(getattr(answer, "cluster_id", None) or "")
        if codes.get(policies) is TopicAuthorizationFailedError:
            return cluster
        if (cluster, policies) not in _known:
            ours = not codes[policies].errno and await _has_record(settings, policies)
            if not ours:
                raise NotOursError(f"not set up for tollmeter: {policies} holds no layout record")
            if cluster:
                _known.add((cluster, policies))
        if codes[topic].errno:
            raise NotOursError(f"topic {topic} does not exist (run: tollmeter setup)")
        return cluster


async def _has_record(settings: Settings, policies: str) -> bool:
    """Tell whether the layout record stands in the log; set-up writes it first, so little is read."""
    partition = TopicPartition(policies, 0)
    consumer = make.reader(settings, foreign=True)
    try:
        await make.begin(consumer)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        while await consumer.position(partition) < end:
            records = (await consumer.getmany(partition, timeout_ms=500)).get(partition, [])
            if any(record.key == LAYOUT_KEY and record.value is not None for record in records):
                return True
        return False
    except TopicAuthorizationFailedError:
        return True
    finally:
        await consumer.stop()
