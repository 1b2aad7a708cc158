"""What others' senders really send: LiteLLM's callbacks, run in a process of their own, and CloudEvents on the wire."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.serving import KEYS, Serving, events
from tests.workers import Workers
from tollmeter.settings import Settings

pytestmark = pytest.mark.stack
COUNTS = {"model": "gpt-4o", "prompt_tokens": 1_000, "completion_tokens": 200, "total_tokens": 1_200}
LITELLM = """
import asyncio, sys
import litellm
from litellm.integrations.generic_api.generic_api_callback import GenericAPILogger
from litellm.integrations.openmeter import OpenMeterLogger

ASK = dict(model="gpt-4o", messages=[{"role": "user", "content": "my secret prompt"}], api_key="x", user="ann")

class OpenMeter(OpenMeterLogger):
    sent = 0

    async def async_log_success_event(self, *of_call, **more):
        await super().async_log_success_event(*of_call, **more)
        self.sent += 1

async def main():
    # on a busy machine it would send in between
    generic = GenericAPILogger(log_format=sys.argv[1], flush_interval=3600)
    meter = OpenMeter() if sys.argv[1] == "json_array" else None
    litellm.callbacks = [generic, meter] if meter else [generic]
    await litellm.acompletion(mock_response="hello", **ASK)
    async for _ in await litellm.acompletion(mock_response="hello", stream=True, **ASK):
        pass
    await litellm.aembedding(model="text-embedding-3-small", input="hi", mock_response=[0.1], api_key="x")
    try:
        await litellm.acompletion(mock_response=Exception("boom"), **ASK)
    except Exception:
        pass
    while len(generic.log_queue) < 4:
        await asyncio.sleep(0.05)
    await generic.flush_queue()
    while meter and meter.sent < 2:
        await asyncio.sleep(0.05)

asyncio.run(main())
"""


@pytest.fixture
def serving(workers: Workers, tmp_path: Path) -> Serving:
    return Serving(workers, tmp_path / "spool")


@pytest.mark.parametrize("log_format", ["json_array", "ndjson", "single"])
def test_litellm(serving: Serving, line: Settings, log_format: str) -> None:
    pytest.importorskip("litellm")
    with serving.start() as client:
        environment = {
            "PATH": "/usr/bin:/bin",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "GENERIC_LOGGER_ENDPOINT": f"{serving.url}/ingest/litellm",
            "GENERIC_LOGGER_HEADERS": f"X-Ingest-Key={KEYS['INGEST_KEY']}",
            "OPENMETER_API_ENDPOINT": serving.url,
            "OPENMETER_API_KEY": KEYS["INGEST_KEY"],
        }
        command = [sys.executable, "-c", LITELLM, log_format]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, done.stderr[-2_000:]
        counted = client.get("/metrics", headers={"x-api-key": KEYS["API_KEY"], "x-ingest-key": ""}).json()["counters"]
        assert (counted["ingest_success"], counted["ingest_duplicate"]) == (4 + 2 * (log_format == "json_array"), 0)
    found = events(line)
    assert "my secret prompt" not in json.dumps(found)
    calls = [event for event in found if event["service"] == "litellm"]
    seen = sorted(
        (event["operation"], event["status"], event["stream"], event["input_tokens"] > 0, event["usage_source"])
        for event in calls
    )
    assert seen == [
        ("chat", "ERROR", False, False, "NONE"),
        ("chat", "OK", False, True, "PROVIDER"),
        ("chat", "OK", True, True, "PROVIDER"),
        ("embeddings", "OK", False, True, "PROVIDER"),
    ]
    assert {event["user_id"] for event in calls if event["operation"] == "chat"} == {"ann"}
    assert all(event["provider"] == "openai" and event["request_id"] for event in calls)
    [plain] = [event for event in calls if event["input_tokens"] == 10 and event["output_tokens"] == 20]
    assert plain["reported_cost_nano"] == 225_000


def test_a_litellm_above_a_limit_is_asked_to_come_again(serving: Serving) -> None:
    payload = {**COUNTS, "status": "success", "call_type": "completion", "startTime": 1.0, "litellm_call_id": "1"}
    with serving.start(MACHINE_RPM="1", MACHINE_BURST="1") as client:
        assert client.post("/ingest/litellm", json=[payload]).status_code == 400  # 1970 is no time of a call
        answer = client.post("/ingest/litellm", json=[payload])
        assert (answer.status_code, answer.json()["code"]) == (503, "rate_limited")
        assert int(answer.headers["retry-after"]) >= 1


def envelope(identity: str, **more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "type": "llm", "id": identity, "source": "kong", "subject": "ann"} | more


def test_cloudevents_in_their_three_forms(serving: Serving, line: Settings) -> None:
    structured = {"content-type": "application/cloudevents+json; charset=utf-8"}
    binary = {f"ce-{name}": value for name, value in envelope("3").items()} | {"content-type": "application/json"}
    batch = [envelope("4", data=COUNTS), envelope("5", data={"value": 1}), envelope("1", data=COUNTS)]
    with serving.start() as client:
        for _ in range(2):
            assert client.post("/api/v1/events", json=envelope("1", data=COUNTS), headers=structured).status_code == 204
        assert client.post("/api/v1/events", json=envelope("2", data=COUNTS)).status_code == 204
        assert client.post("/api/v1/events", json=COUNTS, headers=binary).status_code == 204
        kind = {"content-type": "application/cloudevents-batch+json"}
        assert client.post("/api/v1/events", json=batch, headers=kind).status_code == 204
        bad = [envelope("6", data=COUNTS), {"specversion": "1.0"}]
        answer = client.post("/api/v1/events", json=bad, headers=kind)
        assert (answer.status_code, answer.json()["code"]) == (400, "partly_rejected")
        assert (answer.json()["accepted"], answer.json()["results"][0]["i"]) == (1, 1)
        answer = client.post("/api/v1/events", content=b"<x/>", headers={"content-type": "text/xml"})
        assert (answer.status_code, answer.json()["code"]) == (415, "unknown_media_type")
    found = events(line)
    assert len(found) == 5
    assert {(event["user_id"], event["service"], event["input_tokens"]) for event in found} == {("ann", "kong", 1_000)}
