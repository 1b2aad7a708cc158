"""Signing in and out: a key that reads or administers, shown once, for a cookie."""

import time
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from tollmeter.server.asking import address_of, parts_of
from tollmeter.server.pages.session import Session, begin, forget, is_token, of_token, posted, remember, session_of
from tollmeter.server.pages.site import HEADERS, page
from tollmeter.server.parts import Parts
from tollmeter.server.problems import Problem

HOME = "/dashboard/now"


async def root(request: Request) -> Response:
    """Lead to the first page."""
    return RedirectResponse(HOME, 303, HEADERS)


async def sign_in(request: Request) -> Response:
    """Show the form, and take it."""
    onward = _local(request.query_params.get("next", ""))
    if request.method == "GET":
        return page(request, "sign_in.html", None, onward=onward, wrong="")
    parts = parts_of(request)
    parts.limits.ingest.take(f"sign-in {address_of(request.scope, parts)}")
    fields = await posted(request)
    lasting = fields.get("remember") == "on"
    try:
        session = await _session(parts, fields.get("key", "").strip(), lasting)
    except Problem as problem:
        return page(request, "sign_in.html", None, problem.status, onward=onward, wrong=problem.detail)
    answer = RedirectResponse(_local(fields.get("next", "")), 303, HEADERS)
    remember(request, answer, session, lasting=lasting)
    return answer


async def _session(parts: Parts, presented: str, lasting: bool) -> Session:
    """Return the session that a key or a user's token opens. Raises `Problem` 401, 403 or 503."""
    if is_token(parts, presented):
        return await of_token(parts, presented, time.time())
    caller = parts.directory.caller(presented) if presented else None
    if caller is None and presented and not parts.directory.loaded:
        raise Problem(503, "keys_not_known", "Keys are not known yet: try again in a moment.")
    if caller is None:
        raise Problem(401, "no_such_key", "Nobody knows this key.")
    if caller.role == "ingest":
        raise Problem(403, "wrong_role", "This key only sends usage: a key that reads is asked for.")
    return begin(parts, caller, presented, lasting, time.time())


async def sign_out(request: Request) -> Response:
    """Take the cookie away."""
    try:
        await session_of(request)
        await posted(request)
    except Problem as problem:
        if problem.status not in (401, 403):
            raise
    answer = RedirectResponse("/dashboard/sign-in", 303, HEADERS)
    forget(request, answer)
    return answer


def _local(text: str) -> str:
    """Return a path of ours; anything else leads home."""
    parts = urlsplit(text)
    inside = not parts.scheme and not parts.netloc and text.startswith("/dashboard") and "\\" not in text
    return text if inside else HOME


ROUTES = [
    Route("/dashboard", root),
    Route("/dashboard/", root),
    Route("/dashboard/sign-in", sign_in, methods=["GET", "POST"], name="sign-in"),
    Route("/dashboard/sign-out", sign_out, methods=["POST"]),
]
