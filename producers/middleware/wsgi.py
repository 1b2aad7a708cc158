"""For Flask, Django and all that speak WSGI: `app.wsgi_app = MeterWSGI(app.wsgi_app, guard=guard)`; imports none."""

from collections.abc import Callable, Iterable, Iterator
from http.client import responses
from typing import Any

from tollmeter.producers.client.scope import Scope, enter, leave
from tollmeter.producers.middleware.admission import REQUEST_ID_HEADER, Admission, Admitting, Identify
from tollmeter.producers.middleware.forwarded import checked_proxies
from tollmeter.schemas.secrets import IpMode

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]
HEADER = REQUEST_ID_HEADER.title()


class MeterWSGI:
    """`MeterASGI` for synchronous applications: the same keywords, the same promises."""

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

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        forwarded = environ.get("HTTP_X_FORWARDED_FOR")
        headers = [] if forwarded is None else [("x-forwarded-for", forwarded)]
        entry = self._admission.enter(headers, environ.get("REMOTE_ADDR"), environ)
        if entry.deny is not None:
            status, named, body = entry.refusal
            pairs = [(name.title(), value) for name, value in named.items()]
            start_response(f"{status} {responses.get(status, '')}", [*pairs, ("Content-Length", str(len(body)))])
            return [body]

        def starting(status: str, headers: list[tuple[str, str]], *more: object) -> object:
            others = [header for header in headers if header[0].lower() != REQUEST_ID_HEADER]
            return start_response(status, [*others, (HEADER, entry.request_id)], *more)

        token = enter(entry.scope)
        try:
            body_ = self.app(environ, starting)
        finally:
            leave(token)
        return _Body(body_, entry.scope)


class _Body:
    """The application's body, made within the request's scope: generators call models, too."""

    def __init__(self, inner: Iterable[bytes], scope: Scope) -> None:
        self._inner, self._scope = inner, scope
        self._parts: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        token = enter(self._scope)
        try:
            if self._parts is None:
                self._parts = iter(self._inner)
            return next(self._parts)
        finally:
            leave(token)

    def close(self) -> None:
        close = getattr(self._inner, "close", None)
        if callable(close):
            token = enter(self._scope)
            try:
                close()
            finally:
                leave(token)
