"""The doors `/v1/*` of a running server: what they answer, and the real senders in front of them."""

import gc
import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.contracts.test_server import KEYS, Serving, events
from tests.fake_provider import serving as answering
from tests.otlp_bodies import CURRENT, body_of, logs, record, span, traces
from tests.unit.test_telemetry import CLAUDE, CODEX
from tests.workers import Workers
from tollmeter.settings import Settings

pytestmark = [pytest.mark.stack, pytest.mark.filterwarnings("ignore")]  # the libraries' own
PROTOBUF = {"content-type": "application/x-protobuf"}


@pytest.fixture
def serving(workers: Workers, tmp_path: Path) -> Serving:
    return Serving(workers, tmp_path / "spool")


@pytest.fixture(autouse=True)
def _leave_nothing_open() -> Iterator[None]:
    """The libraries keep clients whose sockets only the garbage collector closes."""
    yield
    gc.collect()


def now(spans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    at = time.time_ns()
    return [one | {"startTimeUnixNano": str(at), "endTimeUnixNano": str(at + 10**9)} for one in spans]


def test_what_the_doors_answer(serving: Serving, line: Settings) -> None:
    bad = now([span(9, attributes={"gen_ai.operation.name": "chat"})])
    calls = now([span(1, attributes=CURRENT), span(2, attributes={"http.method": "GET"})])
    with serving.start() as client:
        whole = client.post("/v1/traces", json=traces(calls))
        assert (whole.status_code, whole.json(), whole.headers["content-type"]) == (
            200,
            {"partialSuccess": {}},
            "application/json",
        )
        packed = gzip.compress(body_of(traces([*calls, *bad]), "protobuf"))
        partly = client.post("/v1/traces", content=packed, headers=PROTOBUF | {"content-encoding": "gzip"})
        told = ExportTraceServiceResponse.FromString(partly.content).partial_success
        assert (partly.status_code, partly.headers["content-type"], told.rejected_spans) == (
            200,
            "application/x-protobuf",
            1,
        )
        assert told.error_message == "resourceSpans[0].scopeSpans[0].spans[2]: gen_ai.request.model: missing"
        unknown = now([span(3, attributes=CURRENT | {"gen_ai.operation.name": "dream"})])
        assert "not known" in client.post("/v1/traces", json=traces(unknown)).json()["partialSuccess"]["errorMessage"]
        record_ = record(CODEX, timeUnixNano=str(time.time_ns()))
        taken = client.post("/v1/logs", content=body_of(logs([record_]), "protobuf"), headers=PROTOBUF)
        assert (taken.status_code, taken.content) == (200, ExportLogsServiceResponse().SerializeToString())
        assert client.post("/v1/metrics", content=b"anything", headers=PROTOBUF).status_code == 200
        refused(client)
    assert sorted((one["provider"], one["input_tokens"]) for one in events(line)) == [
        ("openai", 900),
        ("openai", 1_000),
    ]


def refused(client: httpx.Client) -> None:
    """What is no request of OTLP gets a status and a sentence."""
    for content, headers, status, words in (
        (b"{", {"content-type": "application/json"}, 400, "not OTLP in JSON"),
        (b"\x0a\xff\xff", PROTOBUF, 400, "not OTLP in protobuf"),
        (b"a=b", {"content-type": "text/plain"}, 415, "OTLP over HTTP is"),
        (b"{}", {"content-type": "application/json", "x-ingest-key": "wrong"}, 401, ""),
    ):
        answer = client.post("/v1/traces", content=content, headers=headers)
        assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text


def test_of_a_key_that_may_not_set_identity_no_user_is_believed(serving: Serving, line: Settings) -> None:
    with serving.start(INGEST_MAY_SET_IDENTITY="false") as client:
        said = CURRENT | {"user.id": "ann", "tollmeter.org_id": "theirs", "tollmeter.group_id": "g"}
        assert client.post("/v1/traces", json=traces(now([span(1, attributes=said)]))).status_code == 200
    (event,) = events(line)
    assert (event["org_id"], event["user_id"], event["group_id"]) == ("default", "", "")


def pydantic_ai(provider: str, tracer_provider: TracerProvider) -> None:
    from pydantic_ai import Agent, InstrumentationSettings
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel("gpt-4o", provider=OpenAIProvider(base_url=provider, api_key="none"))
    agent = Agent(model, name="helper")
    agent.instrument = InstrumentationSettings(tracer_provider=tracer_provider)
    agent.run_sync("a secret question")


def litellm_otel(provider: str, tracer_provider: TracerProvider) -> None:
    import litellm
    from litellm.integrations.opentelemetry import OpenTelemetry, OpenTelemetryConfig

    litellm.callbacks = [OpenTelemetry(config=OpenTelemetryConfig(exporter="console"), tracer_provider=tracer_provider)]
    ask: Any = {"messages": [{"role": "user", "content": "a secret question"}], "api_key": "none"}
    try:
        litellm.completion(model="openai/gpt-4o", api_base=provider, **ask)
    finally:
        litellm.callbacks = []


def test_real_senders(serving: Serving, line: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with serving.start(), answering() as provider:
        headers = {"x-ingest-key": KEYS["INGEST_KEY"]}
        exporter = OTLPSpanExporter(f"{serving.url}/v1/traces", headers=headers, compression=Compression.Gzip)
        tracers = TracerProvider(resource=Resource({"service.name": "shop", "tollmeter.feature": "search"}))
        tracers.add_span_processor(SimpleSpanProcessor(exporter))
        for sender in (pydantic_ai, litellm_otel):
            sender(f"{provider.url}/v1", tracers)
        agent_records(serving.url, headers)
        tracers.shutdown()
    found = sorted(events(line), key=lambda one: str(one["provider"]), reverse=True)
    assert [
        (one["provider"], one["model_sent"], one["input_tokens"], one["output_tokens"], one["feature"]) for one in found
    ] == [
        ("openai", "gpt-4o", 1_000, 300, "search"),
        ("openai", "gpt-4o", 1_000, 300, "search"),
        ("anthropic", CLAUDE["model"], 2_600, 70, ""),
    ]
    assert found[2]["tags"] == {"repository": "shop"}
    assert "secret question" not in json.dumps(found, default=str)


def agent_records(url: str, headers: dict[str, str]) -> None:
    """Send a record as Claude Code does, and a metric, which counts nowhere."""
    resource = Resource({"service.name": "claude-code", "repository": "shop"})
    loggers = LoggerProvider(resource=resource)
    loggers.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(f"{url}/v1/logs", headers=headers)))
    loggers.get_logger("com.anthropic.claude_code.events").emit(
        timestamp=time.time_ns(),
        severity_number=SeverityNumber.INFO,
        body="claude_code.api_request",
        attributes=CLAUDE,
    )
    loggers.shutdown()
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{url}/v1/metrics", headers=headers))
    meters = MeterProvider(metric_readers=[reader])
    meters.get_meter("claude_code").create_counter("claude_code.token.usage").add(2_670)
    assert meters.force_flush()
    meters.shutdown()
