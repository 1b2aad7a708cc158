"""Whether ClickHouse answers at all: asked beside the questions that wait for it, by one asker, however many wait.

A question that takes long is no sign of anything; whoever does not even say that it is there hangs. Who waits is told
so, who comes is told at once, and the asking goes on until there is an answer.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

LOOK_S = 1.0
"""After so long somebody who waits has it asked whether there is anybody to wait for."""


class Pulse:
    """All in one loop. `lost` is called when nothing answers any more."""

    def __init__(self, alive: Callable[[], bool], lost: Callable[[], None]) -> None:
        self._alive, self._lost = alive, lost
        self._asker = ThreadPoolExecutor(1, "pulse")
        self._waiting = 0
        self._heard = 0
        self._gone: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.away = False
        """Whether nothing answered when it was asked last."""

    @contextmanager
    def waiting(self) -> Iterator["asyncio.Future[None]"]:
        """Give what is done as soon as there is nobody to wait for."""
        if self._gone is None:
            self._gone = asyncio.get_running_loop().create_future()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._listen())
        self._waiting += 1
        try:
            yield self._gone
        finally:
            self._waiting -= 1

    def heard(self) -> None:
        """Say that a question was answered."""
        self._heard += 1

    def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
        self._asker.shutdown(wait=False, cancel_futures=True)

    async def _listen(self) -> None:
        while self._waiting or self.away:
            await asyncio.sleep(LOOK_S)
            if not (self._waiting or self.away):
                return
            heard = self._heard
            alive = await asyncio.get_running_loop().run_in_executor(self._asker, self._alive)
            away = not alive and heard == self._heard
            if away and not self.away and self._gone is not None:
                self._gone.set_result(None)
                self._gone = None
                self._lost()
            self.away = away
