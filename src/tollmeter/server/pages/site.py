"""What all pages share: templates with every value escaped, a strict policy of content, the frame around them."""

import gzip
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import cache, wraps
from typing import Any, NamedTuple
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from tollmeter.admin.reports.questions import Answered
from tollmeter.schemas.escapes import many_lines
from tollmeter.schemas.money import nano_to_text
from tollmeter.server.pages.session import Session, Standing, form_token, session_of
from tollmeter.server.problems import Problem

Handler = Callable[[Request], Awaitable[Response]]
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
}
EVERYBODY: tuple[Standing, ...] = ("admin", "read", "user")
KEYS: tuple[Standing, ...] = ("admin", "read")
"""Who may look: a user with a token at what is shown of himself alone, keys at the rest."""
TABS = (
    ("now", "Now", EVERYBODY),
    ("spend", "Spend", EVERYBODY),
    ("calls", "Calls", EVERYBODY),
    ("limits", "Limits", EVERYBODY),
    ("alerts", "Alerts", EVERYBODY),
    ("invoice", "Invoice", KEYS),
    ("tokens", "Tokens and keys", KEYS),
    ("prices", "Prices", KEYS),
    ("health", "Health", KEYS),
)
LONGEST = 4_000
"""Characters of a text that a page shows."""
LATE_S, BEHIND_S = 60, 600
"""From which age on figures are amber, and red."""


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("tollmeter.dashboards.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_seen,
    )
    made.filters |= {
        "usd": usd,
        "count": count,
        "age": age,
        "moment": moment,
        "exact": exact,
        "known": known,
        "per": per,
    }
    return made


def _seen(value: object) -> object:
    """Return text with what cannot be seen spelled out; jinja escapes it besides. What it made itself stays."""
    return many_lines(value, LONGEST) if type(value) is str else value


def exact(value: object) -> Markup:
    """Return a value that a form sends back: escaped, and with every character that it has."""
    return escape(str(value).encode("utf-8", "replace").decode())


class Text(NamedTuple):
    """A page as it is, and packed for browsers that take it so."""

    plain: bytes
    packed: bytes


def page(request: Request, name: str, session: Session | None, status: int = 200, **values: object) -> Response:
    """Return a page. Values are text, numbers, and rows of them: the template escapes them all."""
    return sent(request, text(request, name, session, **values), status)


def sent(request: Request, made: Text, status: int = 200) -> Response:
    """Return a page that was made, packed where the browser says that it may be.

    What a form carries is safe in it: our cookies go to no request of another site, which could measure the answers.
    """
    packs = "gzip" in request.headers.get("accept-encoding", "")
    headers = {**HEADERS, "vary": "accept-encoding", **({"content-encoding": "gzip"} if packs else {})}
    return HTMLResponse(made.packed if packs else made.plain, status, headers)


def text(request: Request, name: str, session: Session | None, **values: object) -> Text:
    """Return the text of a page."""
    frame = {
        "tabs": [(tab, title) for tab, title, whose in TABS if session is not None and session.role in whose],
        "tab": name.partition(".")[0],
        "session": session,
        "form": form_token(request),
        "path": request.url.path,
        "query": request.url.query,
        "clock": datetime.now(UTC).strftime("%H:%M:%S"),
    }
    plain = _templates().get_template(name).render(**frame, **values).encode()
    return Text(plain, gzip.compress(plain, 5, mtime=0))


async def looker(request: Request, whose: Collection[Standing] = EVERYBODY) -> Session:
    """Return who looks. Raises `Problem` 401, or 403 for whoever may not look at this."""
    session = await session_of(request)
    if session.role not in whose:
        raise Problem(403, "wrong_role", "this page is for keys of the organisation, not for a user's token")
    return session


async def reader(request: Request, whose: Collection[Standing] = EVERYBODY) -> Session | Response:
    """Return who looks, or the way to the sign-in. Raises `Problem` 403 for whoever may not look at this."""
    try:
        return await looker(request, whose)
    except Problem as problem:
        if problem.status != 401:
            raise
        where = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/dashboard/sign-in?{urlencode({'next': where})}", 303, HEADERS)


def told(handler: Handler) -> Handler:
    """Show what a page cannot do as a page, to whoever reads pages."""

    @wraps(handler)
    async def answered(request: Request) -> Response:
        try:
            return await handler(request)
        except Problem as problem:
            if "text/html" not in request.headers.get("accept", ""):
                raise
            try:
                session = await session_of(request)
            except Problem:
                session = None
            return page(request, "problem.html", session, problem.status, detail=problem.detail, code=problem.code)

    return answered


def standing(answered: Answered, now: datetime) -> dict[str, Any]:
    """Return what `totals.html` shows of an answer: its sums, its age in seconds, from when on calls are kept."""
    as_of = answered.as_of
    age_s = None if as_of is None else max(0.0, (now - as_of).total_seconds())
    return {"total": answered.total, "age_s": age_s, "kept": answered.kept}


def usd(nano: int | None, places: int = 4) -> str:
    """Return an amount for people; what is not known is a dash, and what is there but would read 0 is "<0.0001"."""
    least = 10 ** (9 - places)
    if nano and 2 * abs(nano) <= least:
        return ("<" if nano > 0 else ">-") + nano_to_text(least, places)
    return nano_to_text(None if nano is None else int(nano), places)


def known(nano: int, unpriced: int) -> int | None:
    """Return a sum of what is known; of 0 beside calls without a price nothing is, and it is None."""
    return None if unpriced and not nano else nano


def per(nano: int | None, parts: int) -> int | None:
    """Return one part of an amount, rounded down."""
    return None if nano is None else nano // parts


def count(number: int | None) -> str:
    """Return a count for people."""
    return "—" if number is None else f"{int(number):,}"


def age(seconds: float | None) -> Mapping[str, str]:
    """Return how old figures are, in words and as a class of the page: fresh, late, behind, unknown."""
    if seconds is None:
        return {"words": "nothing heard yet", "kind": "unknown"}
    kind = "fresh" if seconds < LATE_S else "late" if seconds < BEHIND_S else "behind"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return {"words": f"{seconds / length:.0f} {unit} old", "kind": kind}
    return {"words": f"{seconds:.0f} s old", "kind": kind}


def moment(seconds: float) -> datetime:
    """Return a time of seconds since 1970, in UTC."""
    return datetime.fromtimestamp(seconds, UTC)
