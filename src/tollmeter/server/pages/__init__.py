"""Pages for people, below /dashboard: made here, whole, and usable without JavaScript.

A page is a module with `ROUTES`; this list is all that makes one known.
"""

from starlette.routing import BaseRoute, Route

from tollmeter.server.pages import (
    alerts,
    calls,
    files,
    health,
    incidents,
    invoice,
    keys,
    limits,
    now,
    prices,
    sign_in,
    spend,
    tokens,
)
from tollmeter.server.pages.site import told


def routes() -> list[BaseRoute]:
    """Return the routes of all pages."""
    modules = (sign_in, now, spend, invoice, calls, limits, alerts, incidents, tokens, keys, prices, health, files)
    found = [route for module in modules for route in module.ROUTES]
    return [Route(one.path, told(one.endpoint), methods=one.methods, name=one.name) for one in found]
