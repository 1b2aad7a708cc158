"""Who looks at a page: whoever signed in with a key that reads or administers, or a token, as a signed cookie says.

A key sees its own organisation, the environment's API_KEY that of TOLLMETER_ORG; only where no key is asked for all of
them are shown. The token of a user (JWT) sees that user's own figures and changes nothing. The cookie holds the role,
the organisation, the user, the key's name and an end, under an HMAC of the secret; neither key nor token is in it. A
key of the environment that is changed, or one of the registry that is switched off or has another role now, ends the
sessions that it began; those of a token end with it. Forms carry a token that is bound to the cookie.
"""

import base64
import hmac
import json
import secrets
import time
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from tollmeter.admin.secret import SecretError, secret_of
from tollmeter.server.asking import parts_of
from tollmeter.server.auth import Caller, Role
from tollmeter.server.parts import Parts
from tollmeter.server.people import bare, looks_like_token
from tollmeter.server.problems import Problem

Standing = Role | Literal["user"]
"""What a reader may see and do: a key's role, or no more than a user's own figures."""
COOKIE = "tollmeter"
DAY_S, REMEMBERED_S, REGISTRY_S = 12 * 3_600, 30 * 86_400, 3_600
_FALLBACK = secrets.token_bytes(32)
"""Where a server has no secret its sessions end with it."""


@dataclass(frozen=True, slots=True)
class Session:
    """A reader of pages. `proof` tells the environment's key of then from another one."""

    role: Standing
    org: str
    key_id: str
    ends_s: int
    proof: str = ""
    user: str = ""
    """The one user whose figures are shown; "" for everybody of the organisation."""

    @property
    def sees(self) -> str:
        """The organisation whose figures are shown and changed; "" for all of them, where no key is asked for."""
        return self.org if self.key_id else ""

    def orgs(self, home: str) -> list[str]:
        """Return the organisations whose calls are shown, none = all; calls that name none are those of `home`."""
        return [self.sees, ""] if self.sees and self.sees == home else [self.sees] if self.sees else []


def begin(parts: Parts, caller: Caller, presented: str, remember: bool, now_s: float) -> Session:
    """Return the session of whoever has shown a key."""
    from_environment = _proof_of(parts, caller.key_id)
    lasts_s = REGISTRY_S if not from_environment and presented else REMEMBERED_S if remember else DAY_S
    return Session(caller.role, caller.org_id, caller.key_id, int(now_s) + lasts_s, from_environment)


async def of_token(parts: Parts, token: str, now_s: float) -> Session:
    """Return the session of a user who has shown a token: of an hour, or until it ends. Raises `Problem` 401 or 503."""
    known = await parts.people.known(token)
    ends_s = min(known.ends_s, int(now_s) + REGISTRY_S)
    return Session("user", known.org_id or parts.line.org, f"user:{known.user_id}"[:128], ends_s, "", known.user_id)


def is_token(parts: Parts, presented: str) -> bool:
    """Tell a user's token from a key, where tokens are read at all."""
    return parts.people.reads and looks_like_token(presented)


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


async def session_of(request: Request) -> Session:
    """Return who looks, by cookie or by a key or a token in a header. Raises `Problem` 401, 403 or 503."""
    parts = parts_of(request)
    text = request.cookies.get(_name(request.url.scheme == "https"), "")
    if text and (session := _unpacked(parts, text)) is not None:
        return session
    token = bare(request.headers.get("authorization", ""))
    if is_token(parts, token):
        return await of_token(parts, token, time.time())
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
    if session.user or session.proof or not session.key_id:
        return session
    return session if parts.registry.holds(session.key_id, session.role, session.org) else None
