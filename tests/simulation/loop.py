"""An asyncio loop for one simulated process: virtual time, one callback per step, and nothing runs unless it is told.

Production code uses asyncio as it is (tasks, gather, wait, sleep); here only the world decides whose turn it is.
"""

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from itertools import count
from typing import Any


class Handle:
    """A callback to come, and whether somebody cancelled it: what tasks and sleeps use of asyncio's."""

    __slots__ = ("args", "callback", "context", "is_cancelled")

    def __init__(self, callback: Any, args: tuple[Any, ...], context: Context | None) -> None:
        self.callback, self.args, self.context = callback, args, context
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled


class Loop(asyncio.AbstractEventLoop):
    """`ready` holds what may run now, `timers` what waits for its time, both in the order of their arrival."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.time = now  # type: ignore[method-assign]
        self.ready: deque[Handle] = deque()
        self.timers: list[tuple[float, int, Handle]] = []
        self._numbers = count()
        self._tasks: list[asyncio.Task[Any]] = []
        self.dead = self.stopped = False

    def run(self, most: int) -> int:
        """Run the first callbacks that are ready, some at most, while the process goes on; return how many."""
        if events._get_running_loop() is not self:
            events._set_running_loop(self)  # `World` ends it: each switch costs a system call
        done, ready = 0, self.ready
        while ready and done < most and not self.stopped:
            handle = ready.popleft()
            done += 1
            if handle.is_cancelled:
                continue
            if handle.context is None:
                handle.callback(*handle.args)
            else:
                handle.context.run(handle.callback, *handle.args)
        return done

    def wake(self, now: float) -> None:
        """Move the timers whose time has come to `ready`."""
        while self.timers and self.timers[0][0] <= now:
            handle = heapq.heappop(self.timers)[2]
            if not handle.is_cancelled:
                self.ready.append(handle)

    def next_time(self) -> float | None:
        """Return when the first timer is due."""
        while self.timers and self.timers[0][2].is_cancelled:
            heapq.heappop(self.timers)
        return self.timers[0][0] if self.timers else None

    def die(self) -> None:
        """Drop everything: nothing of this process runs any more, but for the coroutine that is running now."""
        self.dead = self.stopped = True
        self.ready.clear()
        self.timers.clear()
        for task in self._tasks:
            with suppress(ValueError, RuntimeError):  # the one that runs; those that wait while they are closed
                task.get_coro().close()  # type: ignore[union-attr]
        self._tasks.clear()

    # what asyncio asks of a loop -----------------------------------------------------------------------------------

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = Handle(callback, args, context)
        if not self.dead:
            self.ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = Handle(callback, args, context)
        if not self.dead:
            heapq.heappush(self.timers, (when, next(self._numbers), handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name or "task", context=context)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # a killed process leaves its tasks behind
        self._tasks.append(task)
        if len(self._tasks) > 100:
            self._tasks = [task for task in self._tasks if not task.done()]
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Say nothing: what a task raises reaches the world through the runtime's `crash`, or its process is dead."""
