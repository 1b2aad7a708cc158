"""Who looks at a page: whoever signed in with a key that reads or administers, as a signed cookie says.

A key sees its own organisation, the environment's API_KEY that of TOLLMETER_ORG; only where no key is asked for all of
them are shown. The cookie holds the role, the organisation, the key's name and an end, under an HMAC of the secret;
the key is not in it. A key of the environment that is changed ends the sessions that it began; one of the registry
opens a session of an hour, so that a key that was switched off is of no use for longer. Forms carry a token that is
bound to the cookie.
"""

import base64
import hmac
import json
import secrets
import time
from dataclasses import asdict, dataclass
from hashlib import sha256

from starlette.requests import Request
from starlette.responses import Response

from tollmeter.admin.secret import SecretError, secret_of
from tollmeter.server.asking import parts_of
from tollmeter.server.auth import Caller, Role
from tollmeter.server.parts import Parts
from tollmeter.server.problems import Problem

COOKIE = "tollmeter"
DAY_S, REMEMBERED_S, REGISTRY_S = 12 * 3_600, 30 * 86_400, 3_600
_FALLBACK = secrets.token_bytes(32)
"""Where a server has no secret its sessions end with it."""


@dataclass(frozen=True, slots=True)
class Session:
    """A reader of pages. `proof` tells the environment's key of then from another one."""

    role: Role
    org: str
    key_id: str
    ends_s: int
    proof: str = ""

    @property
    def sees(self) -> str:
        """The organisation whose figures are shown and changed; "" for all of them, where no key is asked for."""
        return self.org if self.key_id else ""


def begin(parts: Parts, caller: Caller, presented: str, remember: bool, now_s: float) -> Session:
    """Return the session of whoever has shown a key."""
    from_environment = _proof_of(parts, caller.key_id)
    lasts_s = REGISTRY_S if not from_environment and presented else REMEMBERED_S if remember else DAY_S
    return Session(caller.role, caller.org_id, caller.key_id, int(now_s) + lasts_s, from_environment)


def remember(request: Request, response: Response, session: Session, *, lasting: bool) -> None:
    """Set the cookie: for this host alone where the page came over TLS."""
    parts, secure = parts_of(request), request.url.scheme == "https"
    text = _packed(parts, session)
    age = session.ends_s - int(time.time()) if lasting else None
    response.set_cookie(_name(secure), text, max_age=age, path="/", secure=secure, httponly=True, samesite="strict")


def forget(request: Request, response: Response) -> None:
    """Take the cookie away."""
    secure = request.url.scheme == "https"
    response.delete_cookie(_name(secure), path="/", secure=secure, httponly=True, samesite="strict")


def session_of(request: Request) -> Session:
    """Return who looks, by cookie or by a key in a header. Raises `Problem` 401 or 403."""
    parts = parts_of(request)
    text = request.cookies.get(_name(request.url.scheme == "https"), "")
    if text and (session := _unpacked(parts, text)) is not None:
        return session
    caller = parts.doorman.identify(request.scope["tollmeter.headers"], ("read",))
    return Session(caller.role, caller.org_id, caller.key_id, int(time.time()) + DAY_S)


def form_token(request: Request) -> str:
    """Return what a form of this reader carries."""
    cookie = request.cookies.get(_name(request.url.scheme == "https"), "")
    return hmac.new(_key(parts_of(request)), b"form\0" + cookie.encode(), sha256).hexdigest()[:32]


async def posted(request: Request) -> dict[str, str]:
    """Return the fields of a form of our own. Raises `Problem` 403 for one that is not, 413 for a long one."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > 65_536:
            raise Problem(413, "too_large", "a form of a page is smaller than 64 KiB")
    from urllib.parse import parse_qsl

    fields = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    site = request.headers.get("sec-fetch-site", "same-origin")
    if site not in ("same-origin", "none") or not hmac.compare_digest(fields.get("form", ""), form_token(request)):
        raise Problem(403, "form", "this form belongs to another sign-in: open the page again and repeat it")
    return fields


def _name(secure: bool) -> str:
    return f"__Host-{COOKIE}" if secure else COOKIE


def _key(parts: Parts) -> bytes:
    try:
        secret = secret_of(parts.line)
    except SecretError:
        secret = _FALLBACK
    return hmac.new(secret, b"cookies of pages", sha256).digest()


def _proof_of(parts: Parts, key_id: str) -> str:
    """Return what tells a key of the environment from the one that stood there before; "" for any other."""
    keys = {"API_KEY": parts.settings.api_key, "READ_KEY": parts.settings.read_key}
    if key_id not in keys:
        return ""
    value = keys[key_id].get_secret_value().encode("utf-8", "surrogateescape")
    return hmac.new(_key(parts), b"proof\0" + value, sha256).hexdigest()[:32]


def _packed(parts: Parts, session: Session) -> str:
    body = base64.urlsafe_b64encode(json.dumps(asdict(session), separators=(",", ":")).encode()).decode().rstrip("=")
    return f"{body}.{hmac.new(_key(parts), body.encode(), sha256).hexdigest()}"


def _unpacked(parts: Parts, text: str) -> Session | None:
    body, _, mark = text.partition(".")
    wanted = hmac.new(_key(parts), body.encode("utf-8", "replace"), sha256).hexdigest()
    if not hmac.compare_digest(mark.encode("utf-8", "replace"), wanted.encode()):
        return None
    session = Session(**json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))))
    if session.ends_s <= time.time() or session.proof != _proof_of(parts, session.key_id):
        return None
    return session
