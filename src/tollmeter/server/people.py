"""Identity tokens (JWT) of users and machines: signature, time, issuer and audience are checked, by fixed algorithms.

A token signed with the shared secret is HS256 and names a user. One of an identity provider is signed by a key that its
JWKS lists; the two never mix: a public key is never taken for a secret, and `none` for no signature.
"""

import asyncio
import time
from typing import Any, NamedTuple

import jwt

from tollmeter.server.problems import Problem
from tollmeter.server.settings import ServerSettings

SHARED = ("HS256",)
SIGNED = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY_S = 30
KEYS_KEPT_S = 300.0
KEYS_SOONEST_S = 30.0
"""An unknown key id asks for the keys again, but no more often than that."""
KEYS_STALE_S = 86_400.0
"""So long known keys are good while their provider does not answer."""
FETCH_S = 5.0
_ORG_CLAIMS = ("org_id", "org")
_Claims = dict[str, Any]


class Known(NamedTuple):
    """A user as a token names him; an organisation of "" is not said. `ends_s`: seconds since 1970."""

    user_id: str
    org_id: str
    ends_s: int


class People:
    """Reads the tokens of one server's settings."""

    def __init__(self, settings: ServerSettings) -> None:
        self._secret = settings.jwt_secret.get_secret_value()
        self._issuer, self._audience = settings.oidc_issuer, settings.oidc_audience
        self._keys = _Keys(settings.oidc_jwks_url) if settings.oidc_jwks_url else None

    @property
    def has_provider(self) -> bool:
        """Whether tokens of an identity provider are read."""
        return self._keys is not None

    @property
    def reads(self) -> bool:
        """Whether tokens are read at all."""
        return bool(self._secret) or self._keys is not None

    async def user(self, authorization: str) -> tuple[str, str]:
        """Return user and organisation ("" = not said) of a header, with or without Bearer. Raises `Problem` 401."""
        known = await self.known(bare(authorization))
        return known.user_id, known.org_id

    async def known(self, token: str) -> "Known":
        """Return whose token it is, and until when. Raises `Problem` 401 or 503."""
        if not token:
            raise refusal("no_token", "no token: send the user's JWT in the header Authorization")
        if not self._secret and self._keys is None:
            raise refusal("no_token", "users have no tokens here: set JWT_SECRET, or OIDC_JWKS_URL with its others")
        shared = _algorithm(token) in SHARED
        claims = self._shared(token) if shared else await self.machine(token)
        org = next((str(claims[name]) for name in _ORG_CLAIMS if claims.get(name)), "")
        return Known(str(claims["sub"]), org, int(claims["exp"]))

    async def machine(self, token: str) -> _Claims:
        """Return the claims of an identity provider's token for this audience. Raises `Problem` 401 or 503."""
        if self._keys is None:
            raise refusal("bad_token", "tokens of an identity provider are not read here: OIDC_JWKS_URL is not set")
        if _algorithm(token) not in SIGNED:
            raise refusal("bad_token", "the token is signed in a way that is not taken here")
        key = await self._keys.of(_kid(token))
        return _decoded(token, key, SIGNED, audience=self._audience, issuer=self._issuer)

    def _shared(self, token: str) -> _Claims:
        if not self._secret:
            raise refusal("bad_token", "tokens with a shared secret are not read here: JWT_SECRET is not set")
        return _decoded(token, self._secret, SHARED)


class _Keys:
    """The public keys of a provider by their ids, fetched now and then, one fetch at a time."""

    def __init__(self, url: str) -> None:
        self._client = jwt.PyJWKClient(url, cache_jwk_set=False, cache_keys=False, timeout=FETCH_S)
        self._known: dict[str, jwt.PyJWK] = {}
        self._fetched = self._tried = float("-inf")
        self._lock = asyncio.Lock()

    async def of(self, kid: str) -> jwt.PyJWK:
        """Return a key. Raises `Problem` 401 for one that is not listed, 503 while none is known."""
        async with self._lock:
            now = time.monotonic()
            wanted = now > self._fetched + KEYS_KEPT_S or kid not in self._known
            if wanted and now > self._tried + KEYS_SOONEST_S:
                self._tried = now
                await self._fetch(now)
            if now > self._fetched + KEYS_STALE_S:
                raise Problem(503, "keys_away", "the identity provider's keys cannot be read now: try again")
        found = self._known.get(kid)
        if found is None:
            raise refusal("bad_token", "the token is signed with a key that its provider does not list")
        return found

    async def _fetch(self, now: float) -> None:
        try:
            listed = await asyncio.to_thread(self._client.get_jwk_set)
        except (jwt.PyJWTError, ValueError, OSError):
            return  # what is known stays known for a while
        self._known = {key.key_id or "": key for key in listed.keys if key.public_key_use in (None, "sig")}
        self._fetched = now


def bare(authorization: str) -> str:
    """Return a header's token, which some clients send without the word Bearer."""
    scheme, _, value = authorization.strip().partition(" ")
    return value.strip() if scheme.lower() == "bearer" else authorization.strip()


def looks_like_token(text: str) -> bool:
    """Tell a JWT from a key."""
    return text.count(".") == 2


def refusal(code: str, detail: str) -> Problem:
    """Return the answer to whoever is not known."""
    return Problem(401, code, detail, headers={"www-authenticate": 'Bearer realm="tollmeter"'})


def _algorithm(token: str) -> str:
    return str(_header(token).get("alg", ""))


def _kid(token: str) -> str:
    return str(_header(token).get("kid", ""))


def _header(token: str) -> _Claims:
    try:
        return jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        raise refusal("bad_token", "this is no token: three parts with dots between them are expected") from None


def _decoded(
    token: str, key: jwt.PyJWK | str, algorithms: tuple[str, ...], *, audience: str = "", issuer: str = ""
) -> _Claims:
    required = ["exp", "sub", *(("aud", "iss") if audience else ())]
    options: Any = {"require": required, "verify_aud": bool(audience)}
    try:
        claims = jwt.decode(
            token,
            key,
            list(algorithms),
            options=options,
            audience=audience or None,
            issuer=issuer or None,
            leeway=LEEWAY_S,
        )
    except jwt.ExpiredSignatureError:
        raise refusal("token_expired", "the token has expired: get a new one") from None
    except jwt.InvalidAudienceError:
        raise refusal("bad_token", "the token is for another audience") from None
    except jwt.InvalidIssuerError:
        raise refusal("bad_token", "the token is of another issuer") from None
    except jwt.MissingRequiredClaimError as error:
        raise refusal("bad_token", f"the token does not say {error.claim}") from None
    except (jwt.PyJWTError, ValueError, TypeError):
        raise refusal("bad_token", "the token's signature or form is wrong") from None
    if not isinstance(claims.get("sub"), str) or not claims["sub"].strip():
        raise refusal("bad_token", "the token names nobody: sub is empty")
    return claims
