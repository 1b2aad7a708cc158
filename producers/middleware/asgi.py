"""For Starlette, FastAPI, Quart and all that speak ASGI: `app = MeterASGI(app, guard=guard)`; imports none of them."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from tollmeter.producers.client.scope import enter, leave
from tollmeter.producers.middleware.admission import REQUEST_ID_HEADER, Admission, Admitting, Entry, Identify
from tollmeter.producers.middleware.forwarded import checked_proxies
from tollmeter.schemas.secrets import IpMode

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]
POLICY_VIOLATION = 1008


class MeterASGI:
    """Gives each request an id of its own, says who calls to what is called within, and refuses at the door.

    The id goes back in `X-Request-ID` and is the `request_id` of every event of the request. Refused are blocked
    callers (403) and those beyond a rate limit (429 with Retry-After), before the application runs. Keywords: see
    `Admission`. Raises ValueError for a proxy that is no address or network, or hashing without a salt.
    """

    def __init__(
        self,
        app: App,
        *,
        guard: Admitting | None = None,
        identify: Identify | None = None,
        trusted_proxies: int | Iterable[str] = (),
        ip_mode: IpMode = "full",
        ip_salt: str = "",
    ) -> None:
        self.app = app
        self._admission = Admission(guard, identify, checked_proxies(trusted_proxies), ip_mode, ip_salt)

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
            await self.app(scope, receive, _with_id(send, entry.request_id))
        finally:
            leave(token)


def _with_id(send: Send, request_id: str) -> Send:
    name, value = REQUEST_ID_HEADER.encode(), request_id.encode()

    async def sending(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.accept"):
            others = [header for header in message.get("headers", ()) if header[0].lower() != name]
            message["headers"] = [*others, (name, value)]
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
