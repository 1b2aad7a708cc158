"""Keys of the server on the page Tokens and keys: made, given a new secret, switched off, deleted.

A secret is in the answer to the form that asked for it and nowhere else: the registry keeps a keyed hash.
"""

from datetime import UTC, datetime, timedelta
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.admin import registry
from tollmeter.admin.registry import Issued
from tollmeter.schemas.access import EVERYONE
from tollmeter.schemas.registry import Role
from tollmeter.server.asking import parts_of
from tollmeter.server.pages.doing import admin_form, back, choice, done
from tollmeter.server.pages.tokens import PATH as BACK
from tollmeter.server.pages.tokens import ROLES, shown
from tollmeter.server.problems import Problem

PATH = "/dashboard/keys"
OVERLAP = timedelta(days=1)
"""So long the secret of before works beside the new one."""


async def create(request: Request) -> Response:
    """Make a key, and show its secret this once. What it may say of others' identity is not given away on a page."""
    session, fields = await admin_form(request)
    parts, name = parts_of(request), fields.get("name", "").strip()
    org = session.sees or fields.get("org", "").strip() or parts.line.org
    role = cast("Role", choice(fields, "role", ROLES, "read"))
    made = await done(lambda: registry.create_key(parts.line, org, role, name, datetime.now(UTC)))
    await parts.registry.catch_up()
    return await shown(request, session, issued=made)


async def change(request: Request) -> Response:
    """Give a key a new secret, switch it off or on, or take it away for good."""
    session, fields = await admin_form(request)
    parts, id_, what = parts_of(request), request.path_params["id"], fields.get("do", "")
    line, whose, now = parts.line, session.sees or EVERYONE, datetime.now(UTC)
    issued: Issued | None = None
    if what == "rotate":
        issued = await done(lambda: registry.rotate_key(line, id_, now, now + OVERLAP, whose))
    elif what in ("on", "off"):
        await done(lambda: registry.switch_key(line, id_, what == "on", whose))
    elif what == "delete":
        await done(lambda: registry.delete_key(line, id_, whose))
    else:
        raise Problem(400, "do", "a key is given a new secret, switched on or off, or deleted")
    await parts.registry.catch_up()
    return back(f"{BACK}#keys") if issued is None else await shown(request, session, issued=issued)


ROUTES = [Route(PATH, create, methods=["POST"]), Route(PATH + "/{id}", change, methods=["POST"])]
