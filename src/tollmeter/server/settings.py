"""The server's own settings, under the names that an older meter has; what no longer means anything is warned about.

They stand in the environment without our prefix. Which line the server writes to, and whose the keys are, say the
settings that every command has (TOLLMETER_*).
"""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from tollmeter.producers.middleware.forwarded import checked_proxies
from tollmeter.settings import SettingsError

MiB = 1 << 20
PORT = 5001
LEAST_SECRET = 32
_FAMILIES = ("INGEST_", "RATE_LIMIT_", "SERVER_", "MACHINE_")
_MEANINGLESS = {
    "PROVIDER": "each call names its own provider, or its model tells it",
    "OPENAI_MODEL": "each call is priced at the model that it names, not at this one",
}
_ELSEWHERE = {"DB_FILENAME": "names a database of before: `tollmeter import FILE` reads it"}


def _words(value: object) -> object:
    """A list in the environment is text with commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _origin(value: str) -> str:
    if value != "*" and (not value.startswith(("http://", "https://")) or value.count("/") != 2):
        raise ValueError(f"{value!r} is no origin: write it as https://app.example.org, without a path")
    return value.lower()


def _path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"{value!r} is no path: it begins with /")
    return value


def _is_safe(url: str) -> bool:
    """Tell whether nobody on the way can put keys of his own into what an address gives."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost"))


def _proxies(value: object) -> object:
    """In the environment a number counts proxies; anything else lists their addresses and networks."""
    if isinstance(value, str):
        value = int(value) if value.strip().isdecimal() else _words(value)
    return checked_proxies(value) if isinstance(value, int | list | tuple) else value


Words = BeforeValidator(_words)
PerMinute = Annotated[int, Field(ge=0, le=10_000_000)]


class ServerSettings(BaseModel):
    """How the server listens and whom it answers. A rate of 0 requests per minute means no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: Literal["development", "production"] = "development"
    server_host: str = "127.0.0.1"
    server_port: Annotated[int, Field(ge=0, le=65_535)] = PORT
    """0 = any free one, named in the log."""
    server_tls_cert: str = ""
    server_tls_key: str = ""
    """PEM files. Without them put a proxy that speaks TLS in front."""
    server_processes: Annotated[int, Field(ge=1, le=256)] = 1
    """How many servers share the limits: each takes its part of every rate."""
    server_connections: Annotated[int, Field(ge=16, le=100_000)] = 1_024
    server_connections_per_address: Annotated[int, Field(ge=8, le=100_000)] = 512
    server_trusted_proxies: Annotated[int | tuple[str, ...], BeforeValidator(_proxies)] = ()
    """How many proxies stand in front, or their networks: who calls is read from their X-Forwarded-For."""

    api_key: SecretStr = SecretStr("")
    ingest_key: SecretStr = SecretStr("")
    read_key: SecretStr = SecretStr("")
    ingest_may_set_identity: bool = True
    """Whether organisation, user and group in what comes with INGEST_KEY are believed."""
    allowed_origins: Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], Words] = ()
    reset_allowed: bool = False
    """Whether DELETE /reset works in production, too."""

    jwt_secret: SecretStr = SecretStr("")
    """Signs the tokens of users (HS256), whose billing page asks here."""
    oidc_issuer: str = ""
    oidc_audience: str = ""
    oidc_jwks_url: str = ""
    """Where an identity provider lists the keys that sign its tokens; with it issuer and audience are required."""

    tracking_token_length: Annotated[int, Field(ge=16, le=40)] = 22

    rate_limit_rpm: PerMinute = 60
    rate_limit_burst: PerMinute = 60
    rate_limit_exempt: Annotated[tuple[Annotated[str, AfterValidator(_path)], ...], Words] = (
        "/ping",
        "/health",
        "/dashboard",
    )
    ingest_rpm: PerMinute = 60
    ingest_burst: PerMinute = 60
    machine_rpm: PerMinute = 0
    """Limit of the doors for machines: LiteLLM, CloudEvents, telemetry, proxy."""
    machine_burst: PerMinute = 600
    ingest_max_bytes: Annotated[int, Field(ge=1_024, le=256 * MiB)] = 5 * MiB
    """Of a body of `/ingest`, unpacked."""
    machine_max_bytes: Annotated[int, Field(ge=1_024, le=256 * MiB)] = 20 * MiB

    @property
    def production(self) -> bool:
        """Whether errors carry no internals and keys are required."""
        return self.env == "production"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ip_address(self.server_host).is_loopback
        except ValueError:
            return self.server_host == "localhost"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "ServerSettings":
        """Build from the environment. Raises `SettingsError` naming every wrong one, and every key that is required."""
        names = cls.model_fields
        given = {name: environment[name.upper()] for name in names if environment.get(name.upper(), "") != ""}
        given = {name: value.lower() if name == "env" else value for name, value in given.items()}
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            lines = [
                f"{str(problem['loc'][0]).upper()}: {problem['msg'].removeprefix('Value error, ')}"
                for problem in error.errors(include_input=False, include_url=False)
            ]
            raise SettingsError("; ".join(lines)) from None
        settings._require_keys()
        return settings

    def _require_keys(self) -> None:
        secret = self.jwt_secret.get_secret_value()
        if secret and len(secret) < LEAST_SECRET:
            raise SettingsError(f"JWT_SECRET: at least {LEAST_SECRET} characters, as `openssl rand -hex 32` gives")
        if self.oidc_jwks_url and not (self.oidc_issuer and self.oidc_audience):
            raise SettingsError("OIDC_ISSUER and OIDC_AUDIENCE: required with OIDC_JWKS_URL, else anybody's tokens fit")
        if self.oidc_jwks_url and not _is_safe(self.oidc_jwks_url):
            raise SettingsError("OIDC_JWKS_URL: https is expected; http only of this machine")
        missing = [name.upper() for name in ("api_key", "ingest_key") if not getattr(self, name).get_secret_value()]
        if missing and (self.production or not self.loopback):
            why = "ENV=production" if self.production else f"SERVER_HOST={self.server_host}"
            raise SettingsError(f"{' and '.join(missing)}: required with {why}; set a long random text each")
        if bool(self.server_tls_cert) != bool(self.server_tls_key):
            raise SettingsError("SERVER_TLS_CERT and SERVER_TLS_KEY: both or none are set")


def warnings(environment: Mapping[str, str]) -> list[str]:
    """Return a line for each variable that an older meter knows and this one does not, or not in the same sense."""
    found = [f"{name} is ignored: {why}" for name, why in _MEANINGLESS.items() if environment.get(name, "") != ""]
    found += [f"{name} {what}" for name, what in _ELSEWHERE.items() if environment.get(name, "") != ""]
    known = {name.upper() for name in ServerSettings.model_fields}
    unknown = sorted(name for name in environment if name.startswith(_FAMILIES) and name not in known)
    return found + [f"{name} is no setting of the server and is ignored" for name in unknown]
