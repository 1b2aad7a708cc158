"""The same calls as event fields, one dict each: what `encode` writes, for whoever reads them.

Slow, and for tests and small samples.
"""

from collections.abc import Iterator
from typing import Any

from tollmeter.schemas.codec import DEFAULTS
from tollmeter.traffic.calls import OUTCOMES, VARIANTS, Calls
from tollmeter.traffic.company import Caller, Company
from tollmeter.traffic.encode import PRODUCER, tier_of, units_of, uuids_of
from tollmeter.traffic.models import MODELS, Model


def fields_of(company: Company, calls: Calls) -> Iterator[dict[str, Any]]:
    """Yield the wire fields of each call, slowly: the reference of `encode_calls`, and what JSON producers send."""
    for i in range(len(calls)):
        caller, model = company.callers[int(calls.caller[i])], MODELS[int(calls.model[i])]
        yield {**DEFAULTS, **_identity(calls, i), **_origin(caller, int(calls.ip[i])), **_result(calls, i, model)}


def _identity(calls: Calls, i: int) -> dict[str, Any]:
    raw = calls.ids[i].tobytes()
    return {
        "event_id": uuids_of(calls.ids[i : i + 1, :16]).tobytes().decode(),
        "occurred_at": int(calls.at_us[i]),
        "request_id": raw[16:24].hex(),
        "provider_request_id": "call-" + raw[24:34].hex(),
        "session_id": raw[34:40].hex(),
        "prompt_hash": raw[40:48].hex(),
    }


def _origin(caller: Caller, ip: int) -> dict[str, Any]:
    return {
        "service": caller.service,
        "environment": caller.environment,
        "producer": PRODUCER,
        "org_id": caller.org,
        "group_id": caller.group,
        "user_id": caller.user,
        "agent": caller.agent,
        "feature": caller.feature,
        "api_key_id": caller.key,
        "billing_scope": caller.billing_scope,
        "client_ip": caller.ips[ip % len(caller.ips)],
        "tags": dict(caller.tags),
    }


def _result(calls: Calls, i: int, model: Model) -> dict[str, Any]:
    variant, outcome = VARIANTS[int(calls.variant[i])], OUTCOMES[int(calls.outcome[i])]
    answered, stream = outcome.status != "BLOCKED", variant.endswith("stream")
    return {
        "provider": model.provider,
        "api_host": model.host,
        "operation": model.operation,
        "model_sent": model.sent,
        "model_used": model.used,
        "service_tier": tier_of(model, variant),
        "stream": stream,
        "processing": "BATCH" if variant == "batch" else "REALTIME",
        "status": outcome.status,
        "http_status": outcome.http_status,
        "error_type": outcome.error_type,
        "usage_source": outcome.usage_source,
        "latency_ms": int(calls.latency_ms[i]) if answered else None,
        "ttft_ms": int(calls.ttft_ms[i]) if answered and stream else None,
        "input_tokens": int(calls.input[i]),
        "cache_read_tokens": int(calls.cache_read[i]),
        "cache_write_tokens": int(calls.cache_write[i]),
        "output_tokens": int(calls.output[i]),
        "reasoning_tokens": int(calls.reasoning[i]),
        "extra_units": units_of(model),
        "prompt_chars": int(calls.prompt_chars[i]),
    }
