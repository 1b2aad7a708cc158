"""A stream passes through untouched while its usage is taken down; the event is handed over once, however it ends."""

import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from inspect import isawaitable
from typing import Any, TypeVar

from tollmeter.producers.extract.extract import extract, extract_all
from tollmeter.producers.extract.streams import Merged
from tollmeter.schemas.event import UsageEvent

Chunk = TypeVar("Chunk")
Record = Callable[[UsageEvent], Any]


class StreamUsage:
    """Accumulates one stream. Keywords are those of `extract`."""

    def __init__(self, **fields: object) -> None:
        self._fields = {"started_at": datetime.now(UTC), **fields}
        self._merged = Merged()
        self._began = time.perf_counter()
        self._error: BaseException | None = None

    def add(self, chunk: object) -> None:
        """Take a chunk in. Never raises."""
        if self._merged.sample is None:
            self._fields.setdefault("ttft_ms", round((time.perf_counter() - self._began) * 1_000))
        with suppress(Exception):
            self._merged.add(chunk)

    def fail(self, error: BaseException) -> None:
        """The stream broke off with an error; one that the caller cancelled is CANCELLED."""
        self._error = error

    def event(self) -> UsageEvent:
        """Return the event as of now: CANCELLED with what was seen when the stream has not ended."""
        return extract(self._merged, **self._known())

    def events(self) -> tuple[UsageEvent, ...]:
        """Return one event for each model that the stream named, as `extract_all` does."""
        return extract_all(self._merged, **self._known())

    def _known(self) -> dict[str, Any]:
        fields = dict(self._fields)
        if isinstance(self._error, Exception):
            fields.setdefault("status", "ERROR")
            fields.setdefault("error_type", type(self._error).__name__)
        return fields


def observe(stream: Iterable[Chunk], record: Record, **fields: object) -> Iterator[Chunk]:
    """Yield the chunks of a stream and record its usage at the end; a caller that stops early closes the stream.

    `for chunk in observe(client.chat.completions.create(..., stream=True), producer.record, service="shop"): ...`
    """
    usage = StreamUsage(**fields)
    try:
        for chunk in stream:
            usage.add(chunk)
            yield chunk
    except BaseException as error:
        usage.fail(error)
        raise
    finally:
        _hand_over(usage, record)
        close = getattr(stream, "close", None)
        if callable(close):
            close()


async def aobserve(stream: AsyncIterable[Chunk], record: Record, **fields: object) -> AsyncIterator[Chunk]:
    """`observe` for async streams."""
    usage = StreamUsage(**fields)
    try:
        async for chunk in stream:
            usage.add(chunk)
            yield chunk
    except BaseException as error:
        usage.fail(error)
        raise
    finally:
        _hand_over(usage, record)
        close = getattr(stream, "close", None) or getattr(stream, "aclose", None)
        closing = close() if callable(close) else None
        if isawaitable(closing):
            await closing


def _hand_over(usage: StreamUsage, record: Record) -> None:
    with suppress(Exception):
        for event in usage.events():
            record(event)
