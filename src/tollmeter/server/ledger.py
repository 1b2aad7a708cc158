"""The ledger as answers read it: named questions, asked beside the loop, so that reading never holds up writing."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tollmeter.server.problems import Problem
from tollmeter.settings import Settings, SettingsError
from tollmeter.sinks.clickhouse.client import ClickHouse, Rejected, Unavailable, connect_existing
from tollmeter.sinks.clickhouse.queries import load

READERS = 4
"""So many questions at once; further ones wait for their turn."""


class Ledger:
    """One client of ClickHouse for all answers, connected when it is first used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: ClickHouse | None = None
        self._kept: dict[tuple[object, ...], tuple[float, list[dict[str, Any]]]] = {}
        self._threads = ThreadPoolExecutor(READERS, "ledger")

    async def ask(self, question: str, **parameters: object) -> list[dict[str, Any]]:
        """Return the rows of `queries/<question>.sql`. Raises `Problem` 503 while ClickHouse cannot answer."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, question, parameters)
        except (Unavailable, Rejected, SettingsError):
            text = "the ledger does not answer at present; what is sent is stored all the same"
            raise Problem(503, "ledger_away", text, headers={"retry-after": "5"}) from None

    async def ask_sometimes(self, fresh_s: float, question: str, **parameters: object) -> list[dict[str, Any]]:
        """As `ask`, but the rows may be so many seconds old: for questions that read much and are asked often."""
        key = (question, *sorted(parameters.items()))
        kept = self._kept.get(key)
        if kept is None or time.monotonic() - kept[0] > fresh_s:
            kept = self._kept[key] = (time.monotonic(), await self.ask(question, **parameters))
        return kept[1]

    def _ask(self, question: str, parameters: dict[str, object]) -> list[dict[str, Any]]:
        if self._client is None:
            self._client = connect_existing(self._settings)
        return self._client.query(load(question), parameters)

    def close(self) -> None:
        """Let go; a question that is on its way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()
