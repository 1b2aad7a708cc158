"""One provider as the proxy reaches it: address, key, connections, and the meter of its calls. No redirect is followed.

Connections are kept and shared; cookies are not, and nothing of one caller is left for the next.
"""

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx2

from tollmeter.producers.http.interfaces import Guarding, Producing, Request
from tollmeter.producers.http.meter import Meter
from tollmeter.server.problems import Problem
from tollmeter.server.proxy import keys, sign
from tollmeter.server.proxy.config import Upstream
from tollmeter.server.proxy.headers import Pairs

LIMITS = httpx2.Limits(max_connections=2_000, max_keepalive_connections=24, keepalive_expiry=30.0)
"""Few are kept idle: the library looks at each of them with every request (some 10 µs each)."""


class Asked(NamedTuple):
    """A request as its caller means it for a provider: our keys are out, the provider's is not yet in."""

    method: str
    path: str
    """As it was sent, escapes and all."""
    query: str
    headers: Pairs
    content: bytes

    def header(self, name: str) -> str:
        """Return the first header of a name; "" for none."""
        return next((value for known, value in self.headers if known == name), "")


class Provider:
    """An upstream of the configuration at work. `problem` says why it cannot be asked; "" when it can."""

    def __init__(
        self, name: str, entry: Upstream, environment: Mapping[str, str], producer: Producing, guard: Guarding | None
    ) -> None:
        self.name, self.entry = name, entry
        lacking = entry.lacks(environment)
        self.problem = f"{name} needs {' and '.join(lacking)} in the server's environment" if lacking else ""
        self._url = ""
        try:
            self._url = "" if lacking else entry.address(environment)
        except ValueError as error:
            self.problem = str(error)
        self._secret = entry.secret(environment) if entry.key == "environment" else ""
        self._signer: sign.Signer | None = None
        if not self.problem and entry.key == "environment" and entry.auth != "none" and not self._secret:
            self._without_key(environment)
        self.meter = Meter(producer, guard, entry.provider or None, signs_anew=True)
        self._transport = httpx2.AsyncHTTPTransport(limits=LIMITS, trust_env=False)
        self._timeout = {
            "connect": entry.connect_s,
            "pool": entry.connect_s,
            "read": entry.read_s,
            "write": entry.read_s,
        }

    def _without_key(self, environment: Mapping[str, str]) -> None:
        """Sign instead, where the provider takes signatures and there are credentials; else say what lacks."""
        wanted = " or ".join(self.entry.key_from)
        self.problem = f"{self.name} needs a key: {wanted} in the server's environment"
        if self.entry.auth == "aws":
            self._signer, why = sign.signer(self._url, environment)
            self.problem = f"{self.problem}, or credentials to sign with ({why})" if self._signer is None else ""

    def require(self) -> None:
        """Raise `Problem` 503 when it cannot be asked."""
        if self.problem:
            raise Problem(503, "upstream_not_configured", self.problem)

    def request(self, asked: Asked) -> httpx2.Request:
        """Return the request that goes out."""
        url = self._url + asked.path + (f"?{asked.query}" if asked.query else "")
        fixed = self.entry.headers
        headers = [(name, value) for name, value in asked.headers if name not in fixed]
        headers += [*fixed.items(), *keys.key_header(self.entry.auth, self._secret)]
        content = asked.content if asked.content or asked.method in ("POST", "PUT", "PATCH") else None
        made = httpx2.Request(
            asked.method, url, headers=headers, content=content, extensions={"timeout": dict(self._timeout)}
        )
        if self._signer is not None:
            self._signer.sign(made, asked.content)
        return made

    def seen(self, request: httpx2.Request, content: bytes) -> Request:
        """Return the request as the meter reads it."""
        parts = urlsplit(self._url)
        headers = {name.lower(): value for name, value in request.headers.items()}
        return Request(parts.netloc, request.url.path, request.url.query.decode("ascii"), headers, content)

    async def send(self, request: httpx2.Request) -> httpx2.Response:
        """Return the answer with its body still to come. Raises what the library does."""
        return await self._transport.handle_async_request(request)

    async def close(self) -> None:
        self.meter.holding.expire(everything=True)
        await self._transport.aclose()
