"""Whose key stands where: ours is found and taken out, the provider's is put in or left alone; never both go on.

Pure. The environment's key: the SDK's own key field holds a key of this server. The caller's: the SDK's field holds the
provider's key and goes on, ours stands in `x-tollmeter-key` or in the path.
"""

from collections.abc import Sequence
from typing import Literal
from urllib.parse import unquote_plus

from tollmeter.server.problems import Problem

Headers = Sequence[tuple[str, str]]
"""Names in lower case, in order, as they came."""
Whose = Literal["environment", "caller"]
Auth = Literal["bearer", "x-api-key", "x-goog-api-key", "api-key", "aws", "none"]

OUR_HEADER = "x-tollmeter-key"
KEY_HEADERS = ("authorization", "proxy-authorization", "x-api-key", "x-goog-api-key", "api-key")
KEY_PARAMETER = "key"
ACCOUNTS = ("openai-organization", "openai-project", "x-goog-user-project", "x-amz-security-token")
"""They choose the account that pays: whoever owns the key does."""
SIGNED = (
    "this request is signed for the provider's own address and cannot be sent on: use a Bedrock API key as "
    "AWS_BEARER_TOKEN_BEDROCK, or let the proxy sign with its own credentials"
)


def our_key(headers: Headers, query: str, in_path: str, whose: Whose) -> str:
    """Return the one key of ours that a request carries. Raises `Problem`: 401 without one, 400 with several."""
    refuse_signed(headers, query)
    named = {value.strip() for name, value in headers if name == OUR_HEADER and value.strip()}
    named |= {in_path} if in_path else set()
    if not named and whose == "environment":
        named = {secret for name, value in headers if name in KEY_HEADERS and (secret := _secret(value))}
        named |= {secret for name, secret in _parameters(query) if name == KEY_PARAMETER and secret}
    if len(named) > 1:
        raise Problem(400, "several_keys", "the request carries several different keys; send one")
    if not named:
        where = "the key field of your SDK" if whose == "environment" else "the header x-tollmeter-key"
        raise Problem(401, "no_key", f"a key of this server is required: put it into {where}")
    return named.pop()


def refuse_signed(headers: Headers, query: str) -> None:
    """Raise `Problem` 400 for a request that its caller signed: the signature covers the address."""
    signed = any(name == "authorization" and value.lower().lstrip().startswith("aws4-") for name, value in headers)
    if signed or any(name.lower() == "x-amz-signature" for name, _ in _parameters(query)):
        raise Problem(400, "signed_request", SIGNED)


def without_keys(headers: Headers, whose: Whose) -> list[tuple[str, str]]:
    """Return the headers without any key of ours, and without every other key where the environment's is put in."""
    dropped = {OUR_HEADER, *((*KEY_HEADERS, *ACCOUNTS) if whose == "environment" else ())}
    return [(name, value) for name, value in headers if name not in dropped]


def query_without_key(query: str, whose: Whose) -> str:
    """Return the query as it was sent, without the parameter that held a key of ours."""
    if whose == "caller" or not query:
        return query
    return "&".join(part for part in query.split("&") if unquote_plus(part.partition("=")[0]) != KEY_PARAMETER)


def key_header(auth: Auth, secret: str) -> list[tuple[str, str]]:
    """Return the header that carries the environment's key to the provider; none where it takes none, or is signed."""
    if not secret or auth == "none":
        return []
    return [("authorization", f"Bearer {secret}")] if auth in ("bearer", "aws") else [(auth, secret)]


def _secret(value: str) -> str:
    """Return the key of a header: behind `Bearer`, or the whole of it."""
    kind, _, rest = value.strip().partition(" ")
    return rest.strip() if kind.lower() == "bearer" else value.strip()


def _parameters(query: str) -> list[tuple[str, str]]:
    parts = (part.partition("=") for part in query.split("&") if part)
    return [(unquote_plus(name), unquote_plus(value)) for name, _, value in parts]
