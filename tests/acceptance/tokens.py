"""Tokens of people and machines, signed here: a shared secret for users, a key pair whose public half is served."""

import base64
import hmac
import json
import time
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

SECRET = "a-secret-that-only-the-test-and-the-server-know"
ISSUER, AUDIENCE = "https://issuer.example.org", "tollmeter-acceptance"
_KEY = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _signed(algorithm: str, claims: dict[str, Any]) -> tuple[str, bytes]:
    head = {"alg": algorithm, "typ": "JWT", "kid": "acceptance"}
    text = f"{_b64(json.dumps(head).encode())}.{_b64(json.dumps(claims).encode())}"
    return text, text.encode()


def user_token(user: str, org: str = "") -> str:
    """Return a JWT (HS256) of a user, of an organisation where the server has several."""
    claims = {"sub": user, "exp": int(time.time()) + 600} | ({"org_id": org} if org else {})
    text, signed = _signed("HS256", claims)
    return f"{text}.{_b64(hmac.new(SECRET.encode(), signed, sha256).digest())}"


def identity_token(audience: str) -> str:
    """Return an OIDC identity token (RS256) for an audience."""
    claims = {"iss": ISSUER, "aud": audience, "sub": "robot", "exp": int(time.time()) + 600, "iat": int(time.time())}
    text, signed = _signed("RS256", claims)
    return f"{text}.{_b64(_KEY.sign(signed, padding.PKCS1v15(), hashes.SHA256()))}"


def jwks() -> dict[str, Any]:
    """Return the public key as issuers publish it."""
    numbers = _KEY.public_key().public_numbers()
    size = (numbers.n.bit_length() + 7) // 8
    n, e = _b64(numbers.n.to_bytes(size, "big")), _b64(numbers.e.to_bytes(3, "big"))
    return {"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "acceptance", "n": n, "e": e}]}
