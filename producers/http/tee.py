"""The bytes of an answer pass to the caller as they come, and a copy of them to the attempt that they belong to."""

from collections.abc import AsyncIterator, Iterator

from tollmeter.producers.http.attempt import Attempt
from tollmeter.producers.http.library import AsyncBody, Body
from tollmeter.producers.http.poll import Fetch
from tollmeter.producers.http.unfinished import Unfinished


class _Tee:
    _inner: object

    def __init__(self, inner: object, attempt: Attempt | Fetch, unfinished: Unfinished | None) -> None:
        self._inner, self._attempt, self._unfinished = inner, attempt, unfinished

    def __del__(self) -> None:
        if self._unfinished is not None and isinstance(self._attempt, Attempt) and not self._attempt.over:
            self._unfinished.forsaken(self._attempt)


class SyncTee(_Tee):
    """The body of an answer, seen as it passes."""

    _inner: Body

    def __iter__(self) -> Iterator[bytes]:
        try:
            for part in self._inner:
                self._attempt.feed(part)
                yield part
        except Exception as error:
            self._attempt.done(error)
            raise
        self._attempt.done(to_its_end=True)

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            self._attempt.done()  # no effect when the body was read to its end


class AsyncTee(_Tee):
    """`SyncTee` for async clients."""

    _inner: AsyncBody

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._inner:
                self._attempt.feed(part)
                yield part
        except Exception as error:
            self._attempt.done(error)
            raise
        self._attempt.done(to_its_end=True)

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            self._attempt.done()
