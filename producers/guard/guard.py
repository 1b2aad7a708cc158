"""Before the call: allow or deny, in microseconds, without the network. Limits refuse; a fault of the guard never does.

Order: blocks (403), allowed models (403), cap on one call (402 or 429), rate limits (429), budgets. A call on the
user's own key (`billing_scope="USER"`) is not asked for budgets nor for rules about models other than its key's: it
passes before its user is looked up. Blocks, rate limits and the cap hold for it as for any call. A free model passes
budgets of money. A model without a price is estimated by the dearest of its family, else of its provider; where there
is neither, the estimate is None: by setting the call passes (open, the default) or is refused (closed).
"""

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tollmeter.producers.client.client import UsageProducer, state_folder
from tollmeter.producers.client.destinations import RateLimited
from tollmeter.producers.client.lookup import Lookup
from tollmeter.producers.client.spool import target_name
from tollmeter.producers.guard import refusals
from tollmeter.producers.guard.accounts import Reservation, overshoot_bound
from tollmeter.producers.guard.alert_queue import AlertQueue
from tollmeter.producers.guard.buckets import HostBuckets
from tollmeter.producers.guard.decide import Decider
from tollmeter.producers.guard.decision import NANO_PER_USD, Allow, CallRefused, CostLimitExceeded, Deny
from tollmeter.producers.guard.prices import UNPRICED, Quote
from tollmeter.producers.guard.question import Question
from tollmeter.producers.guard.reader import Reader
from tollmeter.producers.guard.snapshot import Snapshot, Source
from tollmeter.schemas.addresses import caller_form
from tollmeter.schemas.event import MAX_TOKENS
from tollmeter.schemas.texts import clean_text, worst_count
from tollmeter.schemas.topics import POLICIES
from tollmeter.settings import Settings

__all__ = [
    "Allow",
    "CallRefused",
    "CostLimitExceeded",
    "Deny",
    "Guard",
    "Question",
    "Quote",
    "Reservation",
    "overshoot_bound",
]

log = logging.getLogger("tollmeter.guard")

Mode = Literal["kafka", "disabled", "memory"]
Tokenizer = Callable[[str, str], int]
"""Returns how many tokens a prompt is for a model: (prompt, model) -> tokens."""


class Guard:
    """Decides about calls. One per process is enough; share it between threads and with async code.

    Settings come from TOLLMETER_* (see `.env.example`), as for `UsageProducer`; `max_usd` overrides the cap. Refusals
    are recorded by `producer` as events of status BLOCKED and cost 0. Modes: `kafka` reads prices, policies and spend
    on a thread of its own; `memory` knows what it is fed by `apply`, for tests; `disabled` allows everything. A fork is
    safe: the child keeps what was known and begins with nothing in flight.
    """

    def __init__(
        self,
        brokers: str | None = None,
        *,
        producer: UsageProducer | None = None,
        mode: Mode = "kafka",
        max_usd: float | None = None,
        tokenizer: Tokenizer | None = None,
        settings: Settings | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        if mode not in ("kafka", "disabled", "memory"):
            raise ValueError(f"mode is {mode!r}; it can be kafka, disabled or memory")
        self._lookup = Lookup(settings, brokers)
        self.settings, _ = self._lookup.now()
        self.mode: Mode = mode
        self._producer = producer
        self._tokenizer = tokenizer
        self._max_nano = round((self.settings.max_usd if max_usd is None else max_usd) * NANO_PER_USD)
        self._output_tokens = self.settings.guard_output_tokens
        self._known = Snapshot(self.settings, wall_ns, monotonic_ns, self._buckets() if mode == "kafka" else None)
        self._known.loaded = mode == "memory"
        self._decider = Decider(self._known, self.settings, self._max_nano, monotonic_ns, trusting=mode == "memory")
        self._faults = RateLimited()
        self._begin()
        _guards.add(self)

    def __repr__(self) -> str:
        return f"Guard(mode={self.mode!r}, brokers={self.settings.kafka!r}, max_usd={self._max_nano / NANO_PER_USD})"

    def _buckets(self) -> HostBuckets | None:
        """Return where all processes of this user on this machine count; None without a folder on disk."""
        folder = self.settings.spool_dir or state_folder()
        target = target_name(self.settings.kafka, self.settings.topic(POLICIES))
        return HostBuckets(Path(folder) / f"{target}.rates") if folder else None

    def _begin(self) -> None:
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._alerts = AlertQueue()
        self._reader = Reader(self._lookup, self._known, self._alerts)

    def check(self, model: str, **about: object) -> Allow | Deny:
        """Decide about one call; never raises, never waits for anything slow.

        Keywords are the fields of `Question`: prompt_chars, prompt_tokens or prompt, max_output_tokens, org, user,
        groups, api_key_id, client_ip, provider, agent, feature, session_id, trace_id, tags, billing_scope, counted,
        models, downgrades, service_tier. Further ones (service, request_id ...) go into the event of a refusal.
        """
        if self.mode == "disabled":
            return Allow(None, Reservation(None), "")
        try:
            if self._thread is None and self.mode == "kafka":
                self._start()
            question = Question.of(model, about)
            decided = self._decider.decide(question, self._prompt_tokens(question), self._output(question))
        except Exception as error:
            self._faults.warn("a call was not checked: %s", f"{type(error).__name__}: {error}")
            return Allow(None, Reservation(None), "", stale=True)
        if isinstance(decided, Deny):
            self._tell(decided, question.event_fields())
        return decided

    def _output(self, question: Question) -> int:
        if question.max_output_tokens is not None:
            return question.max_output_tokens
        return min(self._output_tokens * max(question.answers or 1, 1), MAX_TOKENS)

    def admit(
        self,
        *,
        org: str = "",
        user: str = "",
        api_key_id: str = "",
        client_ip: str = "",
        kept_ip: str | None = None,
        **event: object,
    ) -> Deny | None:
        """Decide about a request at an application's door, before any model is named; never raises.

        Blocks and rate limits alone; None lets it in. `kept_ip` is what events keep of the address, where they keep
        less than the whole of it.
        """
        if self.mode == "disabled":
            return None
        try:
            if self._thread is None and self.mode == "kafka":
                self._start()
            org, user, api_key_id, client_ip = map(clean_text, (org, user, api_key_id, client_ip))
            kept = caller_form(client_ip) if kept_ip is None else clean_text(kept_ip)
            deny = self._decider.admit(org, user, api_key_id, client_ip, kept)
        except Exception as error:
            self._faults.warn("a request was not checked: %s", f"{type(error).__name__}: {error}")
            return None
        if deny is not None:
            caller = {"org_id": org, "user_id": user, "api_key_id": api_key_id, "client_ip": kept}
            self._tell(deny, {"model_sent": "", "provider": "", **caller, **event})
        return deny

    def _prompt_tokens(self, question: Question) -> int:
        if question.prompt_tokens is not None:
            return question.prompt_tokens
        prompt = question.prompt
        chars = len(prompt or "") if question.prompt_chars is None else question.prompt_chars
        if prompt is not None and self._tokenizer is not None:
            try:
                return worst_count(self._tokenizer(prompt, question.model)) or 0
            except Exception as error:  # the application's own code: the decision does not depend on it
                self._faults.warn("the tokenizer failed: %s", type(error).__name__)
        return -(-chars // 4)

    def _tell(self, deny: Deny, fields: dict[str, Any]) -> None:
        """Record a refusal; it stands, whether that works or not."""
        try:
            self._refused(deny, fields)
        except Exception as error:
            self._faults.warn("a refusal was not recorded: %s", f"{type(error).__name__}: {error}")

    def _refused(self, deny: Deny, fields: dict[str, Any]) -> None:
        """Record the refusal as an event of cost 0, and tell those who follow alerts."""
        if self._producer is not None:
            fields.setdefault("feature", None)
            deny.event_id = self._producer.record(
                **{name: value for name, value in fields.items() if value is not None},
                status="BLOCKED",
                http_status=deny.http_status,
                error_type=deny.error,
                usage_source="NONE",
            )
        caller = {"user": fields["user_id"], "api_key": fields["api_key_id"], "client_ip": fields["client_ip"]}
        alert = refusals.alert_of(deny, fields["org_id"] or "", caller, self._known.clock.wall_ms())
        if alert is not None:
            self._alerts.put(alert)

    # ------------------------------------------------------------------ what is known

    def apply(self, source: Source, key: bytes | str | None, value: bytes | None) -> bool:
        """Take over a record of `usage.prices`, `usage.policies` or `usage.spend`; False when it cannot be read."""
        return self._known.apply(source, key, value)

    def quote(self, provider: str, model: str, **counts: int) -> Quote:
        """Price a finished call by its reported counts (input_tokens, cache_read_tokens, output_tokens ...)."""
        prices = self._known.prices
        return UNPRICED if prices is None else prices.quote(provider, model, counts)

    def answered(self, sent: str, by: str, provider: str = "", api_host: str = "") -> None:
        """Say which model has answered to a name: an alias or a deployment is counted, and limited, as that then.

        Never raises. Metered clients and the proxy say it by themselves.
        """
        prices = self._known.prices
        if prices is not None:
            try:
                names = map(clean_text, (provider, api_host, sent, by))
                self._known.answers.learn(prices, *names)
            except Exception as error:
                self._faults.warn("an answer was not noted: %s", type(error).__name__)

    @property
    def staleness_s(self) -> float:
        """Age of what is known of spend, the oldest partition's; infinite while nothing is."""
        found = self._known.staleness_ms()
        return float("inf") if found is None else found / 1_000

    def ready(self, timeout: float = 10.0) -> bool:
        """Wait until prices, policies and spend have been read once; False when they have not in time."""
        if self.mode == "kafka" and self._thread is None:
            self._start()
        return self.mode != "kafka" or self._reader.ready.wait(timeout)

    @property
    def problem(self) -> str:
        """Why nothing new is heard at present; "" when there is no problem."""
        return self._reader.problem

    def close(self, timeout: float = 5.0) -> None:
        """End the thread. May be called twice; checks go on with what is known."""
        self._reader.close()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._reader.run, name="tollmeter-guard", daemon=True)
                thread.start()
                self._thread = thread

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


_guards: "weakref.WeakSet[Guard]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """The parent's thread and reservations stay with the parent; what is known of prices and limits is kept."""
    for guard in list(_guards):
        guard._begin()
        guard._known.after_fork()


def _at_exit() -> None:
    for guard in list(_guards):
        guard.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
