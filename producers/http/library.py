"""What the meter uses of an HTTP library. `httpx` and `httpx2` both have this shape; neither is imported."""

from collections.abc import AsyncIterator, Iterator, MutableMapping
from types import TracebackType
from typing import Protocol, Self

Exit = type[BaseException] | None


class Url(Protocol):
    scheme: str
    host: str
    port: int | None
    path: str
    query: bytes
    raw_path: bytes

    def copy_with(self, *, raw_path: bytes) -> Self: ...


class Body(Protocol):
    """A body that is read once."""

    def __iter__(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class AsyncBody(Protocol):
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class HttpRequest(Protocol):
    method: str
    url: Url
    headers: MutableMapping[str, str]
    content: bytes
    extensions: MutableMapping[str, object]

    def read(self) -> bytes: ...
    async def aread(self) -> bytes: ...


class HttpResponse(Protocol):
    status_code: int
    headers: MutableMapping[str, str]
    extensions: MutableMapping[str, object]
    is_stream_consumed: bool
    content: bytes
    """Unpacked; there once the body was read."""
    stream: object
    """A `Body` of a transport, an `AsyncBody` of an async one."""


class Transport(Protocol):
    def handle_request(self, request: HttpRequest) -> HttpResponse: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, kind: Exit, error: BaseException | None, at: TracebackType | None) -> None: ...


class AsyncTransport(Protocol):
    async def handle_async_request(self, request: HttpRequest) -> HttpResponse: ...
    async def aclose(self) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, kind: Exit, error: BaseException | None, at: TracebackType | None) -> None: ...


class MakesResponse(Protocol):
    def __call__(
        self,
        status_code: int,
        *,
        headers: dict[str, str],
        content: bytes,
        request: HttpRequest,
        extensions: dict[str, object],
    ) -> HttpResponse: ...


class MakesRequest(Protocol):
    def __call__(
        self,
        method: str,
        url: Url,
        *,
        headers: dict[str, str],
        content: bytes,
        extensions: MutableMapping[str, object],
    ) -> HttpRequest: ...


class Library(Protocol):
    """The module."""

    Request: MakesRequest
    Response: MakesResponse
    SyncByteStream: type
    AsyncByteStream: type
    BaseTransport: type
    AsyncBaseTransport: type

    def ByteStream(self, content: bytes) -> Body: ...  # noqa: N802  # the library's name
