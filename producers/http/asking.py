"""What is known of a call before its answer: by its request, by its caller's scope, and by what the client fixed."""

from contextlib import suppress
from typing import Any

from tollmeter.producers.client.scope import Scope
from tollmeter.producers.extract.served import PROVIDER_HOSTS
from tollmeter.producers.guard.decision import Allow, Deny
from tollmeter.producers.http import estimates
from tollmeter.producers.http.interfaces import Request, key_of
from tollmeter.producers.http.meter import Meter, faults, said
from tollmeter.producers.http.models import UNREADABLE
from tollmeter.producers.http.request import Asked
from tollmeter.schemas.texts import worst_count


def known_fields(meter: Meter, request: Request, scope: Scope) -> dict[str, Any]:
    """Return the event fields known before the answer: the scope's win over the client's, ours fill the gaps."""
    found = {**meter.fields, **scope.fields}
    key = key_of(request)
    producer = meter.producer
    if producer is not None and key:
        found.setdefault("api_key_id", producer.key_id(key))
        found.setdefault("prompt_hash", producer.key_id(request.content))
    retry = request.headers.get("x-stainless-retry-count", "0")
    if retry.isdigit() and retry != "0":
        found["tags"] = {**found.get("tags", {}), "retry": retry[:9]}
    return found


def check(meter: Meter, request: Request, wanted: Asked, about: dict[str, object], scope: Scope) -> Allow | Deny | None:
    """Return what the guard decides; None when it fails, or there is none: the call goes on unchecked.

    Another model may be named in place of the one that was asked for where the request can be written for it.
    """
    if meter.guard is None:
        return None
    asking = question(wanted, about, scope)
    try:
        readable = bool(wanted.model.strip()) and UNREADABLE not in wanted.models
        asking["downgrades"] = readable and (meter.signs_anew or not _signed(request))
        return meter.guard.check(wanted.model, **asking)
    except Exception as error:
        faults.warn("the guard failed, the call goes on unchecked: %s", said(error))
        return None


def _signed(request: Request) -> bool:
    """Say whether the caller signed path and body (AWS): written anew they would be refused."""
    return request.headers.get("authorization", "").lower().startswith("aws4-") or "x-amz-signature" in (
        request.query.lower()
    )


def question(wanted: Asked, about: dict[str, object], scope: Scope) -> dict[str, object]:
    """Return what the guard must know; names of event fields that it has no use for go into a refusal's event."""
    known = dict(about)
    renamed = {"user": "user_id", "org": "org_id"}
    asking = {name: known.pop(field_, "") for name, field_ in renamed.items()}
    return {
        **known,
        **asking,
        "prompt_chars": wanted.prompt_chars,
        "max_output_tokens": wanted.max_output_tokens,
        "answers": wanted.answers,
        "service_tier": known.get("service_tier") or wanted.service_tier,
        "groups": scope.groups,
        "counted": scope.counted,
        "models": wanted.models,
        "operation": wanted.operation,
        "stream": wanted.stream,
    }


def by_path(request: Request, wanted: Asked) -> str:
    """Return the provider that the path tells, where the host tells none."""
    known = any(request.host.partition(":")[0].endswith(host) for host, _ in PROVIDER_HOSTS)
    return "" if known else wanted.provider


def count_prompt(meter: Meter, request: Request, wanted: Asked) -> int:
    """Return the tokens of the prompt: by the client's tokenizer, else a quarter of its characters."""
    if meter.tokenizer is not None:
        with suppress(Exception):
            return worst_count(meter.tokenizer(wanted.model, request.content)) or 0
    return estimates.tokens(wanted.prompt_chars)
