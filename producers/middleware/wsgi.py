"""For Flask, Django and all that speak WSGI: `app.wsgi_app = MeterWSGI(app.wsgi_app, guard=guard)`; imports none."""

from collections.abc import Callable, Iterable, Iterator
from http.client import responses
from typing import Any, Unpack

from tollmeter.producers.client.scope import Scope, enter, leave
from tollmeter.producers.middleware.admission import REQUEST_ID_HEADER, Options, admission
from tollmeter.producers.middleware.freezing import Flusher, Flushing

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
        producer: Flushing | None = None,
        flush: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.app = app
        self._flusher = Flusher(producer, flush)
        self._admission = admission(options)

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
        return _Body(body_, entry.scope, self._flusher)


class _Body:
    """The application's body, made within the request's scope: generators call models, too."""

    def __init__(self, inner: Iterable[bytes], scope: Scope, flusher: Flusher) -> None:
        self._inner, self._scope, self._flusher = inner, scope, flusher
        self._parts: Iterator[bytes] | None = None
        self._left = len(inner) if isinstance(inner, list | tuple) else 0
        """How many parts are to come, where that is known."""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        token = enter(self._scope)
        try:
            if self._parts is None:
                self._parts = iter(self._inner)
            part = next(self._parts)
            self._left -= 1
            if self._left == 0:  # with it a server may have sent all that it announced
                self._flusher.flush()
            return part
        except StopIteration:
            self._flusher.flush()
            raise
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
        self._flusher.flush()
