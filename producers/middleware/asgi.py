"""For Starlette, FastAPI, Quart and all that speak ASGI: `app = MeterASGI(app, guard=guard)`; imports none of them."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Unpack

from tollmeter.producers.client.scope import enter, leave
from tollmeter.producers.middleware.admission import REQUEST_ID_HEADER, Entry, Options, admission
from tollmeter.producers.middleware.freezing import Flusher, Flushing

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]
POLICY_VIOLATION = 1008


class MeterASGI:
    """Gives each request an id of its own, says who calls to what is called within, and refuses at the door.

    The id goes back in `X-Request-ID` and is the `request_id` of every event of the request. Refused are blocked
    callers (403) and those beyond a rate limit (429 with Retry-After), before the application runs.

    Where the platform freezes the process between requests (Lambda, Cloud Run), or with `flush=True`, what `producer`
    has recorded, without one every producer of the process, is sent before the answer is whole. Further keywords: see
    `Admission`. Raises ValueError for a proxy that is no address or network, or hashing without a salt.
    """

    def __init__(
        self,
        app: App,
        *,
        producer: Flushing | None = None,
        flush: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.app = app
        self._flusher = Flusher(producer, flush)
        self._admission = admission(options)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope.get("headers", ())]
        peer = scope.get("client")
        entry = self._admission.enter(headers, peer[0] if peer else None, scope)
        if entry.deny is not None:
            await _refuse(entry, scope["type"], send)
            return
        token = enter(entry.scope)
        try:
            await self.app(scope, receive, _with_id(send, entry.request_id, self._flusher))
        finally:
            leave(token)
            await self._flusher.aflush()


def _with_id(send: Send, request_id: str, flusher: Flusher) -> Send:
    name, value = REQUEST_ID_HEADER.encode(), request_id.encode()

    async def sending(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.accept"):
            others = [header for header in message.get("headers", ()) if header[0].lower() != name]
            message["headers"] = [*others, (name, value)]
        elif message["type"] == "http.response.body" and not message.get("more_body"):
            await flusher.aflush()
        await send(message)

    return sending


async def _refuse(entry: Entry, kind: str, send: Send) -> None:
    if kind == "websocket":
        await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        return
    status, headers, body = entry.refusal
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    pairs.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
