"""The page Tokens: tracking tokens of usage that is sent over HTTP, each with what it reported, and how to send."""

import asyncio
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.admin import registry
from tollmeter.broker.registry import RegistryError
from tollmeter.schemas.access import EVERYONE
from tollmeter.server.asking import parts_of
from tollmeter.server.pages.doing import admin_form, back, done
from tollmeter.server.pages.site import page, reader
from tollmeter.server.problems import Problem

PATH = "/dashboard/tokens"
_USED_S = 5.0


async def tokens(request: Request) -> Response:
    """Show the tokens and a snippet for each language."""
    session = await reader(request)
    if isinstance(session, Response):
        return session
    parts = parts_of(request)
    try:
        found = await asyncio.to_thread(registry.tokens, parts.line, session.sees or EVERYONE)
    except RegistryError as error:
        raise Problem(503, "registry_away", str(error)) from None
    try:
        told = await parts.ledger.ask_sometimes(_USED_S, "token_use", org_id=session.sees)
    except Problem:
        told = None
    used = {row["token"]: row for row in told or ()}
    rows = [{"token": one, "used": used.get(one.value)} for one in found]
    chosen = request.query_params.get("show", found[-1].value if found else "TOKEN")
    base = str(request.base_url).rstrip("/")
    return page(
        request, "tokens.html", session, rows=rows, known=told is not None, chosen=chosen, base=base, org=parts.line.org
    )


async def create(request: Request) -> Response:
    """Make a token."""
    session, fields = await admin_form(request)
    parts = parts_of(request)
    org = session.sees or fields.get("org", "").strip() or session.org
    length = parts.settings.tracking_token_length
    name = fields.get("name", "").strip()
    made = await done(lambda: registry.create_token(parts.line, org, name, datetime.now(UTC), length))
    return back(f"{PATH}?show={made.value}")


async def change(request: Request) -> Response:
    """Switch a token off or on, or take it away."""
    session, fields = await admin_form(request)
    whose = session.sees or EVERYONE
    line, id_, what = parts_of(request).line, request.path_params["id"], fields.get("do", "")
    if what == "delete":
        await done(lambda: registry.delete_token(line, id_, whose))
    elif what in ("on", "off"):
        await done(lambda: registry.switch_token(line, id_, what == "on", whose))
    else:
        raise Problem(400, "do", "a token is switched on or off, or deleted")
    return back(PATH)


ROUTES = [
    Route(PATH, tokens, methods=["GET"]),
    Route(PATH, create, methods=["POST"]),
    Route(PATH + "/{id}", change, methods=["POST"]),
]
