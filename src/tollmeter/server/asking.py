"""What an answer asks of its request: who it is from, under which limit, with which parameters."""

from starlette.requests import Request
from starlette.types import Scope

from tollmeter.producers.middleware.forwarded import caller_address
from tollmeter.schemas.addresses import rated_as
from tollmeter.server.auth import Caller, Role, presented
from tollmeter.server.parts import Parts
from tollmeter.server.people import looks_like_token

TOLD = "tollmeter.told"
"""Where headers stand that tell what is left of a limit."""


def parts_of(request: Request) -> Parts:
    """Return the parts of the server."""
    parts: Parts = request.app.state.parts
    return parts


def address_of(scope: Scope, parts: Parts) -> str:
    """Return the address that a request counts for: of whom our proxies saw; an IPv6 network is one caller."""
    peer = scope.get("client")
    headers = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
    seen = caller_address(headers, peer[0] if peer else None, parts.settings.server_trusted_proxies)
    return rated_as(seen, parts.line.rate_ipv6_prefix) if seen else ""


def request_id_of(request: Request) -> str:
    """Return the id of the request, which its answer carries, too."""
    return str(request.scope["tollmeter.request_id"])


def caller_of(request: Request, *roles: Role) -> Caller:
    """Return who asks, in one of these roles, and count the request. Raises `Problem` 401, 403 or 429."""
    parts = parts_of(request)
    caller = parts.doorman.identify(request.scope["tollmeter.headers"], roles)
    count(request, caller)
    return caller


async def reader_of(request: Request) -> Caller:
    """Return who reads: a key, or a machine with an identity token for our audience. Raises as `caller_of` does."""
    parts, headers = parts_of(request), request.scope["tollmeter.headers"]
    token = presented(headers)
    if not (parts.people.has_provider and looks_like_token(token)):
        return caller_of(request, "read")
    claims = await parts.people.machine(token)
    caller = Caller(f"oidc:{claims['sub']}"[:128], "read", parts.line.org)
    count(request, caller)
    return caller


def count(request: Request, caller: Caller) -> None:
    """Count a request under the limit of people and pages. Raises `Problem` 429."""
    parts = parts_of(request)
    exempt = parts.settings.rate_limit_exempt
    if not any(request.url.path == path or request.url.path.startswith(f"{path}/") for path in exempt):
        request.scope[TOLD] = parts.limits.admin.take(caller.key_id or address_of(request.scope, parts))
