"""Rows that only wait run side by side; one that stops, fills, restarts or counts what is everybody's runs alone.

They share one stack, each with an organisation of its own. Most of a row is waiting for commands and for what comes of
events, so a few at once take no longer than the longest of them and keep the cores at work.
"""

import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Self

import pytest

from tests.acceptance.checks import Check
from tests.acceptance.rows import BY_CODE
from tests.acceptance.shop import Shop
from tests.fake_provider import serving

AT_ONCE = 4
LONG = ("P5", "E1", "Q9")
"""They begin first, so that nobody waits for them at the end."""
ALONE = pytest.mark.usefixtures("alone")
"""The mark of a row that runs while no other does."""
SHARED = ("line", "world", "shop")
"""What rows have in common; each has a provider of its own, so that it can count what reached it."""


def code_of(row: Callable[..., None]) -> str:
    """Return the code of the row that a test is named by."""
    return row.__name__.removeprefix("test_").upper()


class Beside:
    """The rows of a run that need not be alone: `begin` starts them, `end` waits for one, `wait` for all."""

    def __init__(self, shared: Mapping[str, Any]) -> None:
        self.checks: dict[str, Check] = {}
        self._shared = shared
        self._ends: dict[str, Future[None]] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(AT_ONCE, "row")
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._open.close()

    def begin(self, row: Callable[..., None]) -> None:
        """Run a row as soon as fewer than `AT_ONCE` do."""
        code = code_of(row)
        self.checks[code] = Check(code, missing=BY_CODE[code])
        given: dict[str, Any] = {**self._shared, "check": self.checks[code]}
        if isinstance(shop := given.get("shop"), Shop):
            given["shop"] = replace(shop, provider=self._open.enter_context(serving()))
        wanted = {name: given[name] for name in inspect.signature(row).parameters}
        self._ends[code] = self._pool.submit(row, **wanted)

    def end(self, code: str) -> None:
        """Wait until a row has ended; raise what it raised."""
        self._ends[code].result()

    def wait(self) -> None:
        """Wait until every row that has begun has ended, well or not."""
        wait(self._ends.values())
