"""The end of the log, read along by a server while anybody looks at what is live; it needs Kafka alone."""

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from tollmeter.broker.client import BrokerError
from tollmeter.broker.layout import ProvisionError
from tollmeter.server.problems import Problem
from tollmeter.settings import Settings

if TYPE_CHECKING:
    from tollmeter.admin.tail import Tail

log = logging.getLogger("tollmeter.server")

IDLE_S = 120.0
"""When nobody has looked for so long, the log is read no further."""
FIRST_S = 15.0
"""How long the first look waits until the last hour is read."""
_AGAIN_S = 2.0


class Along:
    """Begins at the first look, begins again after a failure, ends when nobody looks or the server stops."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._looked_at = 0.0
        self._source: Tail | None = None
        self.problem = ""
        """Why nothing is read at present; "" while it is."""

    async def look(self) -> "Tail":
        """Return what was read. Raises `Problem` 503 when the log cannot be read."""
        self._looked_at = time.monotonic()
        if self._task is None or self._task.done():
            self._ready.clear()
            self._task = asyncio.create_task(self._read())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), FIRST_S)
        if self._source is None:
            text = self.problem or "the log has not been read yet: ask again in a moment"
            raise Problem(503, "log_away", text, headers={"retry-after": "5"})
        return self._source

    async def close(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _read(self) -> None:
        from tollmeter.admin.tail import tail  # brings polars, which a server without pages has no need of

        while time.monotonic() < self._looked_at + IDLE_S:
            try:
                async with tail(self._settings) as source:
                    await source.catch_up()
                    self._source, self.problem = source, ""
                    self._ready.set()
                    while time.monotonic() < self._looked_at + IDLE_S:
                        await source.step(500)
            except (BrokerError, ProvisionError) as error:
                self.problem = str(error)
                self._ready.set()
                log.warning("what is live cannot be shown: %s", error)
                await asyncio.sleep(_AGAIN_S)
        self._source = None
