"""One call to one provider: asked of the guard, sent, passed on byte by byte, recorded however it ends.

What a caller has in full is recorded before he has its end; what is cut short, by him or by the provider, with what is
known of it. A kill of this process leaves the same, by the producer's write-ahead file.
"""

from collections.abc import AsyncIterator
from typing import NoReturn

import httpx2
from starlette.types import Send

from tollmeter.producers.client.durable import DurableProducer
from tollmeter.producers.http.attempt import Attempt, begin
from tollmeter.producers.http.interfaces import Refusal
from tollmeter.producers.http.models import with_model
from tollmeter.producers.http.poll import Fetch, fetch
from tollmeter.producers.http.request import worth_reading
from tollmeter.producers.http.response import readable
from tollmeter.server.problems import Headers, Problem, encoded
from tollmeter.server.proxy.headers import to_caller
from tollmeter.server.proxy.upstream import Asked, Provider

HTTP_ERROR, NOT_MODIFIED = 400, 304


class CutShortError(Exception):
    """The provider broke off in the middle of an answer whose beginning the caller has: the connection must end."""


class Exchange:
    """`open`, then `pass_on` or `close`. After `open` there is a `refusal`, or a `status`."""

    def __init__(self, provider: Provider, asked: Asked, producer: DurableProducer) -> None:
        self._provider, self._producer, self._asked = provider, producer, asked
        self._request = provider.request(asked)
        reading = worth_reading(asked.method, self._request.url.path, asked.header("content-type"))
        self._attempt: Attempt | None = None
        self._look: Fetch | None = None
        if reading:
            self._attempt = begin(provider.meter, provider.seen(self._request, asked.content))
        if self._attempt is not None:
            self._request.headers["accept-encoding"] = readable(asked.header("accept-encoding"))
        else:
            self._look = fetch(provider.meter, asked.method, self._request.url.path)
        self._response: httpx2.Response | None = None
        self._parts: list[bytes] | None = None
        self.refusal: Refusal | None = None

    @property
    def status(self) -> int:
        """The status that the caller gets: the provider's, or that of the refusal."""
        assert self.refusal is not None or self._response is not None
        return self.refusal.http_status if self.refusal else self._response.status_code  # type: ignore[union-attr]

    async def open(self) -> None:
        """Ask the guard, send, and wait for the answer to begin. Raises `Problem` 502 or 504 when there is none."""
        attempt = self._attempt
        if attempt is not None:
            self.refusal = attempt.refusal()
            if self.refusal is not None:
                return
            self._producer.begun(attempt.answer.event_id, [attempt.begun()])
        try:
            if attempt is not None and attempt.instead:
                self._ask_for(attempt.instead)
            self._response = await self._provider.send(self._request)
            await self._opened(self._response)
        except BaseException as error:
            self._over(error)
            await self._let_go()
            if isinstance(error, httpx2.TransportError):
                self._say(error)
            raise

    def _ask_for(self, model: str) -> None:
        """Write the request for another model, and sign it anew where it is signed."""
        asked = self._asked
        path, content = with_model(asked.path, asked.content, dict(asked.headers), model)
        headers = [(name, value) for name, value in asked.headers if name != "content-encoding"]
        self._request = self._provider.request(asked._replace(path=path, headers=headers, content=content))
        self._request.headers["accept-encoding"] = readable(asked.header("accept-encoding"))

    async def _opened(self, response: httpx2.Response) -> None:
        """Read the head of an answer; of one that is no stream also the body, so that the head can tell the cost."""
        for one in (self._attempt, self._look):
            if one is not None:
                one.opened(response.status_code, response.headers)
        if 300 <= response.status_code < HTTP_ERROR and response.status_code != NOT_MODIFIED:
            self._over(to_its_end=True)
            raise Problem(502, "redirected", f"{self._provider.name} answered with a redirect, which is not followed")
        if self._attempt is not None and self._attempt.whole:
            self._parts = [part async for part in self._body(response)]

    async def pass_on(self, send: Send, *, trailers: bool) -> None:
        """Send the answer to the caller. Raises `CutShortError` when the provider breaks off after the beginning."""
        if self.refusal is not None:
            await _whole(send, self.refusal.http_status, encoded(self.refusal.headers.items()), self.refusal.content)
            return
        response = self._response
        assert response is not None
        try:
            if self._parts is not None:
                await _whole(send, response.status_code, self._head(response), b"".join(self._parts))
            else:
                await self._stream(response, send, trailers=trailers and self._attempt is not None)
        except httpx2.TransportError as error:
            raise CutShortError from error
        finally:
            await self.close()

    async def _stream(self, response: httpx2.Response, send: Send, *, trailers: bool) -> None:
        head = {"type": "http.response.start", "status": response.status_code, "headers": self._head(response)}
        await send(head | {"trailers": True} if trailers else head)
        async for part in self._body(response):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await self._let_go()  # behind the end nothing may wait: the caller hangs up then
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        if trailers and self._attempt is not None:
            told = encoded(self._attempt.answer.headers().items())
            await send({"type": "http.response.trailers", "headers": told, "more_trailers": False})

    async def _body(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        """Yield the bytes as they come; what they say is noted first, the end of the call before the end is told."""
        noted = False
        try:
            async for part in response.stream:  # type: ignore[union-attr]  # of a transport it is asynchronous
                if self._look is not None:
                    self._look.feed(part)
                if self._attempt is not None:
                    self._attempt.feed(part)
                    if self._attempt.ended and not noted:
                        noted = True
                        self._producer.begun(self._attempt.answer.event_id, self._attempt.so_far())
                yield part
        except Exception as error:
            self._over(error)
            raise
        self._over(to_its_end=True)

    def _head(self, response: httpx2.Response) -> Headers:
        pairs = to_caller([(name.lower(), value) for name, value in response.headers.multi_items()])
        told = self._attempt.answer.headers().items() if self._attempt is not None else ()
        return encoded([*pairs, *told])

    async def close(self) -> None:
        """Let go of an answer, read to its end or not."""
        try:
            await self._let_go()
        finally:
            self._over()

    async def _let_go(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            await response.aclose()

    def _over(self, error: BaseException | None = None, *, to_its_end: bool = False) -> None:
        """The call is over; the first to say so is believed."""
        for one in (self._attempt, self._look):
            if one is not None:
                one.done(error, to_its_end=to_its_end)
        if self._attempt is not None and not self._attempt.held:
            self._producer.nothing(self._attempt.answer.event_id)  # no effect when an event was recorded

    def _say(self, error: httpx2.TransportError) -> NoReturn:
        name, what = self._provider.name, type(error).__name__
        if isinstance(error, httpx2.TimeoutException):
            raise Problem(504, "upstream_timeout", f"{name} did not answer in time ({what})") from None
        raise Problem(502, "upstream_failed", f"{name} could not be asked, or broke off ({what})") from None


async def _whole(send: Send, status: int, headers: Headers, body: bytes) -> None:
    headers = [(name, value) for name, value in headers if name != b"content-length"]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
