"""What pages ask of the line now and then: asked once for all readers, and again when it is too old or has failed."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class Kept(Generic[_Value]):
    """An answer that may be so many seconds old; whoever asks while the question is under way waits for its answer.

    Or has the one before at once, where that was asked for no longer ago than `old_s`.
    """

    def __init__(
        self, ask: Callable[[], Awaitable[_Value]], fresh_s: float, wait_s: float, *, old_s: float = 0.0
    ) -> None:
        self._ask, self._fresh_s, self._wait_s, self._old_s = ask, fresh_s, wait_s, old_s
        self._task: asyncio.Task[_Value] | None = None
        self._before: tuple[float, asyncio.Task[_Value]] | None = None
        self._begun = 0.0

    async def get(self) -> _Value:
        """Return the answer. Raises what asking raises, and `TimeoutError` when it takes too long."""
        task = self._task
        now = time.monotonic()
        if task is None or (task.done() and (_failed(task) or now > self._begun + self._fresh_s)):
            self._before = None if task is None or _failed(task) else (self._begun, task)
            task = self._task = asyncio.create_task(self._run())
            task.add_done_callback(_failed)  # takes note of an exception that nobody waits for any more
            self._begun = now
        if not task.done() and self._before is not None and now <= self._before[0] + self._old_s:
            return self._before[1].result()
        return await asyncio.wait_for(asyncio.shield(task), self._wait_s)

    async def close(self) -> None:
        """End what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> _Value:
        return await self._ask()


def _failed(task: "asyncio.Task[_Value]") -> bool:
    return task.cancelled() or task.exception() is not None
