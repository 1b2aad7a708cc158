"""An admin client of the broker is closed at the end of its `with`, also when it never connected."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient

from tollmeter.settings import Settings


@asynccontextmanager
async def kafka_admin(settings: Settings, timeout_ms: int = 20_000) -> AsyncIterator[AIOKafkaAdminClient]:
    """Give a connected client. Raises `KafkaError`, `OSError`."""
    admin = AIOKafkaAdminClient(**settings.kafka_options(), request_timeout_ms=timeout_ms)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()
