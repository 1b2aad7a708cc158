"""The page Tokens and keys: tracking tokens with what each reported, how to send, and the keys of the server."""

import asyncio
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.admin import registry
from tollmeter.admin.registry import Issued, ListedKey
from tollmeter.broker.registry import RegistryError
from tollmeter.schemas.access import EVERYONE
from tollmeter.server.asking import parts_of
from tollmeter.server.pages.doing import admin_form, back, done
from tollmeter.server.pages.session import Session
from tollmeter.server.pages.site import KEYS, page, reader
from tollmeter.server.problems import Problem

PATH = "/dashboard/tokens"
ROLES = {"read": "reads reports and pages", "ingest": "sends usage", "admin": "does everything"}
_USED_S = 5.0


async def tokens(request: Request) -> Response:
    """Show the tokens, a snippet for each language, and to an admin the keys."""
    session = await reader(request, KEYS)
    return session if isinstance(session, Response) else await shown(request, session)


async def shown(request: Request, session: Session, issued: Issued | None = None) -> Response:
    """Return the page; `issued` is a key whose secret it shows, this once."""
    parts, whose = parts_of(request), session.sees or EVERYONE
    listed: list[ListedKey] = []
    try:
        found = await asyncio.to_thread(registry.tokens, parts.line, whose)
        if session.role == "admin":
            listed = await asyncio.to_thread(registry.keys, parts.line, whose)
    except RegistryError as error:
        raise Problem(503, "registry_away", str(error)) from None
    try:
        told = await parts.ledger.ask_sometimes(_USED_S, "token_use", org_id=session.sees)
    except Problem:
        told = None
    used = {row["token"]: row for row in told or ()}
    return page(
        request,
        "tokens.html",
        session,
        rows=[{"token": one, "used": used.get(one.value)} for one in found],
        known=told is not None,
        chosen=request.query_params.get("show", found[-1].value if found else "TOKEN"),
        base=str(request.base_url).rstrip("/"),
        org=parts.line.org,
        keys=listed,
        roles=ROLES,
        issued=issued,
    )


async def create(request: Request) -> Response:
    """Make a token."""
    session, fields = await admin_form(request)
    parts = parts_of(request)
    org = session.sees or fields.get("org", "").strip() or session.org
    length = parts.settings.tracking_token_length
    name = fields.get("name", "").strip()
    made = await done(lambda: registry.create_token(parts.line, org, name, datetime.now(UTC), length))
    await parts.registry.catch_up()
    return back(f"{PATH}?show={made.value}")


async def change(request: Request) -> Response:
    """Switch a token off or on, or take it away."""
    session, fields = await admin_form(request)
    parts, whose = parts_of(request), session.sees or EVERYONE
    line, id_, what = parts.line, request.path_params["id"], fields.get("do", "")
    if what == "delete":
        await done(lambda: registry.delete_token(line, id_, whose))
    elif what in ("on", "off"):
        await done(lambda: registry.switch_token(line, id_, what == "on", whose))
    else:
        raise Problem(400, "do", "a token is switched on or off, or deleted")
    await parts.registry.catch_up()
    return back(PATH)


ROUTES = [
    Route(PATH, tokens, methods=["GET"]),
    Route(PATH, create, methods=["POST"]),
    Route(PATH + "/{id}", change, methods=["POST"]),
]
