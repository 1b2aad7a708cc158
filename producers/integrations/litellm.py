"""For LiteLLM in a program of one's own: `litellm.callbacks = [TollmeterLogger(producer)]`.

LiteLLM's proxy sends its calls over HTTP instead (`/ingest/litellm`). The id is made of LiteLLM's own: a call that
is told twice, to the hooks of both kinds, is one event. What LiteLLM's own cache answered is no call.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from litellm.integrations.custom_logger import CustomLogger

from tollmeter.producers.http.meter import faults, said
from tollmeter.producers.integrations.recording import Recording
from tollmeter.producers.telemetry.facts import id_of
from tollmeter.producers.telemetry.names import provider_named

Document = Mapping[str, Any]


class TollmeterLogger(CustomLogger):  # type: ignore[misc]  # the library is not type-checked here
    """Records each call of `litellm.completion` and its kin. Keywords are event fields of every call."""

    def __init__(self, producer: Recording, **fields: object) -> None:
        super().__init__()
        self._producer, self._fields = producer, fields

    def log_success_event(
        self, kwargs: Document, response_obj: object, start_time: datetime, end_time: datetime
    ) -> None:
        self._record(kwargs, response_obj, start_time, end_time)

    async def async_log_success_event(
        self, kwargs: Document, response_obj: object, start_time: datetime, end_time: datetime
    ) -> None:
        self._record(kwargs, response_obj, start_time, end_time)

    def log_failure_event(
        self, kwargs: Document, response_obj: object, start_time: datetime, end_time: datetime
    ) -> None:
        self._record(kwargs, {}, start_time, end_time, failed=True)

    async def async_log_failure_event(
        self, kwargs: Document, response_obj: object, start_time: datetime, end_time: datetime
    ) -> None:
        self._record(kwargs, {}, start_time, end_time, failed=True)

    def _record(
        self, kwargs: Document, answer: object, began: datetime, ended: datetime, *, failed: bool = False
    ) -> None:
        try:
            payload = kwargs.get("standard_logging_object") or {}
            if payload.get("cache_hit") is not True:
                fields = _fields(payload, kwargs, began, ended, failed=failed)
                self._producer.record_response(answer, **{**fields, **self._fields})
        except Exception as error:
            faults.warn("a call of litellm was not recorded: %s", said(error))


def _fields(payload: Document, kwargs: Document, began: datetime, ended: datetime, *, failed: bool) -> dict[str, Any]:
    """Return what LiteLLM says of a call beside the provider's answer."""
    call_id = payload.get("litellm_call_id") or kwargs.get("litellm_call_id") or ""
    metadata = payload.get("metadata") or {}
    error = payload.get("error_information") or {}
    status = str(error.get("error_code") or "")
    named = str(payload.get("custom_llm_provider") or kwargs.get("custom_llm_provider") or "")
    began = began.astimezone()  # LiteLLM's times are local and have no zone
    fields = {
        "event_id": id_of(f"litellm {call_id} {payload.get('id')} {failed} {began.timestamp()}"),
        "started_at": began,
        "latency_ms": max(0, round((ended.astimezone() - began).total_seconds() * 1_000)),
        "provider": provider_named(named) or None,
        "model_sent": str(payload.get("model") or kwargs.get("model") or ""),
        "request_id": call_id,
        "trace_id": payload.get("trace_id"),
        "session_id": payload.get("session_id"),
        "user_id": metadata.get("user_api_key_user_id") or payload.get("end_user") or kwargs.get("user"),
        "stream": bool(payload.get("stream")),
        "asked": kwargs.get("optional_params"),
    }
    if failed:
        fields |= {
            "status": "ERROR",
            "error_type": error.get("error_class"),
            "http_status": int(status) if status.isdecimal() and len(status) == 3 else None,
        }
    return {name: value for name, value in fields.items() if value not in (None, "")}
