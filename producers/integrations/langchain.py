"""For LangChain and LangGraph: `model.invoke(..., config={"callbacks": [TollmeterHandler(producer)]})`.

Each run of a model is one event under the run's own id. What LangChain's cache answered is no call.
"""

import threading
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult

from tollmeter.producers.client import scope
from tollmeter.producers.extract.served import generations
from tollmeter.producers.extract.usage import get
from tollmeter.producers.http.meter import faults, said
from tollmeter.producers.integrations.recording import Recording

RUNNING = 10_000
"""Runs kept until they end; of more than so many the oldest is told without its start."""


class _Run(NamedTuple):
    began: datetime
    clock: float
    model: str
    fields: dict[str, Any]


class TollmeterHandler(BaseCallbackHandler):  # type: ignore[misc]  # the library is not type-checked here
    """Records each run of a chat model or LLM. Keywords are event fields of every call."""

    def __init__(self, producer: Recording, **fields: object) -> None:
        self._producer, self._fields = producer, fields
        self._running: OrderedDict[UUID, _Run] = OrderedDict()
        self._lock = threading.Lock()

    def on_chat_model_start(self, serialized: object, messages: object, *, run_id: UUID, **known: object) -> None:
        self._begin(run_id, known)

    def on_llm_start(self, serialized: object, prompts: object, *, run_id: UUID, **known: object) -> None:
        self._begin(run_id, known)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **known: object) -> None:
        if not _cached(response):
            self._end(run_id, response)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **known: object) -> None:
        status = getattr(error, "status_code", None)
        told = {"status": "ERROR", "error_type": type(error).__name__, "http_status": status}
        self._end(run_id, {}, **told)

    def _begin(self, run_id: UUID, known: dict[str, Any]) -> None:
        try:
            model = get(known, *(f"invocation_params.{name}" for name in ("model", "model_name", "model_id"))) or ""
            session = get(known, "metadata.session_id", "metadata.thread_id")
            fields = {**({"session_id": str(session)} if session else {}), **scope.current().fields}
            with self._lock:
                self._running[run_id] = _Run(datetime.now(UTC), time.perf_counter(), str(model), fields)
                if len(self._running) > RUNNING:
                    self._running.popitem(last=False)
        except Exception as error:
            faults.warn("a run of langchain was not seen to begin: %s", said(error))

    def _end(self, run_id: UUID, answer: object, **told: object) -> None:
        try:
            with self._lock:
                run = self._running.pop(run_id, None)
            fields: dict[str, Any] = {"event_id": str(run_id), "request_id": str(run_id), **told}
            if run is not None:
                took = round((time.perf_counter() - run.clock) * 1_000)
                fields |= {"started_at": run.began, "latency_ms": took, "model_sent": run.model, **run.fields}
            self._producer.record_response(answer, **{**fields, **self._fields})
        except Exception as error:
            faults.warn("a run of langchain was not recorded: %s", said(error))


def _cached(response: LLMResult) -> bool:
    """LangChain marks what its cache answered by a cost of nothing, with the usage of the first time."""
    messages = generations(response)
    return bool(messages) and all(get(message, "usage_metadata.total_cost") == 0 for message in messages)
