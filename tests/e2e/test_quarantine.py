"""A record that kills the interpreter: PRICE dies of it, starts again, sets it aside; all behind it flows."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from aiokafka import AIOKafkaProducer

from tests.usage_rows import avro, fields
from tests.workers import read
from tollmeter.embedded.environment import settings_environment
from tollmeter.schemas import topics
from tollmeter.schemas.codec import SINGLE_OBJECT_HEADER
from tollmeter.schemas.dead_letter import read_letter
from tollmeter.schemas.priced import H_SOURCES
from tollmeter.settings import Settings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(500)]
Eventually = Callable[..., Any]

KILLER = avro(fields(7, tags={"k": "this one kills"}))
WANTED = {fields(n)["event_id"] for n in (*range(40), 50, 51) if n != 7}

# As a decoder with a bug: it dies of these bytes wherever they are decoded, alone or among others.
BUG = """
import importlib.util, os, signal, sys
import polars
read_avro = polars.read_avro
def read_or_die(source, *args, **kwargs):
    if b"this one kills" in source.getvalue():
        os.kill(os.getpid(), signal.SIGSEGV)
    return read_avro(source, *args, **kwargs)
polars.read_avro = read_or_die
"""


def start(line: Settings, tmp_path: Path, number: int) -> subprocess.Popen[bytes]:
    """One PRICE worker with the bug, as on another host: it shares nothing with the one before but the broker."""
    home = tmp_path / f"host{number}"
    home.mkdir()
    (home / "sitecustomize.py").write_text(BUG)
    environment = {**os.environ, **settings_environment(line), "POLARS_MAX_THREADS": "1", "PYTHONPATH": str(home)}
    environment |= {"TOLLMETER_DATA_DIR": str(home / "data"), "TOLLMETER_SESSION_TIMEOUT_S": "6"}
    with (home / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tollmeter", "worker", "price"], env=environment, stderr=log, stdout=log
        )


async def _publish(line: Settings, numbers: tuple[int, ...]) -> None:
    producer = AIOKafkaProducer(**line.kafka_options())
    await producer.start()
    try:
        for n in numbers:
            value = KILLER if n == 7 else avro(fields(n))
            await producer.send_and_wait(line.topic(topics.EVENTS), value, partition=n % 2)
    finally:
        await producer.stop()


def priced(line: Settings) -> set[str]:
    """Ids of the rows in usage.priced."""
    found: set[str] = set()
    for record in read(line, topics.PRICED):
        if dict(record.headers)["kind"] == b"rows":
            found |= set(pl.read_ipc_stream(io.BytesIO(record.value), columns=["event_id"])["event_id"].to_list())
    return found


def test_killer_is_set_aside_at_the_third_start_and_everything_behind_it_flows(
    line_settings: Settings, tmp_path: Path, eventually: Eventually
) -> None:
    line = line_settings
    assert KILLER.startswith(SINGLE_OBJECT_HEADER)
    asyncio.run(_publish(line, tuple(range(40))))
    died = 0
    for number in range(3):
        worker = start(line, tmp_path, number)
        try:
            if number < 2:
                assert worker.wait(900) == -signal.SIGSEGV
                died += 1
                assert read(line, topics.DLQ) == []
                continue
            letters = eventually(lambda: read(line, topics.DLQ), 150, every=0.5)
            asyncio.run(_publish(line, (50, 51)))
            eventually(lambda: priced(line) == WANTED, 60, every=0.5)
            assert worker.poll() is None
        finally:
            worker.kill()
            worker.wait()
    assert died == 2
    (letter,) = letters
    said = read_letter(letter.headers)
    assert (said.reason, said.stage, said.place.partition, said.place.offset) == ("quarantined", "price", 1, 3)
    assert said.detail == "ends the process: SIGSEGV"
    assert letter.value == KILLER
    sources = [
        source
        for record in read(line, topics.PRICED)
        for name, value in record.headers
        if name == H_SOURCES
        for source in json.loads(value)
    ]
    assert sum({(s[0], s[1], s[2]): s[4] for s in sources}.values()) == 1
