"""The answers, each a module with `ROUTES`; this list is all that makes one known.

A handler takes a Starlette request and returns a response, or raises `Problem`. `caller_of(request, "read")` says who
asks, and counts the request; `parts_of(request)` has the rest of the server.
"""

from functools import wraps

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tollmeter.server.answers import (
    alerts,
    billing,
    costs,
    data,
    description,
    health,
    invoice,
    keys,
    limits,
    metrics,
    models,
    spend,
    tokens,
)
from tollmeter.server.query import checked, taken_of

LENIENT = frozenset({"/ping", "/health", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs"})
"""What probes, scrapers and browsers ask for, with whatever they add."""


def routes() -> list[BaseRoute]:
    """Return the routes of all answers. One that takes no parameter refuses them, as the others refuse unknown ones."""
    modules = (health, description, metrics, costs, billing, spend, invoice, data, tokens, keys, limits, models, alerts)
    return [_strict(route) for module in modules for route in module.ROUTES]


def _strict(route: Route) -> Route:
    handler = route.endpoint
    if route.path in LENIENT or taken_of(handler).parameters:
        return route

    @wraps(handler)
    async def answered(request: Request) -> Response:
        checked(request)
        answer: Response = await handler(request)
        return answer

    return Route(route.path, answered, methods=route.methods, name=route.name)
