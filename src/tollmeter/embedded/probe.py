"""Whether what answers on a port is ours: another program may have taken it between the choice and the start."""

import asyncio
import logging
import urllib.error
import urllib.request
from pathlib import Path

from aiokafka.errors import KafkaError

from tollmeter.broker.client import kafka_admin
from tollmeter.embedded.kafka import cluster_id
from tollmeter.embedded.ports import answers
from tollmeter.settings import Settings

_TIMEOUT_S = 5.0


def is_our_broker(settings: Settings, folder: Path) -> bool:
    """Tell whether the broker at the address has the cluster id of this folder."""
    if not answers(int(settings.kafka.rpartition(":")[2])):
        return False
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    try:
        return asyncio.run(_cluster_id(settings)) == cluster_id(folder)
    except (KafkaError, OSError, TimeoutError):
        return False


async def _cluster_id(settings: Settings) -> str:
    async with kafka_admin(settings, int(_TIMEOUT_S * 1000)) as admin:
        return str((await admin.describe_cluster())["cluster_id"])


def is_our_front(settings: Settings) -> bool:
    """Tell whether the ClickHouse at the address knows our password."""
    password = settings.clickhouse_password.get_secret_value()
    headers = {"X-ClickHouse-User": settings.clickhouse_user, "X-ClickHouse-Key": password}
    request = urllib.request.Request(f"{settings.clickhouse}/?query=SELECT%201", headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 -- our own http://127.0.0.1
            return bool(answer.read() == b"1\n")
    except urllib.error.HTTPError as refused:
        refused.close()
        return False
    except OSError:
        return False
