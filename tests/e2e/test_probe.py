"""`tollmeter probe` against a local server in each provider's own words, metered on a real broker; keys stay unseen."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.fake_provider import FakeServer, serving
from tollmeter.embedded.environment import settings_environment
from tollmeter.schemas import codec, topics
from tollmeter.schemas.secrets import key_id
from tollmeter.settings import Settings

KEY = "sk-test-0123456789abcdef0123456789"
NOWHERE = Settings(kafka="127.0.0.1:1")


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as running:
        yield running


def probe(
    folder: Path, *arguments: str, settings: Settings = NOWHERE, **environment: str
) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TOLLMETER_") and not name.endswith("_API_KEY")
    }
    spool = {"TOLLMETER_SPOOL_DIR": str(folder / "spool")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "tollmeter", "probe", *arguments],
        env={**inherited, **settings_environment(settings), **spool, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


async def recorded(settings: Settings) -> list[Any]:
    """Return every event of the line."""
    name = settings.topic(topics.EVENTS)
    partitions = [TopicPartition(name, number) for number in range(settings.partitions_events)]
    async with AIOKafkaConsumer(**settings.kafka_options(), auto_offset_reset="earliest") as consumer:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        found: list[Any] = []
        while len(found) < sum(ends.values()):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += [codec.decode_body(record.value[len(codec.SINGLE_OBJECT_HEADER) :]) for record in records]
        return found


@pytest.mark.stack
def test_each_provider_in_its_own_words(server: FakeServer, line_settings: Settings, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(f"{KEY}\n")
    asked = {
        "openai": (f"{server.url}/v1", {"OPENAI_API_KEY": KEY}, (), ("gpt-4o-mini", 1000, 300)),
        "anthropic": (server.url, {}, ("--key-file", str(key_file)), ("claude-haiku-4-5", 2600, 70)),
        "gemini": (server.url, {"GOOGLE_API_KEY": KEY}, (), ("gemini-2.5-flash", 1000, 500)),
        "ollama": (server.url, {}, ("--model", "llama3.2:1b"), ("llama3.2:1b", 26, 8)),
    }
    for provider, (url, environment, more, expected) in asked.items():
        done = probe(tmp_path, provider, "--url", url, "--json", *more, settings=line_settings, **environment)
        assert (done.returncode, done.stderr) == (0, ""), provider
        said = json.loads(done.stdout)
        assert (said["model"], said["input_tokens"], said["output_tokens"]) == expected
        assert said["event"] == "is in Kafka"
        assert KEY not in done.stdout
    paths = [
        "/v1/chat/completions",
        "/v1/messages",
        "/v1beta/models/gemini-2.5-flash-lite:generateContent",
        "/api/chat",
    ]
    assert [path for path, _, _ in server.asked] == paths
    events = asyncio.run(recorded(line_settings))
    assert {(event["provider"], event["api_key_id"]) for event in events} == {
        ("openai", key_id(KEY)),
        ("anthropic", key_id(KEY)),
        ("google", key_id(KEY)),
        ("ollama", ""),
    }
    assert {(event["feature"], event["status"], event["org_id"], event["service"]) for event in events} == {
        ("probe", "OK", "demo", "tollmeter-probe")
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["openai", "--url", "http://127.0.0.1:1/v1"], "openai did not answer: .*refused"),
        (["openai", "--url", "{server}/v1", "--model", "quota"], "HTTP 429: You exceeded your current quota"),
        (["openai", "--url", "{server}/v1", "--model", "late", "--timeout", "0.3"], "timed out"),
        (["openai", "--url", "{server}/v1", "--model", "echo"], r"HTTP 401: Incorrect API key provided: \*\*\*"),
    ],
    ids=["nobody there", "quota", "too slow", "echoes the key"],
)
def test_no_answer_is_one_line_and_exit_code_1(
    arguments: list[str], said: str, server: FakeServer, tmp_path: Path
) -> None:
    words = [word.format(server=server.url) for word in arguments]
    done = probe(tmp_path, *words, OPENAI_API_KEY=KEY)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(said, done.stderr)
    assert done.stderr.count("\n") == 1
    assert KEY not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["openai"], "no key: set OPENAI_API_KEY, or give --key-file"),
        (["openai", "--key-file", "absent"], "--key-file absent: No such file"),
        (["openai", "--key-file", "empty"], "one key on one line"),
        (["ollama", "--url", "file:///etc/passwd"], "--url: no HTTP address"),
        (["skynet"], "'skynet' is not one of 'anthropic'"),
    ],
    ids=["no key", "no file", "empty file", "no address", "no such provider"],
)
def test_wrong_use_is_one_line_and_exit_code_2(arguments: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    done = probe(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
