"""The answers, each a module with `ROUTES`; this list is all that makes one known.

A handler takes a Starlette request and returns a response, or raises `Problem`. `caller_of(request, "read")` says who
asks, and counts the request; `parts_of(request)` has the rest of the server.
"""

from starlette.routing import BaseRoute

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


def routes() -> list[BaseRoute]:
    """Return the routes of all answers."""
    modules = (health, description, metrics, costs, billing, spend, invoice, data, tokens, keys, limits, models, alerts)
    return [route for module in modules for route in module.ROUTES]
