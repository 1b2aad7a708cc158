"""A webhook: one signed POST to an address that was checked, over a connection that follows nothing.

Signed as the Standard Webhooks specification says: `webhook-id`, `webhook-timestamp`, and in `webhook-signature`
base64(HMAC-SHA256(key, "id.timestamp.body")), so that libraries of many languages verify it.
"""

import base64
import binascii
import hmac
import http.client
import socket
import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from hashlib import sha256
from urllib.parse import urlsplit

from pydantic import SecretStr

from tollmeter.sinks.channels import config
from tollmeter.sinks.channels.address import ForbiddenAddressError, Resolve, pinned, system_resolve
from tollmeter.sinks.channels.message import Away, Message, Refused

_LATER = frozenset({408, 425, 429})
LONGEST_WAIT_S = 3_600.0


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature`."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, sha256)).decode()


def retry_after_s(said: str, now_s: float) -> float:
    """Return how long a receiver wants to be left alone: seconds or a date (RFC 9110, 10.2.3), an hour at the most.

    0 for what is neither: a receiver may ask for a pause, not for silence.
    """
    try:
        wait_s = float(said) if said.strip().isdecimal() else parsedate_to_datetime(said).timestamp() - now_s
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(wait_s, 0.0), LONGEST_WAIT_S)


def key_bytes(secret: str) -> bytes:
    """Return the key that a secret stands for: `whsec_` is followed by base64, all else is meant literally."""
    if secret.startswith("whsec_"):
        try:
            return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            raise ValueError("the part behind whsec_ is no base64") from None
    return secret.encode()


class Webhook:
    """Posts each message once per call."""

    def __init__(
        self,
        wanted: config.Webhook,
        key: SecretStr,
        resolve: Resolve = system_resolve,
        clock: Callable[[], float] = time.time,
    ) -> None:
        parts = urlsplit(wanted.url)
        self._tls = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port or (443 if self._tls else 80)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._wanted, self._key = wanted, SecretStr(key.get_secret_value())
        self._resolve, self._clock = resolve, clock
        key_bytes(key.get_secret_value())

    def check(self) -> None:
        """Raise `ForbiddenAddressError` for a host with a private address; an unknown one may be known later."""
        try:
            pinned(self._host, self._port, self._wanted.allow, self._resolve)
        except OSError:
            return

    def deliver(self, message: Message) -> None:
        """Return when the receiver answered 2xx. Raises `Away` or `Refused`; the host is named, never the whole URL."""
        connection: http.client.HTTPConnection | None = None
        try:
            address = pinned(self._host, self._port, self._wanted.allow, self._resolve)
            connection = self._connection(address)
            connection.request("POST", self._path, message.document(), self._headers(message))
            with connection.getresponse() as answer:
                status, wait_s = answer.status, retry_after_s(answer.headers.get("retry-after", ""), self._clock())
        except (ForbiddenAddressError, UnicodeError) as error:
            raise Refused(str(error)) from None
        except (OSError, http.client.HTTPException) as error:
            raise Away(f"{self._host} does not answer ({type(error).__name__})") from None
        finally:
            if connection is not None:
                connection.close()
        if status in _LATER or status >= 500:
            raise Away(f"{self._host} answered {status}", wait_s)
        if 300 <= status < 400:
            raise Refused(f"{self._host} answered {status}: redirects are not followed")
        if not 200 <= status < 300:
            raise Refused(f"{self._host} answered {status}")

    def _headers(self, message: Message) -> dict[str, str]:
        timestamp = int(self._clock())
        return {
            "content-type": "application/json",
            "user-agent": "tollmeter-notify",
            "idempotency-key": message.key,
            "webhook-id": message.key,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(
                key_bytes(self._key.get_secret_value()), message.key, timestamp, message.document()
            ),
        }

    def _connection(self, address: str) -> http.client.HTTPConnection:
        """Return a connection to the checked address that still names the host, also to the certificate check."""
        if self._tls:
            context = ssl.create_default_context()
            return _PinnedTls(address, self._host, self._port, timeout=self._wanted.timeout, context=context)
        return _Pinned(address, self._host, self._port, timeout=self._wanted.timeout)


class _Pinned(http.client.HTTPConnection):
    def __init__(self, address: str, host: str, port: int, *, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout)
        self._address = address

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), self.timeout)


class _PinnedTls(http.client.HTTPSConnection):
    def __init__(self, address: str, host: str, port: int, *, timeout: float, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=timeout, context=context)
        self._address, self._tls = address, context

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
