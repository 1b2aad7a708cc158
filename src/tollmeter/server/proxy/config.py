"""Which providers stand behind the proxy: the known ones, and those of an administrator's file. No other is ever asked.

`${NAME}` in an address is a variable of the server's environment. Every mistake is told with file, line and key.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tollmeter.producers.fallback.config import FallbackConfig
from tollmeter.schemas.event import BillingScope
from tollmeter.server.proxy.keys import Auth, Whose
from tollmeter.server.proxy.operations import DEFAULT, Operation
from tollmeter.yaml_files import YamlError, parse_yaml, read_yaml

SHIPPED = Path(__file__).with_name("upstreams.yaml")
MiB = 1 << 20
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
_Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_Seconds = Annotated[float, Field(gt=0, le=86_400)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Upstream(_Strict):
    """One provider. `auth` is where its key goes; `chat` is its path that speaks OpenAI's chat, for fallback."""

    url: str
    auth: Auth = "bearer"
    key: Whose = "environment"
    key_from: tuple[_Variable, ...] = ()
    provider: Annotated[str, Field(max_length=256)] = ""
    operations: tuple[Operation, ...] = DEFAULT
    """What may be asked; `other` lets everything else pass, unmetered."""
    headers: Mapping[str, str] = {}
    """Headers added to each request, instead of the caller's of that name."""
    chat: Annotated[str, Field(pattern=r"^(/.*)?$")] = ""
    billing_scope: BillingScope = "ORG"
    """Who pays the calls: ORG, or USER, which no budget of an organisation counts."""
    max_body_bytes: Annotated[int, Field(ge=1_024, le=512 * MiB)] = 32 * MiB
    connect_s: _Seconds = 10.0
    read_s: _Seconds = 600.0
    """Longest silence within an answer; a stream as a whole may take any time."""

    @field_validator("headers")
    @classmethod
    def _plain(cls, headers: Mapping[str, str]) -> dict[str, str]:
        named = {name.lower(): value for name, value in headers.items()}
        if any(
            not _HEADER.fullmatch(name) or not value.isprintable() or not value.isascii()
            for name, value in named.items()
        ):
            raise ValueError("a header has a name and a value of printable ASCII")
        return named

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(_VARIABLE.sub("x", url))
        whole = _VARIABLE.fullmatch(url) is not None
        if not whole and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("an address is http://host or https://host, with a path if need be")
        if parts.query or parts.fragment or parts.username is not None:
            raise ValueError("an address has no query, fragment, user or password")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _has_key(self) -> Self:
        if self.key == "environment" and self.auth != "none" and not self.key_from:
            raise ValueError("key_from: name the variable that holds the key, or say `key: caller` or `auth: none`")
        return self

    def lacks(self, environment: Mapping[str, str]) -> tuple[str, ...]:
        """Return the variables of its address that the environment does not have."""
        return tuple(name for name in _VARIABLE.findall(self.url) if not environment.get(name))

    def address(self, environment: Mapping[str, str]) -> str:
        """Return the address with the variables filled in. Raises `ValueError` for what is none then."""
        url = _VARIABLE.sub(lambda found: environment.get(found[1], ""), self.url).rstrip("/")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username is not None:
            raise ValueError(f"{self.url}: the environment makes no address of it")
        return url

    def secret(self, environment: Mapping[str, str]) -> str:
        """Return the environment's key; "" where there is none."""
        return next((environment[name].strip() for name in self.key_from if environment.get(name, "").strip()), "")


class ProxyConfig(_Strict):
    """Everything that stands in the file. `fallback` orders upstreams by operation, as the library's chain does."""

    upstreams: Mapping[_Name, Upstream]
    fallback: FallbackConfig | None = None

    @model_validator(mode="after")
    def _chain_belongs(self) -> Self:
        for name in self.fallback.clients if self.fallback else ():
            if name not in self.upstreams:
                raise ValueError(f"fallback: no upstream {name}: there are {', '.join(sorted(self.upstreams))}")
            if not self.upstreams[name].chat:
                raise ValueError(f"fallback: upstream {name} has no `chat`, the path that speaks OpenAI's chat")
            if self.upstreams[name].key == "caller":
                raise ValueError(
                    f"fallback: upstream {name} is paid by the caller's key, which no other provider takes"
                )
        return self


def load(path: str = "") -> ProxyConfig:
    """Return the known upstreams with those of a file on top. Raises `YamlError` with every mistake."""
    shipped = parse_yaml(SHIPPED.read_text("utf-8"), str(SHIPPED)).body
    if not path:
        return ProxyConfig.model_validate(shipped)
    file = read_yaml(Path(path))
    own: Any = {} if file.body is None else file.body
    if not isinstance(own, dict) or not isinstance(own.get("upstreams", {}), dict):
        raise YamlError(file.problem((), "a mapping with upstreams and fallback is expected"))
    try:
        return ProxyConfig.model_validate({**own, "upstreams": {**shipped["upstreams"], **own.get("upstreams", {})}})
    except ValidationError as error:
        raise YamlError("; ".join(file.problems(error))) from None
