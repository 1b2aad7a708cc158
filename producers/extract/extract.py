"""A provider's answer, whole or streamed, SDK object or dict, becomes usage events with inclusive counters.

One flow: answer → family → inclusive counters → event. Nothing of the answer raises; what is no count is flagged.
"""

import os
from collections.abc import AsyncIterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from tollmeter.producers.client.ids import Ids
from tollmeter.producers.extract.asked import completed, fields_of
from tollmeter.producers.extract.bodies import Body, answers_of
from tollmeter.producers.extract.clean import clean_text, clean_time, cleaned, with_tag
from tollmeter.producers.extract.families import read_usage
from tollmeter.producers.extract.served import names_of, provider_of
from tollmeter.producers.extract.streams import Merged
from tollmeter.producers.extract.totals import summed, with_others
from tollmeter.producers.extract.unbilled import is_unbilled
from tollmeter.producers.extract.usage import Part, Usage, get
from tollmeter.schemas.event import EPOCH, UsageEvent
from tollmeter.schemas.secrets import key_id, without_secrets

PROBLEM = "usage_problem"
"""Tag of an event: what stood where a count belongs and was none. Its usage is NONE."""

_LATENCY_LIMIT = timedelta(hours=1)
CHARS_A_TOKEN = 4
_SPEECH = "speech"
_ids = Ids()


def extract(
    response: object, *, provider: str | None = None, started_at: datetime | None = None, **fields: object
) -> UsageEvent:
    """Return the event of a finished call.

    `response` is what the call gave back: an SDK object, a body, a raw response, a LangChain message, or the chunks of
    a stream (list, iterator or iterable), read to its end. `started_at` selects price and window: the present if
    absent, UTC if it has no zone. `api_key` is hashed into `api_key_id` under `pepper` (TOLLMETER_PEPPER). `asked` are
    the arguments of the call: they tell what answers do not repeat (quality and size of images, a text to be spoken,
    the length of a video). Further keywords are fields of `UsageEvent` and win. The producer fills in the service.

    No usage in the answer, or what is no count, gives `usage_source` NONE; the tag `usage_problem` then says why. An
    answer of several models becomes one event here, whose cost is PARTIAL: `extract_all` returns one event for each,
    and none for a call that bills nothing. Raises ValueError only for a keyword that is no field of an event.
    """
    events = _events(response, provider, started_at, fields, apart=False)
    return events[0] if events else _event(Body({}, {}), Usage(stated=False), "", provider, started_at, fields)


def extract_all(
    response: object, *, provider: str | None = None, started_at: datetime | None = None, **fields: object
) -> tuple[UsageEvent, ...]:
    """Return the events of a call: one for each model that it used, one for each line of a batch, none for a call that
    bills nothing (counting tokens, listings, files). Takes and raises what `extract` does.
    """
    return _events(response, provider, started_at, fields, apart=True)


async def aextract_all(
    response: object, *, provider: str | None = None, started_at: datetime | None = None, **fields: object
) -> tuple[UsageEvent, ...]:
    """`extract_all` for async streams, which are read to their end; takes everything else, too."""
    if isinstance(response, AsyncIterable):
        response = [chunk async for chunk in response]
    return extract_all(response, provider=provider, started_at=started_at, **fields)


async def aextract(
    response: object, *, provider: str | None = None, started_at: datetime | None = None, **fields: object
) -> UsageEvent:
    """`extract` for async streams, which are read to their end; takes everything else, too."""
    if isinstance(response, AsyncIterable):
        response = [chunk async for chunk in response]
    return extract(response, provider=provider, started_at=started_at, **fields)


def _events(
    response: object, provider: str | None, started_at: datetime | None, fields: dict[str, Any], *, apart: bool
) -> tuple[UsageEvent, ...]:
    operation = str(fields.get("operation") or "")
    bodies = [body for body in answers_of(response) if not is_unbilled(body.content, operation)]
    events: list[UsageEvent] = []
    provider = clean_text(provider) if provider is not None else None
    for body in bodies:
        seller = provider or provider_of(body.content, response, str(fields.get("api_host") or ""))
        for content, model, usage in _parts(body.content, seller, apart):
            part = body._replace(content=content)
            events.append(_event(part, usage, model, seller, started_at, fields, bool(events)))
    if apart or len(events) < 2:
        return tuple(events)
    rest = [Part(event.model_used, _usage_of(event)) for event in events[1:]]
    return (_event(bodies[0], _joined(events, rest), "", provider or events[0].provider, started_at, fields),)


def _parts(body: object, provider: str, apart: bool) -> list[tuple[Any, str, Usage]]:
    """Return the usage of each model of an answer with what it said of itself; all in one where not `apart`.

    The model is "" where the answer is the model's own and names it.
    """
    own = _by_model(body, provider)
    content, first = own[0]
    others = [(answer, "", usage) for answer, usage in own[1:]]
    named = [(body, part.model, part.usage) for _, usage in own for part in usage.others if part.model]
    nameless = [part for _, usage in own for part in usage.others if not part.model]
    if nameless and not (first.stated or first.problem or others or named):  # a session that only writes down
        first, nameless = nameless[0].usage, nameless[1:]
    if apart:
        mine = [(content, "", with_others(first, nameless))]
        return [*(mine if _says_something(first) or not (others or named) else ()), *others, *named]
    rest = [Part(model, usage) for _, model, usage in (*others, *named)]
    return [(content, "", with_others(first, [*nameless, *rest]))]


def _says_something(usage: Usage) -> bool:
    """Say whether an answer used anything beside what its parts did."""
    return bool(usage.input_tokens or usage.output_tokens or usage.extra_units or usage.problem or not usage.stated)


def _by_model(body: object, provider: str) -> list[tuple[Any, Usage]]:
    """Return the answers of a stream by model, those of one model added up; in a usual stream there is but one."""
    if not isinstance(body, Merged) or len(body.answers) < 2:
        return [(body, read_usage(body, provider))]
    grouped: dict[str, list[Any]] = {}
    for answer in body.answers:
        grouped.setdefault(str(get(answer, "model", "modelVersion") or ""), []).append(answer)
    if len(grouped) == 1:
        return [(body, read_usage(body, provider))]
    return [(answers[-1], summed([read_usage(answer, provider) for answer in answers])) for answers in grouped.values()]


def _joined(events: Sequence[UsageEvent], rest: list[Part]) -> Usage:
    """Return one usage for several answers: their sum where one price holds for all, else the first and the rest."""
    keys = {(event.model_used, event.service_tier, event.region, event.operation) for event in events}
    usages = [_usage_of(event) for event in events]
    return summed(usages) if len(keys) == 1 else with_others(usages[0], rest)


def _usage_of(event: UsageEvent) -> Usage:
    return Usage(
        event.input_tokens,
        event.cache_read_tokens,
        event.cache_write_tokens,
        event.cache_write_1h_tokens,
        event.output_tokens,
        event.reasoning_tokens,
        dict(event.extra_units),
        event.reported_cost_nano,
        event.usage_source == "PROVIDER",
        event.operation,
        event.tags.get(PROBLEM, ""),
    )


def _event(
    body: Body,
    usage: Usage,
    model: str,
    provider: str | None,
    started_at: datetime | None,
    fields: dict[str, Any],
    further: bool = False,
) -> UsageEvent:
    """Return the event of one model's part of a call; `further` parts have ids of their own."""
    given = dict(fields)
    api_key, pepper, asked = (given.pop(name, None) for name in ("api_key", "pepper", "asked"))
    if isinstance(asked, Mapping):
        given = {**fields_of(asked, given), **given}
        usage = completed(usage, body.content, asked, str(given.get("model_sent") or model))
    pepper = pepper or os.environ.get("TOLLMETER_PEPPER")
    found = _answered(body, usage, provider or "", started_at, given)
    if model:
        found["model_used"] = model
    if api_key:
        found["api_key_id"] = key_id(api_key, pepper)
    if further:
        given.pop("event_id", None)
        given |= {name: model for name in ("model_sent", "model_used") if model}
    said = cleaned(without_secrets(given, pepper))  # what cannot be used leaves what the answer says
    made = {**cleaned(without_secrets(found, pepper)), **said}
    problem = usage.problem or body.problem
    if problem:
        made["tags"] = with_tag(made.get("tags", {}), PROBLEM, problem)
    made["model_sent"] = made.get("model_sent") or made.get("model_used", "")
    return _validated({**_required(found), **made})


def _answered(
    body: Body, usage: Usage, provider: str, started_at: datetime | None, given: Mapping[str, object]
) -> dict[str, Any]:
    """Return the fields that the answer itself tells."""
    event_id, now_us = _ids.next()
    now = EPOCH + timedelta(microseconds=now_us)
    began = _time(started_at)
    return {
        "event_id": event_id,
        "occurred_at": began or now,
        "service": "",
        "provider": provider,
        "status": body.status or _status(body.content),
        "latency_ms": _latency(began, now),
        "stream": body.streamed,
        **names_of(body.content, provider, given),
        **_floored(_counters(usage, given), body.content),
        **body.fields,
    }


def _required(found: Mapping[str, object]) -> dict[str, Any]:
    return {name: found[name] for name in ("event_id", "occurred_at", "service", "provider")}


def _validated(made: dict[str, Any]) -> UsageEvent:
    """Return the event; counts of a caller that exceed each other leave it without usage rather than raise."""
    try:
        return UsageEvent.model_validate(made)
    except ValueError as error:
        counters = {name: 0 for name in made if name.endswith("_tokens")}
        tags = with_tag(made.get("tags", {}), PROBLEM, str(error).splitlines()[-1].strip()[:80])
        kept = {**made, **counters, "tags": tags, "usage_source": "NONE", "extra_units": {}}
        try:
            return UsageEvent.model_validate(kept)
        except ValueError:
            names = ("event_id", "occurred_at", "service", "provider", "model_sent", "usage_source")
            fallback = {**{name: kept[name] for name in names}, "event_id": _ids.next()[0]}
            return UsageEvent.model_validate(fallback)


def _time(started_at: object) -> datetime | None:
    try:
        return clean_time(started_at)
    except Exception:
        return None


def _status(body: object) -> str:
    if isinstance(body, Merged):
        return body.status
    stated = get(body, "status")
    failed = stated == "failed" or (get(body, "error") is not None and get(body, "choices", "output", "usage") is None)
    return "ERROR" if failed else "CANCELLED" if stated == "cancelled" else "OK"


def _counters(usage: Usage, given: Mapping[str, object]) -> dict[str, Any]:
    if usage.problem or not usage.stated:
        spoken = _spoken(usage, given)
        return spoken or {"usage_source": "NONE"}
    return {
        "usage_source": "PROVIDER",
        "operation": usage.operation,
        "input_tokens": usage.input_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "extra_units": usage.extra_units,
        "reported_cost_nano": usage.reported_cost_nano,
    }


def _floored(counters: dict[str, Any], content: object) -> dict[str, Any]:
    """Return the counters of an answer that was cut off before its end told the output: a quarter of its characters."""
    if not (isinstance(content, Merged) and content.cut and counters["usage_source"] == "PROVIDER"):
        return counters
    seen = -(-content.chars // CHARS_A_TOKEN)
    return counters | {"usage_source": "ESTIMATED", "output_tokens": max(counters["output_tokens"], seen)}


def _spoken(usage: Usage, given: Mapping[str, object]) -> dict[str, Any]:
    """Speech comes as sound: what is billed by the character is the text that was sent (OpenAI's tts-1)."""
    chars = given.get("prompt_chars")
    model = str(given.get("model_sent") or "")
    if given.get("operation") != _SPEECH or usage.problem or not model.startswith("tts-"):
        return {}
    if not isinstance(chars, int) or isinstance(chars, bool) or chars <= 0:
        return {}
    return {"usage_source": "PROVIDER", "operation": _SPEECH, "extra_units": {"input_characters": float(chars)}}


def _latency(started_at: datetime | None, now: datetime) -> int | None:
    """Return the milliseconds since the start; None for a start so long ago that this is no live call."""
    if started_at is None or not timedelta(0) <= now - started_at < _LATENCY_LIMIT:
        return None
    return (now - started_at) // timedelta(milliseconds=1)
