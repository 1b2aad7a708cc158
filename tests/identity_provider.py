"""An identity provider for tests: a real server of JWKS on loopback, and tokens signed with its keys."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ISSUER, AUDIENCE = "https://issuer.example.org", "tollmeter"


class IdentityProvider:
    """Signs tokens with keys that it lists. `fetched` counts how often it was asked for them."""

    def __init__(self) -> None:
        self.keys = {"one": rsa.generate_private_key(public_exponent=65_537, key_size=2_048)}
        self.fetched = 0
        self.down = False
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.fetched += 1
                body = json.dumps(provider.jwks()).encode()
                self.send_response(503 if provider.down else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/jwks"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def jwks(self) -> dict[str, Any]:
        """Return the public keys as issuers publish them."""
        listed = []
        for kid, key in self.keys.items():
            public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
            listed.append({**public, "kid": kid, "alg": "RS256", "use": "sig"})
        return {"keys": listed}

    def token(self, kid: str = "one", algorithm: str = "RS256", **claims: Any) -> str:
        """Return a token; a claim that is None is left out."""
        now = int(time.time())
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "robot", "iat": now, "exp": now + 600, **claims}
        said = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(said, self.keys[kid], algorithm, headers={"kid": kid})

    def public_pem(self, kid: str = "one") -> bytes:
        """Return a public key as whoever mixes algorithms takes it for a secret."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.keys[kid].public_key().public_bytes(serialization.Encoding.PEM, form)
