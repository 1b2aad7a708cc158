"""Which headers pass the proxy, either way: those of the message do, those of one connection and of one party do not.

Pure. Names are in lower case. RFC 9110, 7.6.1: what `Connection` names is of that connection, too.
"""

from collections.abc import Iterable

from tollmeter.producers.http.answer import PREFIX

Pairs = list[tuple[str, str]]
HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    )
)
_FRAMING = frozenset(("host", "content-length", "expect"))
_OF_THE_CALLER = frozenset(
    ("cookie", "forwarded", "via", "x-real-ip", "true-client-ip", "cf-connecting-ip", "client-ip")
)
"""Who calls from where is nobody's business at the provider; cookies are those of our own pages."""
_OF_THE_PROVIDER = frozenset(
    ("set-cookie", "set-cookie2", "alt-svc", "server", "date", "strict-transport-security", "report-to", "nel")
)
"""They speak of the provider's address, and would be taken for ours."""


def to_provider(headers: Iterable[tuple[str, str]]) -> Pairs:
    """Return the headers of a request that go on to the provider."""
    return [
        (name, value)
        for name, value in _of_the_message(headers)
        if name not in _FRAMING and name not in _OF_THE_CALLER and not name.startswith((PREFIX, "x-forwarded-"))
    ]


def to_caller(headers: Iterable[tuple[str, str]]) -> Pairs:
    """Return the headers of an answer that go back to the caller; what tollmeter says of it is added by itself."""
    return [
        (name, value)
        for name, value in _of_the_message(headers)
        if name not in _OF_THE_PROVIDER and not name.startswith((PREFIX, "access-control-"))
    ]


def _of_the_message(headers: Iterable[tuple[str, str]]) -> Pairs:
    pairs = list(headers)
    named = {
        part.strip().lower()
        for name, value in pairs
        if name == "connection"
        for part in value.split(",")
        if part.strip()
    }
    return [(name, value) for name, value in pairs if name not in HOP_BY_HOP and name not in named]
