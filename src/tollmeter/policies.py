"""Policies are data on the log: the compacted topic keeps them, a control record in the organisation's partition acts.

A change is done when both are acknowledged; ClickHouse gets its copy with the next checkpoint of WATCH.
"""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from tollmeter.provision import ProvisionError, read_layout
from tollmeter.schemas import topics
from tollmeter.schemas.control import PolicyDelete, PolicySet, control_record
from tollmeter.schemas.policy import Policy
from tollmeter.settings import Settings

_KEY = b"policy:"
_Value = TypeVar("_Value")


class PolicyError(Exception):
    """The change could not be made durable; the text says where and what to do."""


def set_policy(settings: Settings, policy: Policy) -> None:
    """Return when the policy is on the log, where WATCH evaluates it at once. Raises `PolicyError`."""
    _reach(settings, _write(settings, policy.org_id, policy.policy_id, policy))


def delete_policy(settings: Settings, org_id: str, policy_id: str) -> None:
    """Return when the deletion is on the log; deleting an absent policy is no error. Raises `PolicyError`."""
    _reach(settings, _write(settings, org_id, policy_id, None))


def list_policies(settings: Settings) -> list[Policy]:
    """Return the policies in force, in order of their ids. Raises `PolicyError`."""
    return _reach(settings, _read(settings))


def _reach(settings: Settings, work: Coroutine[Any, Any, _Value]) -> _Value:
    try:
        return asyncio.run(work)
    except (KafkaError, OSError) as error:
        raise PolicyError(
            f"no Kafka broker answers at {settings.kafka} ({type(error).__name__}): "
            "start one with 'tollmeter up' or set TOLLMETER_KAFKA"
        ) from None
    except ProvisionError as error:
        raise PolicyError(str(error)) from None


async def _write(settings: Settings, org_id: str, policy_id: str, policy: Policy | None) -> None:
    layout = await read_layout(settings)
    control, headers = control_record(PolicySet(policy=policy) if policy else PolicyDelete(policy_id=policy_id))
    producer = AIOKafkaProducer(**settings.kafka_options(), acks="all", enable_idempotence=True)
    await producer.start()
    try:
        value = policy.model_dump_json().encode() if policy else None
        await producer.send_and_wait(settings.topic(topics.POLICIES), value, key=_KEY + policy_id.encode())
        partition = topics.org_partition(org_id, layout.priced)
        await producer.send_and_wait(settings.topic(topics.PRICED), control, partition=partition, headers=headers)
    finally:
        await producer.stop()


async def _read(settings: Settings) -> list[Policy]:
    tp = TopicPartition(settings.topic(topics.POLICIES), 0)
    consumer = AIOKafkaConsumer(**settings.kafka_options(), enable_auto_commit=False)
    await consumer.start()
    found: dict[bytes, Policy] = {}
    try:
        consumer.assign([tp])
        await consumer.seek_to_beginning(tp)
        end = (await consumer.end_offsets([tp]))[tp]
        while await consumer.position(tp) < end:
            for record in (await consumer.getmany(tp, timeout_ms=1_000)).get(tp, []):
                if record.key is None or not record.key.startswith(_KEY):
                    continue
                if record.value is None:
                    found.pop(record.key, None)
                else:
                    found[record.key] = Policy.model_validate(json.loads(record.value))
    finally:
        await consumer.stop()
    return [found[key] for key in sorted(found)]
