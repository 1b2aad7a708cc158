"""No secret leaves the service, and no more of an address than wanted: keys are hashed, addresses cut to policy."""

import hmac
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Literal

from tollmeter.schemas.addresses import caller_form, parsed_address

DEFAULT_PEPPER = b"tollmeter"
"""Used when no pepper is set: ids are stable everywhere, but whoever holds a leaked key can recognise its id."""

_SECRET = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk[-_][A-Za-z0-9_\-]{16,}|(?:pk|rk|gsk|xai|hf|pplx|nvapi|r8)[-_][A-Za-z0-9_]{16,}"  # OpenAI, Anthropic, Groq ...
    r"|AIza[A-Za-z0-9_\-]{20,}|ya29\.[A-Za-z0-9_\-]{20,}"  # Google
    r"|xox[a-z]-[A-Za-z0-9\-]{10,}|gh[pousr]_[A-Za-z0-9]{20,}|A(?:KIA|SIA|BSK)[A-Za-z0-9+/=]{16,}"  # Slack, GitHub, AWS
    r"|eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*"  # JWT
    r"|[Bb]earer\s+[A-Za-z0-9._\-]{16,}"
    r")"
)

_SECRET_ANYWHERE = re.compile(_SECRET.pattern.removeprefix("(?<![A-Za-z0-9])"))
"""In raw bytes a secret may follow the byte of its length, which may look like a letter."""
_NAMED_SECRET = re.compile(
    r"""(?ix)(["']?\b(?:authorization|proxy-authorization|x-api-key|api[_-]?key|access[_-]?token|refresh[_-]?token|token
    |secret|client[_-]?secret|password|passwd|private[_-]?key)\b["']?\s*[:=]\s*["']?)(?:(?:basic|bearer)\s+)?[^\s"',;}&]+"""
)
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
MASK = "[secret]"

IpMode = Literal["full", "truncated", "hashed", "none"]


def key_id(secret: str | bytes, pepper: str | bytes | None = None, *, compatible: bool = False) -> str:
    """Return the short id of a provider key: 16 hex of HMAC-SHA256 under `pepper`, or 8 hex of plain SHA-256.

    The second form (`compatible`) is for set-ups that already have such ids: it confirms a leaked key to anyone.
    """
    data = secret.encode() if isinstance(secret, str) else secret
    if not data:
        return ""
    if compatible:
        return sha256(data).hexdigest()[:8]
    key = pepper.encode() if isinstance(pepper, str) else pepper
    return hmac.new(key or DEFAULT_PEPPER, data, sha256).hexdigest()[:16]


def mask_keys(text: str) -> str:
    """Return the text with whatever looks like a key or token of a provider masked; words about them stay."""
    return _SECRET_ANYWHERE.sub(MASK, text)


def mask_secrets(text: str) -> str:
    """Return the text for people to read: whatever is or is named like a secret is a mask."""
    return _NAMED_SECRET.sub(rf"\1{MASK}", _PEM.sub(MASK, mask_keys(text)))


def holds_secret(text: str) -> bool:
    """Tell whether `without_secrets` would change the text; of texts that are joined by line ends, any of them."""
    return _SECRET.search(text) is not None


NO_KEY = "a name or a reason looks like a key or token: give the id of the key, never the key; ids stand in reports"
"""What is said of an entry that would keep a secret as somebody's name."""


def without_secrets(fields: Mapping[str, object], pepper: str | bytes | None = None) -> dict[str, Any]:
    """Return the fields with every secret in them replaced by its id, in nested labels and their names too."""
    if not holds_secret("\n".join(_texts(fields.values()))):
        return dict(fields)  # nearly always so, and one search is cheaper than one a field

    def clean(value: object) -> object:
        if isinstance(value, str):
            return _SECRET.sub(lambda found: key_id(found[0], pepper), value)
        if isinstance(value, dict):
            return {clean(name): clean(item) for name, item in value.items()}
        return value

    return {name: clean(value) for name, value in fields.items()}


def _texts(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from _texts(value)
            yield from _texts(value.values())


def mask_ip(ip: str | None, mode: IpMode = "full", salt: str | bytes = b"") -> str:
    """Return an address as policy allows: as it is, as its /24 or /48, as 16 hex of a keyed hash, or not at all.

    Hashing needs a salt (change it daily): without one the whole IPv4 space can be tried. Raises ValueError then.
    Text that is no address is hashed or dropped, never passed on, unless the mode is `full`.
    """
    if not ip or mode == "none":
        return ""
    ip = caller_form(ip)
    if mode == "full":
        return ip
    if mode == "hashed":
        key = salt.encode() if isinstance(salt, str) else salt
        if not key:
            raise ValueError("hashing addresses needs a salt")
        return hmac.new(key, ip.encode(), sha256).hexdigest()[:16]
    parsed = parsed_address(ip)
    if parsed is None:
        return ""
    bits = 24 if parsed.version == 4 else 48
    return str(ipaddress.ip_network((parsed, bits), strict=False).network_address)
