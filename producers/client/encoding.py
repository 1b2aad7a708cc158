"""What was recorded becomes the bytes on the wire: defaults filled in, secrets out, validated, then Avro."""

from collections.abc import Mapping
from datetime import timedelta

from pydantic import ValidationError

from tollmeter.producers.client.queue import Entry
from tollmeter.schemas import codec
from tollmeter.schemas.event import EPOCH, UsageEvent
from tollmeter.schemas.secrets import without_secrets
from tollmeter.schemas.texts import clean_tags, clean_text
from tollmeter.schemas.times import EXPECTED, is_number, micros_of

MAX_EVENT_BYTES = 65_536
_TEXTS = frozenset(name for name, field in UsageEvent.model_fields.items() if field.annotation is str) - {"event_id"}


class RefusedError(ValueError):
    """The event cannot be sent; the text names the field and what is wrong, and never carries its value."""


def build(entry: Entry, defaults: Mapping[str, object], pepper: str = "") -> UsageEvent:
    """Return the event of an entry. A field given for the call wins over the event's, which wins over the defaults."""
    values = dict(defaults)
    if entry.event is not None:
        given = {name: getattr(entry.event, name) for name in entry.event.model_fields_set}
        values.update({name: value for name, value in given.items() if value != "" or name not in defaults})
    values.update(entry.fields)
    values["event_id"] = entry.event_id
    values["occurred_at"] = _moment(entry.occurred_at)
    # A service passes on what it has: None means "not known", which our texts say with "".
    known = {name: _fit(name, value) for name, value in values.items() if value is not None}
    try:
        return UsageEvent.model_validate(without_secrets(known, pepper or None))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "counters"
        raise RefusedError(f"{where}: {first['msg']}") from None


def _moment(at: object) -> object:
    """Return the time that a number means by its magnitude; what is no number as it is. Raises `RefusedError`."""
    if isinstance(at, bool) or not (isinstance(at, int | float) or (isinstance(at, str) and is_number(at))):
        return at
    moment = micros_of(at)
    if moment is None:
        raise RefusedError(f"occurred_at: {EXPECTED}")
    return EPOCH + timedelta(microseconds=moment)


def _fit(name: str, value: object) -> object:
    """Return a value as an event can hold it: what services pass on of their users must not cost the event."""
    if name in _TEXTS:
        return clean_text(value)
    return clean_tags(value) if name == "tags" else value


def to_bytes(event: UsageEvent) -> bytes:
    """Return the event in Avro single-object encoding. Raises `RefusedError` beyond 64 KiB."""
    data = codec.encode(event)
    if len(data) > MAX_EVENT_BYTES:
        raise RefusedError(f"event: {len(data)} bytes; at most {MAX_EVENT_BYTES} are sent")
    return data
