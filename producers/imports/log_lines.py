"""`openai_usage` log lines out and in, and the wrappers that log stores put around them. Pure; the same line read twice
gives the same event id, so importing a file again adds nothing. Money goes through decimals, never through floats.

A line has eleven fields, severity INFO and milliseconds. Further fields say what those cannot: `status` of a call that
was refused, failed or broken off, `provider` where the name of the model does not tell it.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import NAMESPACE_OID, NAMESPACE_URL, uuid5

from pydantic import ValidationError

from tollmeter.producers.extract.usage import usd_to_nano
from tollmeter.schemas.addresses import caller_form
from tollmeter.schemas.event import EPOCH, UsageEvent, micros
from tollmeter.schemas.money import NANO_PER_USD
from tollmeter.schemas.secrets import without_secrets
from tollmeter.schemas.times import EXPECTED, is_number, micros_of

LINE_TYPE = "openai_usage"
SERVICE = "openai_usage"
_PRODUCER = "openai_usage-log"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_STATUS = frozenset({"OK", "ERROR", "BLOCKED", "CANCELLED"})
_REFUSALS = frozenset({"cost_cap", "blocked", "rate_limited", "budget_exceeded"})
"""What an `error` of a line says when the call was refused before it was made."""
_MAKERS = (("claude", "anthropic"), ("gemini", "google"), ("mistral", "mistral"), ("deepseek", "deepseek"))
_DEFAULT_PROVIDER = "openai"


def to_line(event: UsageEvent, est_cost: Decimal | int | float | str | None = None) -> dict[str, Any]:
    """Return the log line of an event. `est_cost` in USD; the event's reported cost when it is left out."""
    if est_cost is None and event.reported_cost_nano is not None:
        est_cost = Decimal(event.reported_cost_nano) / NANO_PER_USD
    line: dict[str, Any] = {
        "t": LINE_TYPE,
        "severity": "INFO",
        "request_id": event.request_id,
        "client_ip": event.client_ip or None,
        "model_sent": event.model_sent,
        "model_used": event.model_used,
        "prompt_chars": event.prompt_chars,
        "usage": {"prompt_tokens": event.input_tokens, "output_tokens": event.output_tokens},
        "est_cost": None if est_cost is None else float(est_cost),
        "api_key_id": event.api_key_id,
        "timestamp": event.occurred_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    if event.status not in ("OK", "UNKNOWN"):
        line["status"] = event.status
    if event.provider != provider_of(event.model_used or event.model_sent):
        line["provider"] = event.provider
    return line


def unwrap(obj: Mapping[str, object]) -> tuple[dict[str, Any], str]:
    """Return the line within a Cloud Logging entry (`jsonPayload`, or `textPayload` with JSON) and its insertId.

    What is a bare line already is returned as it is, with "". Missing fields of the line are taken from the entry.
    Raises ValueError when the entry holds no line.
    """
    payload = obj.get("jsonPayload")
    text = obj.get("textPayload")
    if payload is None and isinstance(text, str):
        payload = parse(text[text.find("{") :] if "{" in text else text)
    if payload is None:
        if "insertId" in obj and "usage" not in obj:
            raise ValueError("log entry: neither jsonPayload nor a textPayload with JSON")
        return dict(obj), str(obj.get("insertId") or "")
    if not isinstance(payload, Mapping):
        raise ValueError("log entry: its payload is no JSON object")
    line = dict(payload)
    for name in ("timestamp", "severity"):
        if line.get(name) is None and obj.get(name) is not None:
            line[name] = obj[name]
    return line, str(obj.get("insertId") or "")


def parse(text: str) -> object:
    """Parse one JSON document with its numbers as exact decimals. Raises ValueError in one line."""
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("not JSON: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None


def is_line(obj: Mapping[str, object]) -> bool:
    """Say whether a parsed object is an `openai_usage` line, bare or wrapped."""
    inner = obj.get("jsonPayload", obj)
    text = obj.get("textPayload")
    wrapped = isinstance(text, str) and f'"{LINE_TYPE}"' in text
    return wrapped or (isinstance(inner, Mapping) and inner.get("t") == LINE_TYPE)


def from_line(obj: Mapping[str, Any], *, pepper: str | None = None, **fields: Any) -> UsageEvent:
    """Return the event of a line, bare or wrapped. Keywords (org_id=..., service=...) fill in what lines do not carry.

    `est_cost` becomes `reported_cost_nano`, of a refused call `est_cost_nano`; one that is no amount is left out
    (`unread_cost` tells). Without an `event_id` of its own the id is made from the insertId, else from the whole line.
    Raises ValueError naming the field and what is wrong with it.
    """
    line, insert_id = unwrap(obj)
    if line.get("t", LINE_TYPE) != LINE_TYPE:
        raise ValueError(f"t: {str(line['t'])[:32]!r} is not {LINE_TYPE!r}")
    found = {
        "service": SERVICE,
        "producer": _PRODUCER,
        "event_id": _event_id(line, insert_id),
        "occurred_at": _time(line.get("timestamp")),
        "request_id": _text(line, "request_id"),
        "client_ip": _address(line.get("client_ip")),
        "model_sent": _text(line, "model_sent") or _text(line, "model_used"),
        "model_used": _text(line, "model_used"),
        "api_key_id": _text(line, "api_key_id"),
        "prompt_chars": _whole(line.get("prompt_chars"), "prompt_chars"),
        **_outcome(line),
        **fields,
    }
    if not found["model_sent"]:
        raise ValueError("model_sent: missing")
    named = _text(line, "provider") or provider_of(found["model_used"] or found["model_sent"])
    found.setdefault("provider", named)
    try:
        return UsageEvent.model_validate(without_secrets(found, pepper))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'counters'}: {first['msg']}") from None


def unread_cost(obj: Mapping[str, object]) -> str:
    """Say what is wrong with the `est_cost` of a line that `from_line` takes; "" when it is an amount or absent."""
    value = unwrap(obj)[0].get("est_cost")
    if value is None or usd_to_nano(value) is not None:
        return ""
    return f"est_cost: {str(value)[:40]!r} is not an amount in USD between 0 and 1000"


def _outcome(line: Mapping[str, object]) -> dict[str, Any]:
    """Return status, usage and cost. A refused call used nothing, whatever was estimated for it."""
    status = _status(line)
    cost_nano = None if line.get("est_cost") is None else usd_to_nano(line["est_cost"])
    if status == "BLOCKED":
        return {"status": status, "usage_source": "NONE", "est_cost_nano": cost_nano}
    usage = line.get("usage") or {}
    if not isinstance(usage, Mapping):
        raise ValueError("usage: not an object")
    prompt = _count(usage, "prompt_tokens", "input_tokens")
    output = _count(usage, "output_tokens", "completion_tokens")
    nothing = not prompt and not output and (status == "ERROR" or (prompt is None and output is None))
    return {
        "status": status,
        "usage_source": "NONE" if nothing else "PROVIDER",
        "input_tokens": prompt or 0,
        "output_tokens": output or 0,
        "reported_cost_nano": cost_nano,
    }


def _status(line: Mapping[str, object]) -> str:
    said = str(line.get("status") or "").upper()
    if said in _STATUS:
        return said
    if line.get("blocked") is True or str(line.get("error") or "").lower() in _REFUSALS:
        return "BLOCKED"
    return "ERROR" if line.get("severity") in ("ERROR", "CRITICAL") else "OK"


def provider_of(model: str) -> str:
    """Return the maker that the name of a model tells; OpenAI unless it does."""
    name = model.lower()
    return next((maker for mark, maker in _MAKERS if mark in name), _DEFAULT_PROVIDER)


def _address(value: object) -> str:
    """Return the caller's address: of a list, as proxies write it, the first."""
    if isinstance(value, list):
        value = value[0] if value else None
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError("client_ip: not text")
    return caller_form(value.partition(",")[0])


def _event_id(line: Mapping[str, object], insert_id: str) -> str:
    own = line.get("event_id")
    if isinstance(own, str) and _UUID.fullmatch(own.lower()):
        return own.lower()
    if insert_id:
        return str(uuid5(NAMESPACE_URL, f"insertId:{insert_id}"))
    text = json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)
    return str(uuid5(NAMESPACE_OID, text))


def _plain(value: object) -> float | str:
    """Spell a decimal as the same float, so that one line has one id however it was parsed."""
    return float(value) if isinstance(value, Decimal) else str(value)


def _time(value: object) -> datetime:
    if value is None:
        raise ValueError("timestamp: missing")
    if isinstance(value, int | float | Decimal | str) and not isinstance(value, bool) and is_number(str(value)):
        if (since_us := micros_of(str(value))) is None:
            raise ValueError(f"timestamp: {str(value)[:40]} is {EXPECTED}")
        return EPOCH + timedelta(microseconds=since_us)
    if not isinstance(value, str):
        raise ValueError(f"timestamp: {type(value).__name__}, neither text nor a number")
    # Log stores write nanoseconds; Python reads six digits.
    text = re.sub(r"(\.\d{6})\d+", r"\1", value.strip())
    try:
        at = datetime.fromisoformat(text)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        micros(at)
    except (ValueError, OverflowError):
        raise ValueError(f"timestamp: {value[:40]!r} is not a time like 2026-11-22T10:00:00Z") from None
    return at


def _count(usage: Mapping[str, object], *names: str) -> int | None:
    for name in names:
        if usage.get(name) is not None:
            return _whole(usage[name], f"usage.{name}")
    return None


def _whole(value: object, name: str) -> int | None:
    """Return a whole number; log stores turn 12 into 12.0 on the way."""
    if value is None:
        return None
    if not isinstance(value, bool) and isinstance(value, int | float | Decimal) and value == value // 1:
        return int(value)
    raise ValueError(f"{name}: {str(value)[:40]!r} is not a whole number")


def _text(line: Mapping[str, object], name: str) -> str:
    value = line.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name}: not text")
    return value


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no number")
