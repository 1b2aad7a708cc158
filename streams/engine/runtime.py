"""What a stage takes from the machine it runs on: clocks, chance, threads and an end. A simulator gives its own."""

import asyncio
import logging
import os
import random as chance
import time as clock
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn, ParamSpec, Protocol, TypeVar

EXIT_CRASH = 70

log = logging.getLogger("tollmeter")


def crash(error: BaseException) -> NoReturn:
    """Log an unexpected error and end the process at once: only what is durable and acked counts."""
    log.critical("unexpected: %r; the process ends", error, exc_info=error)
    logging.shutdown()
    os._exit(EXIT_CRASH)


_Arguments = ParamSpec("_Arguments")
_Value = TypeVar("_Value")


class Blocking(Protocol):
    """Runs a function that blocks, with its arguments, beside the loop."""

    def __call__(
        self, function: Callable[_Arguments, _Value], /, *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> Awaitable[_Value]: ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """Waiting goes through the running asyncio loop, whose clock is `monotonic`."""

    time: Callable[[], float] = clock.time
    """Seconds since 1970 UTC."""
    monotonic: Callable[[], float] = clock.monotonic
    random: Callable[[], float] = chance.random
    """A number from 0 up to 1."""
    new_id: Callable[[], str] = lambda: uuid.uuid4().hex[:12]
    blocking: Blocking = asyncio.to_thread
    crash: Callable[[BaseException], NoReturn] = crash


RUNTIME = Runtime()
