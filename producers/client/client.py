"""`record()` never waits, never raises, and costs microseconds; what is slow or can fail happens on a thread behind it.

What survives what: an acknowledged event is in Kafka (acks=all); a spooled one is on disk and goes out later, with the
same id and time, even if this process dies. Events still in memory (normally the last few tens of milliseconds) are
lost with a kill -9; `flush()` waits for them, and so does every end in order: return, `sys.exit`, an exception, and the
end of a child of `multiprocessing`. `os._exit`, `os.exec*` and signals that nobody handles are none.
"""

import atexit
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tollmeter import __version__, stacks
from tollmeter.producers.client.destinations import RateLimited, Route
from tollmeter.producers.client.encoding import RefusedError, build, to_bytes
from tollmeter.producers.client.lookup import Lookup
from tollmeter.producers.client.queue import Counters, Entry, Outbox
from tollmeter.producers.client.sender import Sender
from tollmeter.producers.extract.extract import extract_all
from tollmeter.schemas.event import UsageEvent
from tollmeter.schemas.secrets import key_id
from tollmeter.settings import Settings

log = logging.getLogger("tollmeter.producer")

Mode = Literal["kafka", "disabled", "memory"]
SPOOL_BYTES = 256 * 1024 * 1024
EXIT_TIMEOUT_S = 5.0


class UsageProducer:
    """Publishes usage events. One per process is enough; share it between threads and with async code.

    `brokers` defaults to TOLLMETER_KAFKA, else to the stack that `tollmeter up` runs: that of TOLLMETER_DATA_DIR, of
    this folder or one above, or the only one of this user, also when it starts later or moves. Further keywords are
    defaults of every event (org_id="acme", environment="prod"). Modes: `kafka`; `disabled` does nothing; `memory` keeps
    validated events in `.events`, for the tests of the service. A fork is safe: the child starts with an empty queue
    and a thread of its own. `spool_bytes=0` turns the disk spool off.

    Raises `SettingsError` when the TOLLMETER_* variables are wrong; nothing else here ever raises.
    """

    def __init__(
        self,
        brokers: str | None = None,
        *,
        service: str | None = None,
        mode: Mode = "kafka",
        queue_size: int = 10_000,
        spool_dir: str | Path | None = None,
        spool_bytes: int = SPOOL_BYTES,
        settings: Settings | None = None,
        **defaults: object,
    ) -> None:
        if mode not in ("kafka", "disabled", "memory"):
            raise ValueError(f"mode is {mode!r}; it can be kafka, disabled or memory")
        lookup = Lookup(settings, brokers)
        settings, _ = lookup.now()
        self.mode: Mode = mode
        self.events: list[UsageEvent] = []
        self._defaults = {"producer": f"tollmeter-python/{__version__}", "service": service, **defaults}
        self._pepper = settings.pepper.get_secret_value()
        self._queue_size = queue_size
        settings.kafka_options()  # what is wrong with them is said here
        chosen = spool_dir or settings.spool_dir or state_folder()
        self._route = Route(lookup, Path(chosen) if chosen and spool_bytes > 0 else None, spool_bytes)
        self._invalid = RateLimited(60.0)
        self._begin()
        _producers.add(self)

    def __repr__(self) -> str:
        return f"UsageProducer(mode={self.mode!r}, brokers={self._route.lookup})"

    def _begin(self) -> None:
        self._outbox = Outbox(self._queue_size)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def record(self, event: UsageEvent | Sequence[UsageEvent] | None = None, /, **fields: object) -> str:
        """Take note of one call and return its event id; "" when it is refused (queue full, closed, disabled).

        Give an event (of `extract`), its fields, or both: fields win. Id and time are fixed here, once. Several events
        of one call (of `extract_all`) are recorded one by one, none as none; the id is then the first one's. An event
        that turns out to be invalid is counted and named in a warning; it never raises.
        """
        if isinstance(event, Sequence):
            ids = [self.record(one, **(fields if place == 0 else _further(fields))) for place, one in enumerate(event)]
            return ids[0] if ids else ""
        try:
            if self.mode == "kafka":
                if self._thread is None:
                    self._start()
                return self._outbox.put(event, fields)
            return self._keep(event, fields) if self.mode == "memory" else ""
        except Exception as error:
            self._outbox.add(invalid=1)
            self._invalid.warn("usage event refused: %s", type(error).__name__)
            return ""

    def record_response(self, response: object, /, **fields: Any) -> str:
        """`record(extract_all(response, ...))`, and nothing raises: what cannot be read is counted as invalid."""
        try:
            return self.record(extract_all(response, **{"pepper": self._pepper or None, **fields}))
        except Exception as error:
            self._outbox.add(invalid=1)
            self._invalid.warn("usage event refused: %s", type(error).__name__)
            return ""

    def key_id(self, secret: str | bytes) -> str:
        """Return the id under which events name a provider key: its hash under this producer's pepper."""
        return key_id(secret, self._pepper or None)

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until Kafka has acknowledged all that was recorded before; False when it has not in time.

        False does not mean lost: with a broker away the events are on disk. In async code: `await aflush()`.
        """
        return True if self.mode != "kafka" or self._thread is None else self._outbox.wait(timeout)

    async def aflush(self, timeout: float = 10.0) -> bool:  # noqa: ASYNC109 - the same promise as flush()
        """`flush` for async code: waits beside the event loop."""
        import asyncio

        return await asyncio.to_thread(self.flush, timeout)

    def close(self, timeout: float = EXIT_TIMEOUT_S) -> None:
        """Send what is left, or leave it on disk for the next process, and end the thread. May be called twice."""
        self._outbox.close(time.monotonic() + timeout)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout + 15.0)

    @property
    def counters(self) -> Counters:
        """What became of the events of this process."""
        return self._outbox.counters()

    @property
    def problem(self) -> str:
        """Why the broker cannot be reached at present; "" when it can, or nobody has tried."""
        return self._outbox.problem

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                sender = Sender(self._outbox, self._encode, self._route)
                thread = threading.Thread(target=sender.run, name="tollmeter-producer", daemon=True)
                thread.start()
                self._thread = thread

    def _encode(self, entry: Entry) -> bytes:
        return to_bytes(build(entry, self._defaults, self._pepper))

    def _keep(self, event: UsageEvent | None, fields: dict[str, Any]) -> str:
        event_id = self._outbox.put(event, fields)
        for entry in self._outbox.take(1):
            try:
                self.events.append(build(entry, self._defaults, self._pepper))
                self._outbox.add(acknowledged=1)
            except RefusedError as refused:
                self._outbox.add(invalid=1)
                self._invalid.warn("usage event refused: %s", refused)
                return ""
        return event_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        import asyncio

        await asyncio.to_thread(self.close)


def _further(fields: dict[str, Any]) -> dict[str, Any]:
    """Return what the caller said of the call, for an event of it beyond the first: that has an id of its own."""
    return {name: value for name, value in fields.items() if name not in ("event_id", "model_sent", "model_used")}


def flush_all(timeout: float) -> bool:
    """Flush every producer of this process within so many seconds; True when Kafka has all that they recorded."""
    end = time.monotonic() + timeout
    gone = [producer.flush(max(0.0, end - time.monotonic())) for producer in list(_producers)]
    return all(gone)


def state_folder() -> Path | None:
    """Return where a service keeps what must outlive it, unless it is told; None for a user without a home."""
    home = stacks.state_home()
    return home and home / "spool"


_producers: "weakref.WeakSet[UsageProducer]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """The parent's thread, queue and counters stay with the parent; the child begins empty."""
    for producer in list(_producers):
        producer.events = list(producer.events)
        producer._begin()
    _know_multiprocessing()


def _know_multiprocessing() -> None:
    """Have its children close at their end, where `atexit` does not run. At their begin they forget earlier wishes."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.register_after_fork(_producers, _close_at_the_end_of_a_child)


def _close_at_the_end_of_a_child(_: object) -> None:
    from multiprocessing import util

    util.Finalize(None, _at_the_end_of_a_child, exitpriority=-100)


def _at_the_end_of_a_child() -> None:
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join()  # the interpreter is about to wait for it as well, and until then it may record
    _at_exit()


def _at_exit() -> None:
    for producer in list(_producers):
        producer.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
_know_multiprocessing()
if (_process := sys.modules.get("multiprocessing.process")) and _process.parent_process() is not None:
    _close_at_the_end_of_a_child(None)  # the child itself has loaded us
