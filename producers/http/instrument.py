"""One line meters every SDK of a program: each HTTP client of httpx and httpx2 that is made from then on is metered.

A library that is not loaded yet is metered as soon as it is; until then nothing heavy is imported. Recorded is what is
surely a call to a model: one to a provider's host, or one whose path and model say so. The program never notices:
whatever fails here is logged and the call goes on.
"""

import sys
import threading
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tollmeter.producers.http.interfaces import Guarding, Producing

Method = Callable[..., object]
LIBRARIES = ("httpx2", "httpx")
GOOGLE = "google.genai._api_client"
"""Where google-genai decides between httpx and aiohttp, which it prefers for asynchronous calls."""
_KINDS = ("Client", "AsyncClient")
_lock = threading.RLock()


class _GoogleClient(Protocol):
    def _use_google_auth_async(self) -> bool: ...


class _Options:
    """How clients are metered; the producer is made when the first client is."""

    def __init__(self, producer: "Producing | None", guard: "Guarding | None", fields: dict[str, Any]) -> None:
        self._producer, self.guard, self.fields = producer, guard, fields

    @property
    def producer(self) -> "Producing":
        with _lock:
            if self._producer is None:
                from tollmeter.producers.client.client import UsageProducer

                self._producer = UsageProducer(service=Path(sys.argv[0]).stem or "python")
            return self._producer


_options: _Options | None = None
_originals: dict[type, tuple[str, Method]] = {}


def instrument(
    *, producer: "Producing | None" = None, guard: "Guarding | None" = None, org: str | None = None, **fields: object
) -> None:
    """Meter the calls of the openai, anthropic and google-genai SDKs, and of all that call through httpx or httpx2.

    `tollmeter.instrument(org="acme", service="shop")`, before the first client is made. `producer` defaults to a
    `UsageProducer` whose service is the program's name; keywords are event fields of every call; who calls is said by
    the middleware or `calling(...)`. Called again it takes the place of before. A client given to `metered` is metered
    by that alone.

    Raises ValueError for a keyword that is no such field.
    """
    from tollmeter.producers.client.scope import Scope

    global _options
    Scope().with_fields({**fields, "org_id": org})
    with _lock:
        _options = _Options(producer, guard, {**fields, **({"org_id": org} if org is not None else {})})
        if _watcher not in sys.meta_path:
            sys.meta_path.insert(0, _watcher)
        for name in (*LIBRARIES, GOOGLE):
            if name in sys.modules:
                _patch(sys.modules[name])


def uninstrument() -> None:
    """Meter no client that is made from now on; those that are, stay so."""
    global _options
    with _lock:
        _options = None
        if _watcher in sys.meta_path:
            sys.meta_path.remove(_watcher)
        for kind, (name, original) in _originals.items():
            setattr(kind, name, original)
        _originals.clear()


def _patch(library: ModuleType) -> None:
    if library.__name__ == GOOGLE:
        _replace(getattr(library, "BaseApiClient", None), "_use_aiohttp", _through_httpx)
    for name in _KINDS if library.__name__ in LIBRARIES else ():
        _replace(getattr(library, name, None), "__init__", _metering)


def _replace(kind: object, name: str, wrap: Callable[[Method], Method]) -> None:
    original = getattr(kind, name, None)
    if isinstance(kind, type) and original is not None and kind not in _originals:
        _originals[kind] = name, original
        setattr(kind, name, wrap(original))


def _through_httpx(original: Method) -> Method:
    """Have google-genai call through httpx wherever it can: only its own credentials need aiohttp."""

    @wraps(original)
    def use_aiohttp(self: "_GoogleClient") -> bool:
        return bool(original(self)) and self._use_google_auth_async()

    return use_aiohttp


def _metering(original: Method) -> Method:
    @wraps(original)
    def init(self: object, *arguments: object, **keywords: object) -> None:
        original(self, *arguments, **keywords)
        _meter(self)

    return init


def _meter(client: object) -> None:
    options = _options
    if options is None:
        return
    try:
        from tollmeter.producers.http.metered import metered

        metered(client, producer=options.producer, guard=options.guard, surely=True, **options.fields)
    except Exception as error:
        from tollmeter.producers.http.meter import faults, said

        faults.warn("a client is not metered: %s", said(error))


class _Watcher(MetaPathFinder):
    """Sees a library being loaded, lets it load as ever, and patches it then."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in LIBRARIES and fullname != GOOGLE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Patching(spec.loader)
        return spec


class _Patching(Loader):
    def __init__(self, inner: Loader) -> None:
        self._inner = inner

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._inner.exec_module(module)
        _patch(module)

    def __getattr__(self, name: str) -> object:
        """Whatever else is asked of a loader (resources, source) the library's own answers."""
        return getattr(self._inner, name)


_watcher = _Watcher()
