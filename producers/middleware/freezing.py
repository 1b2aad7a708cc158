"""Some platforms freeze a process as soon as it has answered: what was recorded must be gone before that.

They are told by their environment, https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html and
https://cloud.google.com/run/docs/container-contract (2026-11-29).
"""

import asyncio
import os
from collections.abc import Mapping
from typing import Protocol

from tollmeter.producers.client.client import flush_all
from tollmeter.producers.http.meter import faults, said

VARIABLES = ("AWS_LAMBDA_FUNCTION_NAME", "K_SERVICE")
FLUSH_S = 2.0
"""So long an answer is kept back at most; what Kafka has not by then is sent at the next request, or from the spool."""


class Flushing(Protocol):
    """What is needed of a `UsageProducer`."""

    def flush(self, timeout: float = ..., /) -> bool: ...


def freezes(environment: Mapping[str, str] = os.environ) -> bool:
    """Say whether this process is frozen between its requests."""
    return any(environment.get(name) for name in VARIABLES)


class Flusher:
    """Flushes at the end of a request: `wanted`, or where the platform freezes; one producer, or all of the process."""

    def __init__(self, producer: Flushing | None, wanted: bool | None) -> None:
        self._producer = producer
        self.wanted = freezes() if wanted is None else wanted

    def flush(self) -> None:
        """Wait until Kafka has what was recorded, or for `FLUSH_S`. Never raises."""
        if not self.wanted:
            return
        try:
            if self._producer is not None:
                self._producer.flush(FLUSH_S)
            else:
                flush_all(FLUSH_S)
        except Exception as error:
            faults.warn("events could not be flushed at the end of a request: %s", said(error))

    async def aflush(self) -> None:
        """`flush` beside the event loop."""
        if self.wanted:
            await asyncio.to_thread(self.flush)
