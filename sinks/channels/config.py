"""How a channel is configured: strict, and without a secret in the file."""

import re
from ipaddress import ip_address, ip_network
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tollmeter.sinks.channels.address import Network, is_allowed

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def seconds(value: object) -> object:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a span of time, for example 90s, 10m, 6h or 2d")
    return float(match[1]) * _UNITS[match[2]]


def network(value: object) -> object:
    return ip_network(value) if isinstance(value, str) else value


def words(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def web_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write http://HOST/PATH or https://HOST/PATH")
    if parts.username is not None or parts.password is not None:
        raise ValueError("no user or password in the address: requests are signed with key_env or key_file")
    _ = parts.port  # raises when it is no number
    return url


Span = Annotated[float, BeforeValidator(seconds), Field(gt=0)]
Words = Annotated[tuple[str, ...], BeforeValidator(words)]
Count = Annotated[int, Field(gt=0, strict=True)]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def one_source(name: str, env: str, file: str, *, needed: bool) -> None:
    if env and file:
        raise ValueError(f"give {name}_env or {name}_file, not both")
    if needed and not (env or file):
        raise ValueError(f"{name}_env (a variable's name) or {name}_file is missing: no secret stands in this file")


class Log(Strict):
    """A line on stdout."""

    type: Literal["log"]


class Webhook(Strict):
    """A signed POST. `allow` names the private networks or addresses it may go to."""

    type: Literal["webhook"]
    url: Annotated[str, AfterValidator(web_address)]
    key_env: str = ""
    key_file: str = ""
    allow: tuple[Annotated[Network, BeforeValidator(network)], ...] = ()
    timeout: Span = 10.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        one_source("key", self.key_env, self.key_file, needed=True)
        try:
            literal = ip_address(urlsplit(self.url).hostname or "")
        except ValueError:
            return self
        if not is_allowed(literal, self.allow):
            raise ValueError(f"{literal} is not a public address: name it under `allow` if that is meant")
        return self


class Email(Strict):
    """Mail through a server of yours."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, populate_by_name=True)

    type: Literal["email"]
    to: Annotated[Words, Field(min_length=1)]
    sender: Annotated[str, Field(alias="from", min_length=3)]
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(gt=0, lt=65_536, strict=True)] = 587
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password_env: str = ""
    password_file: str = ""
    timeout: Span = 15.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        one_source("password", self.password_env, self.password_file, needed=bool(self.user))
        if any("\n" in address or "\r" in address for address in (*self.to, self.sender)):
            raise ValueError("an address is one line")
        return self


class Chat(Strict):
    """Slack, Telegram, Discord and all else that `apprise` knows; its URL is a secret and never stands here."""

    type: Literal["apprise"]
    url_env: str = ""
    url_file: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        one_source("url", self.url_env, self.url_file, needed=True)
        return self
