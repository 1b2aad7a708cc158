"""OTLP/HTTP in JSON: read by typed structures that skip what no event needs, so prompts never become objects of ours.

Ids are hex and 64-bit integers may be text, as https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding says
(1.9, 2026-11-29). Each span and record is read by itself: a damaged one is refused and its neighbours stay.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from tollmeter.producers.telemetry.names import MOST_OWN, OWN, SLOTS, Slot, own_slot
from tollmeter.producers.telemetry.reading import Damaged, LogRecord, Scalar, Span, UnreadableError, record_name

_TRACE_ID, _SPAN_ID = re.compile(r"[0-9a-fA-F]{32}"), re.compile(r"[0-9a-fA-F]{16}")
_ERROR = (2, "STATUS_CODE_ERROR")


class Value(Struct, gc=False):
    stringValue: str | None = None  # noqa: N815  # the wire's names
    intValue: int | str | None = None  # noqa: N815
    doubleValue: float | str | None = None  # noqa: N815
    boolValue: bool | None = None  # noqa: N815


class Attribute(Struct, gc=False):
    key: str = ""
    value: Value | None = None


class Resource(Struct, gc=False):
    attributes: list[Attribute] | None = None


class Status(Struct, gc=False):
    code: int | str | None = None


class SpanBody(Struct, gc=False):
    traceId: str = ""  # noqa: N815
    spanId: str = ""  # noqa: N815
    parentSpanId: str | None = None  # noqa: N815
    startTimeUnixNano: int | str = 0  # noqa: N815
    endTimeUnixNano: int | str = 0  # noqa: N815
    attributes: list[Attribute] | None = None
    status: Status | None = None


class RecordBody(Struct, gc=False):
    timeUnixNano: int | str = 0  # noqa: N815
    observedTimeUnixNano: int | str = 0  # noqa: N815
    eventName: str | None = None  # noqa: N815
    body: Raw = Raw(b"null")
    attributes: list[Attribute] | None = None


class Scope(Struct, gc=False):
    name: str | None = None


class ScopeSpans(Struct, gc=False):
    scope: Scope | None = None
    spans: list[Raw] | None = None


class ScopeLogs(Struct, gc=False):
    logRecords: list[Raw] | None = None  # noqa: N815


class ResourceSpans(Struct, gc=False):
    resource: Resource | None = None
    scopeSpans: list[ScopeSpans] | None = None  # noqa: N815


class ResourceLogs(Struct, gc=False):
    resource: Resource | None = None
    scopeLogs: list[ScopeLogs] | None = None  # noqa: N815


class Traces(Struct, gc=False):
    resourceSpans: list[ResourceSpans] | None = None  # noqa: N815


class Logs(Struct, gc=False):
    resourceLogs: list[ResourceLogs] | None = None  # noqa: N815


Document = TypeVar("Document", Traces, Logs)
_traces, _logs = msgspec.json.Decoder(Traces), msgspec.json.Decoder(Logs)
_span = msgspec.json.Decoder(SpanBody)
_record = msgspec.json.Decoder(RecordBody)
_value = msgspec.json.Decoder(Value)


def spans(body: bytes) -> Iterator[Span | Damaged]:
    """Yield the spans of an ExportTraceServiceRequest. Raises `UnreadableError`."""
    for nth, group in enumerate(_document(_traces, body).resourceSpans or ()):
        resource = _resource_facts(group.resource, SLOTS)
        for scope_nth, scope in enumerate(group.scopeSpans or ()):
            where = f"resourceSpans[{nth}].scopeSpans[{scope_nth}].spans"
            teller = (scope.scope and scope.scope.name) or ""
            for place, raw in enumerate(scope.spans or ()):
                yield _span_of(f"{where}[{place}]", teller, raw, resource)


def records(body: bytes, slots: Mapping[str, Slot]) -> Iterator[LogRecord | Damaged]:
    """Yield the records of an ExportLogsServiceRequest; `slots` say which attributes matter. Raises as `spans` does."""
    for nth, group in enumerate(_document(_logs, body).resourceLogs or ()):
        resource = _resource_facts(group.resource, slots)
        for scope_nth, scope in enumerate(group.scopeLogs or ()):
            where = f"resourceLogs[{nth}].scopeLogs[{scope_nth}].logRecords"
            for place, raw in enumerate(scope.logRecords or ()):
                yield _record_of(f"{where}[{place}]", raw, resource, slots)


def _document(decoder: msgspec.json.Decoder[Document], body: bytes) -> Document:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnreadableError(f"not OTLP in JSON: {str(error)[:120]}") from None
    except RecursionError:
        raise UnreadableError("not OTLP in JSON: nested too deeply") from None


def _span_of(place: str, teller: str, raw: Raw, resource: dict[str, Scalar]) -> Span | Damaged:
    try:
        body = _span.decode(raw)
        return Span(
            place,
            teller,
            body.traceId.lower() if _TRACE_ID.fullmatch(body.traceId) else "",
            body.spanId.lower() if _SPAN_ID.fullmatch(body.spanId) else "",
            (body.parentSpanId or "").lower(),
            _nanoseconds(body.startTimeUnixNano),
            _nanoseconds(body.endTimeUnixNano),
            body.status is not None and body.status.code in _ERROR,
            walk(body.attributes or (), SLOTS, resource),
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Damaged(place, _damage(error))


def _record_of(place: str, raw: Raw, resource: dict[str, Scalar], slots: Mapping[str, Slot]) -> LogRecord | Damaged:
    try:
        body = _record.decode(raw)
        facts = walk(body.attributes or (), slots, resource)
        at = _nanoseconds(body.timeUnixNano) or _nanoseconds(body.observedTimeUnixNano)
        name = record_name(facts.get("event_name"), body.eventName or "", _text(body.body))
        return LogRecord(place, name, at, facts)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Damaged(place, _damage(error))


def _damage(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]


def _text(raw: Raw) -> str:
    """Return a short text that is the whole body: some agents name the event there."""
    if len(memoryview(raw)) > 200:
        return ""
    try:
        return _value.decode(raw).stringValue or ""
    except msgspec.MsgspecError:
        return ""


def _nanoseconds(value: int | str) -> int:
    if isinstance(value, int):
        return value
    return int(value) if len(value) < 21 and value.isdecimal() else 0


def _integer(text: str) -> Scalar:
    """Return the number that a text of digits is; the text where its first character is neither digit nor sign."""
    return int(text) if text[0] in "-0123456789" else text


def _resource_facts(resource: Resource | None, slots: Mapping[str, Slot]) -> dict[str, Scalar]:
    """Return what the attributes of a resource say."""
    return walk(resource.attributes or (), slots, {}) if resource is not None else {}


def walk(attributes: Iterable[Attribute], slots: Mapping[str, Slot], above: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return what `facts_of` would, in one loop: a call for each attribute would cost a twentieth of a span."""
    facts = dict(above)
    ranks: dict[str, int] = {}
    for attribute in attributes:
        key = attribute.key
        slot = slots.get(key)
        if slot is None:
            if not key.startswith(OWN) or len(facts) > MOST_OWN:
                continue
            slot = own_slot(key)
            facts[OWN] = True
        meaning, rank = slot
        if rank and ranks.get(meaning, rank) < rank:
            continue
        value = attribute.value
        if value is None:
            continue
        found: Scalar | None = value.stringValue
        if found is None:
            found = value.intValue
            if type(found) is str and len(found) < 20 and (found.isdecimal() or found[1:].isdecimal()):
                found = _integer(found)
            elif found is None:
                found = value.doubleValue if value.doubleValue is not None else value.boolValue
        if found is not None and found != "":
            facts[meaning], ranks[meaning] = found, rank
    return facts
