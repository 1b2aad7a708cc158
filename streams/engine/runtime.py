"""What a stage takes from the machine it runs on: clocks, chance, threads and an end. A simulator gives its own."""

import asyncio
import random as chance
import time as clock
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from tollmeter.streams.engine.app import crash


@dataclass(frozen=True, slots=True)
class Runtime:
    """Waiting goes through the running asyncio loop, whose clock is `monotonic`."""

    time: Callable[[], float] = clock.time
    """Seconds since 1970 UTC."""
    monotonic: Callable[[], float] = clock.monotonic
    random: Callable[[], float] = chance.random
    """A number from 0 up to 1."""
    new_id: Callable[[], str] = lambda: uuid.uuid4().hex[:12]
    blocking: Callable[..., Awaitable[Any]] = asyncio.to_thread
    """Runs a function that blocks, with its arguments, beside the loop."""
    crash: Callable[[BaseException], NoReturn] = crash


RUNTIME = Runtime()
