"""The real SDKs, metered without a change of code: in this process, and in programs that `tollmeter run` starts."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from google import genai

from tests.fake_provider import FakeServer, serving
from tollmeter import calling, instrument, metered
from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.http.instrument import uninstrument

KEY = "sk-test-0123456789abcdef0123456789"
ASK: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as running:
        yield running


@pytest.fixture
def producer() -> Iterator[UsageProducer]:
    with UsageProducer(mode="memory", service="shop") as memory:
        instrument(producer=memory, org="acme")
        yield memory
        uninstrument()


def test_the_openai_sdk(server: FakeServer, producer: UsageProducer) -> None:
    with openai.OpenAI(api_key=KEY, base_url=f"{server.url}/v1") as client, calling(user_id="ann"):
        client.chat.completions.create(model="gpt-4o", messages=ASK)
        list(
            client.chat.completions.create(
                model="gpt-4o", messages=ASK, stream=True, stream_options={"include_usage": True}
            )
        )
    assert [(one.input_tokens, one.user_id, one.org_id) for one in producer.events] == [(1000, "ann", "acme")] * 2


async def ask_all(server: FakeServer) -> None:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{server.url}/v1") as client:
        await client.responses.create(model="gpt-4o", input="hello")
    async with anthropic.AsyncAnthropic(api_key=KEY, base_url=server.url) as claude:
        await claude.messages.create(model="claude-opus-4-1", max_tokens=10, messages=ASK)
    gemini = genai.Client(api_key=KEY, http_options={"base_url": server.url})
    await gemini.aio.models.generate_content(model="gemini-2.5-flash", contents="hello")
    await gemini.aio.aclose()


def test_the_sdks_asynchronously(server: FakeServer, producer: UsageProducer) -> None:
    import asyncio

    asyncio.run(ask_all(server))
    assert [(one.provider, one.operation) for one in producer.events] == [
        ("openai", "responses"),
        ("anthropic", "chat"),
        ("google", "chat"),
    ]
    assert all(one.usage_source == "PROVIDER" and one.input_tokens for one in producer.events)


def test_the_anthropic_and_google_sdks(server: FakeServer, producer: UsageProducer) -> None:
    with anthropic.Anthropic(api_key=KEY, base_url=server.url) as client:
        client.messages.create(model="claude-opus-4-1", max_tokens=10, messages=ASK)
    with genai.Client(api_key=KEY, http_options={"base_url": server.url}) as gemini:
        gemini.models.generate_content(model="gemini-2.5-flash", contents="hello")
    assert [one.provider for one in producer.events] == ["anthropic", "google"]


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_both_generations_of_the_library(library: Any, server: FakeServer, producer: UsageProducer) -> None:
    with library.Client() as client:
        asked = client.post(f"{server.url}/v1/chat/completions", json={"model": "gpt-4o", "messages": ASK})
        client.post(f"{server.url}/v1/orders", json={"model": "a car", "count": 1})  # not a model's
        client.post(f"{server.url}/chat/messages", json={"text": "hello"})
    assert asked.json()["usage"]["prompt_tokens"] == 1000
    assert [one.model_sent for one in producer.events] == ["gpt-4o"]


def test_a_client_that_is_metered_by_hand_counts_once(server: FakeServer, producer: UsageProducer) -> None:
    with UsageProducer(mode="memory", service="own") as own, metered(httpx2.Client(), producer=own, org="own") as http:
        openai.OpenAI(api_key=KEY, base_url=f"{server.url}/v1", http_client=http).chat.completions.create(
            model="gpt-4o", messages=ASK
        )
        assert [one.org_id for one in own.events] == ["own"]
    assert producer.events == []


def test_nothing_of_it_breaks_a_program(server: FakeServer, producer: UsageProducer) -> None:
    class Broken(UsageProducer):
        def record(self, *_: object, **__: object) -> str:
            raise RuntimeError("broken")

    instrument(producer=Broken(mode="memory"))
    with openai.OpenAI(api_key=KEY, base_url=f"{server.url}/v1") as client:
        assert client.chat.completions.create(model="gpt-4o", messages=ASK).usage is not None
    with pytest.raises(ValueError, match="no event field that a caller can fix: colour"):
        instrument(colour="red")
    uninstrument()
    with httpx2.Client() as http:
        assert "Metered" not in type(http._transport).__name__


def tollmeter_run(
    *command: str, folder: Path, options: tuple[str, ...] = (), **environment: str
) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tollmeter", "run", *options, "--", *command],
        env={**os.environ, **environment},
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


SHOW = "import httpx2, os, sys; print(type(httpx2.Client()._transport).__name__, os.environ['TOLLMETER_RUN_FIELDS'])"


def test_run_meters_a_program_and_those_that_it_starts(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('of the site')")
    (tmp_path / "app.py").write_text(f"{SHOW}\nimport subprocess\nsubprocess.run([sys.executable, 'part.py'])")
    (tmp_path / "part.py").write_text(SHOW)
    done = tollmeter_run(sys.executable, "app.py", folder=tmp_path, options=("--org", "acme"), PYTHONPATH=str(tmp_path))
    out, err = done.communicate(timeout=60)
    fields = json.dumps({"org": "acme", "service": "app"})
    assert (sorted(out.splitlines()), err, done.returncode) == (
        sorted([*["of the site"] * 3, *[f"MeteredTransport {fields}"] * 2]),  # `tollmeter` itself is the third
        "",
        0,
    )


def test_options_behind_the_command_are_the_commands_own(tmp_path: Path) -> None:
    show = [sys.executable, "-c", "import sys; print(sys.argv[1:])", "--org", "theirs", "--help"]
    command = [sys.executable, "-m", "tollmeter", "run", *show]  # without the two dashes
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("['--org', 'theirs', '--help']\n", 0), done.stderr


def test_run_hands_on_exit_codes_and_signals(tmp_path: Path) -> None:
    ended = tollmeter_run(sys.executable, "-c", "raise SystemExit(7)", folder=tmp_path)
    ended.communicate(timeout=60)
    assert ended.returncode == 7
    waiting = (
        "import signal; signal.signal(signal.SIGTERM, lambda *_: exit(42)); print('on', flush=True); signal.pause()"
    )
    running = tollmeter_run(sys.executable, "-c", waiting, folder=tmp_path)
    assert running.stdout is not None
    assert running.stdout.readline() == "on\n"
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=60)
    assert running.returncode == 42
    missing = tollmeter_run("no-such-command", folder=tmp_path)
    assert (missing.communicate()[1], missing.returncode) == ("tollmeter: no-such-command: no such command\n", 127)


def test_a_python_without_tollmeter_runs_unmetered_and_says_so(tmp_path: Path) -> None:
    base = Path(sys.base_prefix) / "bin" / "python3"
    if subprocess.run([base, "-c", "import tollmeter"], check=False, capture_output=True).returncode == 0:
        pytest.skip("this Python has it")
    done = tollmeter_run(str(base), "-c", "print('ran')", folder=tmp_path)
    out, err = done.communicate(timeout=60)
    assert (out, done.returncode) == ("ran\n", 0)
    assert "calls are not metered" in err
