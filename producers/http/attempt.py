"""One HTTP attempt: checked before it is sent, watched while it is answered, recorded once however it ends.

Nothing here reaches the caller but a refusal: a fault of the meter is logged and the call goes on unmetered. An SDK's
retry is an attempt of its own with an event of its own, because each may be billed; tag `retry` says which it was.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tollmeter.producers.client import scope
from tollmeter.producers.client.ids import Ids
from tollmeter.producers.extract.extract import extract_all
from tollmeter.producers.extract.served import provider_of, region_of
from tollmeter.producers.extract.usage import get
from tollmeter.producers.guard.decision import Deny
from tollmeter.producers.guard.prices import Quote
from tollmeter.producers.http import estimates
from tollmeter.producers.http.answer import REFUSED, Answer
from tollmeter.producers.http.asking import by_path, check, count_prompt, known_fields
from tollmeter.producers.http.interfaces import Refusal, Request
from tollmeter.producers.http.meter import HTTP_ERROR, NOT_SENT, Meter, faults, said
from tollmeter.producers.http.quote import price_of
from tollmeter.producers.http.refused import content
from tollmeter.producers.http.request import Asked, is_surely_call, read_request
from tollmeter.producers.http.response import Reader
from tollmeter.schemas.event import MAX_TOKENS, UsageEvent

UNFINISHED = ("queued", "in_progress")
BACKGROUND_S = 900.0
"""So long the usage of an answer in the background is waited for."""
UNTOLD = "process_ended"
"""Error type of a call of whose end its process could not tell."""
_HEADERS = {
    "provider_request_id": ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id"),
    "service_tier": ("x-gemini-service-tier", "x-amzn-bedrock-service-tier"),
}
"""Where the headers of an answer say what its body may leave out."""
_ids = Ids()


def begin(meter: Meter, request: Request) -> "Attempt | None":
    """Return the attempt to watch; None for a request that calls no model, or when the meter itself fails."""
    try:
        encoding = request.headers.get("content-encoding", "")
        wanted = read_request(request.path, request.headers.get("content-type", ""), request.content, encoding)
        if wanted is None or (meter.surely and not is_surely_call(request.host, request.path, wanted.model)):
            return None
        return Attempt(meter, request, wanted)
    except Exception as error:
        faults.warn("metering failed, the call itself is unaffected: %s", said(error))
        return None


class Attempt:
    """The life of one attempt: `refusal`, then `opened`, `feed` ..., and `done`."""

    def __init__(self, meter: Meter, request: Request, wanted: Asked) -> None:
        self._meter, self._request, self.wanted = meter, request, wanted
        self._scope = scope.current()
        self._fields = known_fields(meter, request, self._scope)
        self._provider = str(self._fields.pop("provider", None) or meter.provider or by_path(request, wanted))
        event_id, _ = _ids.next()
        self._fields.setdefault("request_id", event_id)
        self.answer = Answer(self._fields["request_id"], event_id)
        self._started, self._began = datetime.now(UTC), time.perf_counter()
        self._prompt_tokens = count_prompt(meter, request, wanted)
        self.deny: Deny | None = None
        self.instead = ""
        """The model that must be sent in place of the one in the request; "" for that one."""
        self._estimate_nano: int | None = None
        self._reservation: Any = None
        self._status: int | None = None
        self._ttft_ms: int | None = None
        self._headers: dict[str, str] = {}
        self._reader: Reader | None = None
        self.over = False
        self.when_over: Callable[[Attempt], None] | None = None
        self.held = False
        """It is over, and its event waits to be recorded: its usage may still become known."""
        self._others: list[UsageEvent] = []
        """Events of what other models did within the call."""

    # ------------------------------------------------------------------ before

    def refusal(self) -> Refusal | None:
        """Ask the guard; None when the call may go. A refused call is over: its event is recorded."""
        about = {
            **self._fields,
            "event_id": self.answer.event_id,
            "prompt_tokens": max(self._prompt_tokens, self.wanted.weight),
            "provider": self._provider or provider_of({}, None, self._request.host),
            "api_host": self._request.host,
        }
        decision = check(self._meter, self._request, self.wanted, about, self._scope)
        if isinstance(decision, Deny):
            return self._refused(decision)
        if decision is not None:
            self._reservation, self._estimate_nano = decision.reservation, decision.est_nano
            self._downgrade(decision.downgrade_to)
        return None

    def _downgrade(self, model: str) -> None:
        """Call this model in place of the one that was asked for; "" is that one."""
        if model:
            self._fields.setdefault("fallback_from", self.wanted.model)
            self.answer.model_asked, self.answer.model_sent = self.wanted.model, model
            self.instead, self.wanted = model, replace(self.wanted, model=model)

    def _refused(self, deny: Deny) -> Refusal:
        self.deny = deny
        self._status, self.over = deny.http_status, True
        self.answer.refuse(deny.event_id)
        if not deny.event_id:  # a guard that has a producer tells of its refusals itself
            self._finish({"status": "BLOCKED", "error_type": deny.error[:256], "billed": False})
        headers = {
            "content-type": "application/json",
            "x-should-retry": "false",  # the SDKs would ask again at once
            REFUSED: deny.error,
            **deny.headers,
            **self.answer.headers(),
        }
        return Refusal(deny.http_status, headers, content(deny, self._request.path))

    # ------------------------------------------------------------------ while

    @property
    def whole(self) -> bool:
        """Whether the answer is to be read before it is handed on, so that its headers can tell the cost."""
        return self._reader is not None and not self.wanted.stream and not self._reader.problem

    @property
    def ended(self) -> bool:
        """Whether the answer has said, so far, that it is complete."""
        return self._reader is not None and self._reader.ended

    def opened(self, http_status: int, headers: Mapping[str, str]) -> None:
        """The answer has begun. Never raises."""
        self._status = http_status
        with suppress(Exception):
            for name, known in _HEADERS.items():
                self._headers[name] = next((headers[place] for place in known if headers.get(place)), "")
            self._reader = Reader(headers.get("content-type", ""), headers.get("content-encoding", ""))

    def feed(self, data: bytes) -> None:
        """Bytes of the answer pass. Never raises."""
        if self._ttft_ms is None:
            self._ttft_ms = self._elapsed_ms()
        if self._reader is not None:
            self._reader.feed(data)

    def done(self, error: BaseException | None = None, *, to_its_end: bool = False) -> None:
        """The attempt is over: with an error, read to its end, or closed by the caller. Counts once; never raises."""
        if self.over:
            return
        self.abandon()
        try:
            if self._reader is not None:
                self._reader.finish()
            self._finish(self._outcome(error, to_its_end))
        except Exception as error:
            faults.warn("metering failed, the call itself is unaffected: %s", said(error))

    def abandon(self) -> None:
        """It is over, and whoever else has it records it."""
        self.over = True
        if self.when_over is not None:
            self.when_over(self)

    # ------------------------------------------------------------------ after

    def _outcome(self, error: BaseException | None, to_its_end: bool) -> dict[str, Any]:
        """Return status, error and whether usage may be missing; the answer says the rest."""
        if error is not None:
            status, name = ("ERROR" if isinstance(error, Exception) else "CANCELLED"), type(error).__name__
            return {"status": status, "error_type": name, "billed": name not in NOT_SENT}
        reader = self._reader
        if reader is None or self._status is None or self._status >= HTTP_ERROR:
            return {"status": "ERROR", "error_type": _error_type(reader.body if reader else {}), "billed": False}
        if reader.failed:
            return {"status": "ERROR", "error_type": _error_type(reader.body) or "stream", "billed": True}
        unread = bool(reader.problem) or not self.wanted.stream
        ended = reader.ended or (to_its_end and unread)
        return {"status": "OK" if ended else "CANCELLED", "billed": True}

    def _finish(self, outcome: dict[str, Any]) -> None:
        billed = outcome.pop("billed")
        if self._status is not None and 300 <= self._status < HTTP_ERROR:
            if self._reservation is not None:  # a redirect: the attempt that follows is the call
                self._reservation.release()
            return
        events = self._counted(outcome, billed)
        if not events:  # tokens were counted, files listed: nothing is billed and nothing recorded
            if self._reservation is not None:
                self._reservation.release()
            return
        event, *self._others = events
        wait_s = self._wait_s(event)
        if wait_s > 0 and event.provider_request_id:
            self._tell(event)
            self.held = True
            self._meter.holding.hold(event, wait_s, self._conclude)
        else:
            self._conclude(event, billed=billed)

    def begun(self) -> dict[str, object]:
        """Return the fields of the event as they would be if this process ended before any answer."""
        host = self._request.host
        return {
            **self._given({"status": "CANCELLED", "error_type": UNTOLD, "usage_source": "ESTIMATED"}),
            "occurred_at": self._started,
            "provider": self._provider or provider_of({}, None, host),
            "region": region_of(host),
            "input_tokens": min(self._prompt_tokens, MAX_TOKENS),
        }

    def so_far(self) -> list[UsageEvent]:
        """Return the events as they would be if this process ended now: what a write-ahead file keeps meanwhile."""
        outcome = {"status": "OK"} if self.ended else {"status": "CANCELLED", "error_type": UNTOLD}
        return self._counted(outcome, billed=True)

    def _counted(self, outcome: Mapping[str, Any], billed: bool) -> list[UsageEvent]:
        """Return the events with what is known of usage; where it is billed and not stated whole, with an estimate."""
        events = self._events(outcome)
        if events and billed and (outcome["status"], events[0].usage_source) != ("OK", "PROVIDER"):
            chars = self._reader.chars if self._reader else 0
            guess = estimates.filled(events[0], self._prompt_tokens, estimates.tokens(chars))
            events[0] = events[0].model_copy(update=guess)
        return events

    def _wait_s(self, event: UsageEvent) -> float:
        """Return how long usage may still become known: an answer that is to be fetched later has only begun."""
        if event.usage_source != "ESTIMATED":
            return 0.0
        unfinished = get(self._reader.body if self._reader else {}, "status") in UNFINISHED
        return max(self._meter.hold_s, BACKGROUND_S if unfinished else 0.0)

    def _conclude(self, event: UsageEvent, billed: bool = True) -> None:
        """The event is as good as it gets: settle and record it."""
        self._settle(event, self._tell(event), billed)
        if self._meter.guard is not None and event.model_used:
            self._meter.guard.answered(event.model_sent, event.model_used, event.provider, event.api_host)
        if self._meter.producer is not None:
            for one in (event, *self._others):
                self._meter.producer.record(one)

    def _tell(self, event: UsageEvent) -> Quote:
        quote = price_of(event, self._meter.guard, self._others)
        self.answer.fill(event, quote.nano, quote.status)
        return quote

    def _events(self, outcome: Mapping[str, Any]) -> list[UsageEvent]:
        """Return one event for each model of the answer; none for a call that bills nothing."""
        body = self._reader.body if self._reader else {}
        fields = self._given(outcome)
        events = extract_all(body, started_at=self._started, provider=self._provider or None, **fields)
        return [estimates.with_variant(self._told(event), self.wanted.image) for event in events]

    def _given(self, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that the answer's body does not say."""
        return {
            "event_id": self.answer.event_id,
            "model_sent": self.wanted.model,
            "http_status": self._status,
            "latency_ms": self._elapsed_ms(),
            "ttft_ms": self._ttft_ms if self.wanted.stream else None,
            "prompt_chars": self.wanted.prompt_chars,
            "api_host": self._request.host,
            "stream": self.wanted.stream,
            "operation": self.wanted.operation,
            "est_cost_nano": self._estimate_nano,
            **self._fields,
            **outcome,
        }

    def _told(self, event: UsageEvent) -> UsageEvent:
        """Return the event with what the headers of the answer say and its body does not."""
        told = {name: text[:256] for name, text in self._headers.items() if text and not getattr(event, name)}
        return event.model_copy(update=told) if told else event

    def _settle(self, event: UsageEvent, quote: Quote, billed: bool) -> None:
        """Give the guard the real amount for its estimate; for an unknown price what it may be at most."""
        if self._reservation is None:
            return
        if billed:
            tokens = sum(one.input_tokens + one.output_tokens for one in (event, *self._others))
            self._reservation.settle(quote.worst_nano, tokens)
        else:
            self._reservation.release()

    def _elapsed_ms(self) -> int:
        return round((time.perf_counter() - self._began) * 1_000)


def _error_type(body: object) -> str:
    found = get(body, "error.code", "error.type", "error.status", "error")
    return str(found)[:256] if isinstance(found, str | int) else ""
