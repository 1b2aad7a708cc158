"""The id that a broker gives a topic when it is created: a topic of the same name made again has another one.

aiokafka asks for metadata in a version that has no ids yet; this is the same request in the one that has.
"""

import logging
from collections.abc import Iterable
from io import BytesIO
from uuid import UUID

from aiokafka.errors import IncompatibleBrokerVersion, KafkaError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from tollmeter.broker.client import kafka_admin
from tollmeter.settings import Settings

_METADATA, _VERSION = 3, 10
_TIMEOUT_MS = 10_000

log = logging.getLogger("tollmeter")


class _Uuid:
    """Sixteen bytes; aiokafka has no such type."""

    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))

    @classmethod
    def repr(cls, value: UUID) -> str:
        return str(value)


_int32s = CompactArray(Int32)


class _Answer(Response):  # type: ignore[misc]  # aiokafka is read untyped
    API_KEY, API_VERSION = _METADATA, _VERSION
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString()),
                ("port", Int32),
                ("rack", CompactString()),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString()),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString()),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", _int32s),
                        ("isr", _int32s),
                        ("offline", _int32s),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized", Int32),
        ("tags", TaggedFields),
    )


class _Ask(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY, API_VERSION, RESPONSE_TYPE = _METADATA, _VERSION, _Answer
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("topic", CompactString()), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("cluster_authorized", Boolean),
        ("topic_authorized", Boolean),
        ("tags", TaggedFields),
    )


class _Topics(Request[_Ask]):  # type: ignore[misc]
    API_KEY = _METADATA

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)

    def build(self, request_struct_class: type[_Ask]) -> _Ask:
        asked: list[tuple[UUID, str, dict[int, bytes]]] = [(UUID(int=0), name, {}) for name in self._names]
        return request_struct_class(asked, False, False, False, {})


async def topic_ids(settings: Settings, names: Iterable[str]) -> dict[str, str]:
    """Return the id of each topic as text; {} from a broker too old to have any. Raises `KafkaError`, `OSError`."""
    try:
        async with kafka_admin(settings, _TIMEOUT_MS) as admin:
            answer = await admin._send_request(_Topics(names))
    except (IncompatibleBrokerVersion, NotImplementedError):  # aiokafka's way of saying that the broker is too old
        return {}
    return {topic: str(id_) for code, topic, id_, *_ in answer.topics if not code and id_.int}


async def id_of(settings: Settings, name: str) -> str:
    """Return the id of one of our topics, "" where nobody knows it."""
    try:
        return (await topic_ids(settings, [settings.topic(name)])).get(settings.topic(name), "")
    except (KafkaError, OSError) as error:
        log.warning("the id of %s is unknown: %r", name, error)
        return ""
