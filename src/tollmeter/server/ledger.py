"""The ledger as answers read it: questions run beside the loop, a few at once, so that reading never holds up writing.

What it cannot answer is a problem document, also where ClickHouse neither answers nor refuses: after a few seconds, and
at once while that lasts. Taking usage never waits for a question: that goes to Kafka or disk.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from tollmeter.server.problems import Problem
from tollmeter.server.pulse import Pulse
from tollmeter.settings import Settings, SettingsError
from tollmeter.sinks.clickhouse.alive import answers
from tollmeter.sinks.clickhouse.client import ClickHouse, Rejected, Unavailable, address, connect_existing
from tollmeter.sinks.clickhouse.queries import load

READERS = 4
"""So many questions at once; further ones wait for their turn."""
WAITING = 64
"""Above so many that are under way a further one is refused."""
_Value = TypeVar("_Value")
_Key = tuple[str, str]
_Rows = asyncio.Task[list[dict[str, Any]]]


class Ledger:
    """One client of ClickHouse for all answers, connected when it is first used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: ClickHouse | None = None
        self._lock = threading.Lock()
        self._kept: dict[_Key, tuple[float, _Rows]] = {}
        self._old: dict[_Key, tuple[float, list[dict[str, Any]]]] = {}
        self._readers = ThreadPoolExecutor(READERS, "ledger")
        self._workers = ThreadPoolExecutor(READERS, "work")
        self._under_way = 0
        self._pulse = Pulse(lambda: answers(address(settings)), self._leave)

    async def ask(self, question: str, **parameters: object) -> list[dict[str, Any]]:
        """Return the rows of `queries/<question>.sql`. Raises `Problem` 503 while ClickHouse cannot answer."""
        return await self.answer(lambda ledger: ledger.query(load(question), parameters))

    async def ask_sometimes(
        self, fresh_s: float, question: str, *, old_s: float = 0.0, **parameters: object
    ) -> list[dict[str, Any]]:
        """As `ask`, but the rows may be so many seconds old: for questions that read much and are asked often.

        Whoever asks while the same question is under way waits for its answer, or has the one before at once where that
        is no older than `old_s`; what has failed is asked again.
        """
        now, key = time.monotonic(), (question, repr(sorted(parameters.items())))
        for old in [name for name, (until, asked) in self._kept.items() if until < now and asked.done()]:
            del self._kept[old]
        for old in [name for name, (until, _) in self._old.items() if until < now]:
            del self._old[old]
        if key not in self._kept:
            task = asyncio.create_task(self.ask(question, **parameters))
            task.add_done_callback(partial(self._heard, key, now + old_s if old_s else 0.0))
            self._kept[key] = now + fresh_s, task
        asked = self._kept[key][1]
        if key in self._old and not asked.done():
            return self._old[key][1]
        return await asyncio.shield(asked)

    def _heard(self, key: _Key, until: float, task: _Rows) -> None:
        if task.cancelled() or task.exception() is not None:
            self._kept.pop(key, None)
        elif until:
            self._old[key] = until, task.result()

    async def answer(self, question: Callable[[ClickHouse], _Value]) -> _Value:
        """Return what a question of several queries gives. Raises `Problem` as `ask` does."""
        if self._pulse.away:
            raise _away()
        with self._counted(), self._pulse.waiting() as gone:
            work = asyncio.get_running_loop().run_in_executor(self._readers, lambda: question(self._connected()))
            try:
                await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
                if not work.done() or work.cancelled():
                    raise _away()
                value = work.result()
            finally:
                work.cancel()
        self._pulse.heard()
        return value

    async def run(self, work: Callable[[], _Value]) -> _Value:
        """Return what other blocking work gives, in a thread. Raises `Problem` as `ask` does."""
        with self._counted():
            return await asyncio.get_running_loop().run_in_executor(self._workers, work)

    def close(self) -> None:
        """Let go; a question that is on its way ends by itself."""
        self._pulse.close()
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._workers.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count what is under way, and say as a `Problem` why it cannot be answered."""
        if self._under_way >= WAITING:
            raise Problem(503, "busy", "too many questions are under way: try again", headers={"retry-after": "2"})
        self._under_way += 1
        try:
            yield
        except (Unavailable, Rejected, SettingsError):
            raise _away() from None
        finally:
            self._under_way -= 1

    def _leave(self) -> None:
        """Leave those who wait for what hangs to themselves: they end with their questions, and hold up nobody."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._readers = ThreadPoolExecutor(READERS, "ledger")
        self._lock, self._client = threading.Lock(), None

    def _connected(self) -> ClickHouse:
        with self._lock:
            if self._client is None:
                self._client = connect_existing(self._settings)
            return self._client


def _away() -> Problem:
    text = "the ledger does not answer at present; what is sent is stored all the same"
    return Problem(503, "ledger_away", text, headers={"retry-after": "5"})
