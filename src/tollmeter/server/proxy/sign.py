"""Requests to Bedrock are signed anew, with the credentials that AWS's library finds (extra `bedrock`: botocore)."""

from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlsplit

import httpx2

from tollmeter.installing import how_to_get

SERVICE = "bedrock"


class Credentials(Protocol):
    """What botocore finds; they refresh themselves."""

    def get_frozen_credentials(self) -> object: ...


def signer(url: str, environment: Mapping[str, str]) -> tuple["Signer | None", str]:
    """Return what signs for an address; None, and why, without library, region or credentials."""
    try:
        import botocore.session
    except ModuleNotFoundError:
        return None, how_to_get("bedrock")
    parts = (urlsplit(url).hostname or "").split(".")
    region = environment.get("AWS_REGION") or (parts[1] if len(parts) > 2 else "")
    credentials = botocore.session.Session().get_credentials()
    if credentials is None:
        return None, "none were found: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the machine's role"
    return Signer(credentials, region), ""


class Signer:
    """Signs with credentials that refresh themselves."""

    def __init__(self, credentials: Credentials, region: str) -> None:
        self._credentials, self._region = credentials, region

    def sign(self, request: httpx2.Request, content: bytes) -> None:
        """Put date, token and signature among the headers of a request (Signature Version 4)."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        signed = AWSRequest(
            request.method, str(request.url), {"content-type": request.headers.get("content-type", "")}, content
        )
        SigV4Auth(self._credentials.get_frozen_credentials(), SERVICE, self._region).add_auth(signed)
        for name, value in signed.headers.items():
            request.headers[name] = value
