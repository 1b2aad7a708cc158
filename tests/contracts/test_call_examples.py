"""The examples around a call run as they are, against local providers and without a broker."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_provider import FakeServer, serving

ROOT = Path(__file__).resolve().parents[2]
SERVED_BY = """
import asyncio, json, sys
sys.path.insert(0, {root!r})
from examples.asgi_app import app
sent = []
async def send(message):
    sent.append(message)
request = {{"type": "http", "headers": [(b"x-user", b"ann"), (b"x-forwarded-for", b"203.0.113.7")],
            "client": ("127.0.0.1", 5)}}
asyncio.run(app(request, None, send))
start, body = sent
print(json.dumps([start["status"], dict(start["headers"])[b"x-request-id"].decode(), json.loads(body["body"])]))
"""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as running:
        yield running


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOLLMETER_")}
    offline = {"TOLLMETER_KAFKA": "127.0.0.1:1", "TOLLMETER_SPOOL_DIR": str(folder / "spool")}
    return subprocess.run(
        [sys.executable, *command],
        env={**inherited, **offline, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("down", ["", "openai", "openai and ollama"])
def test_fallback(down: str, server: FakeServer, tmp_path: Path) -> None:
    with serving() as ollama, serving() as gemini:
        server.down, ollama.down = "openai" in down, "ollama" in down
        done = run(
            tmp_path,
            str(ROOT / "examples" / "fallback.py"),
            OPENAI_API_KEY="sk-a",
            GEMINI_API_KEY="AIza-b",
            OPENAI_BASE_URL=f"{server.url}/v1",
            OLLAMA_HOST=ollama.url,
            GEMINI_BASE_URL=gemini.url,
        )
    assert done.returncode == 0, done.stderr
    expected = {
        "": "gpt-4o-mini: " + "hi" * 20,
        "openai": "llama3.2: hi there",
        "openai and ollama": "gemini-2.5-flash: hi",
    }
    assert done.stdout.strip() == expected[down]


def test_a_service_behind_the_door(server: FakeServer, tmp_path: Path) -> None:
    code = SERVED_BY.format(root=str(ROOT))
    done = run(tmp_path, "-c", code, OPENAI_API_KEY="sk-a", OPENAI_BASE_URL=f"{server.url}/v1")
    assert done.returncode == 0, done.stderr
    status, request_id, said = json.loads(done.stdout)
    assert (status, said) == (200, {"said": "hi" * 20})
    assert len(request_id) == 36
