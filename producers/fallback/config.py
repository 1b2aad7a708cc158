"""Which provider serves which operation, in which order, and what makes the next one serve: checked as a whole."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tollmeter.producers.fallback.reasons import REASONS, Reason

ANY_OPERATION = "*"
PROVIDERS = {name: name for name in ("openai", "anthropic", "google", "ollama", "azure", "mistral", "groq", "deepseek")}
PROVIDERS["gemini"] = "google"
"""Client names that say by themselves which provider events name."""

Name = Annotated[str, Field(min_length=1, max_length=256)]


class ConfigError(ValueError):
    """The configuration is wrong; the text says where and what, one line for all errors."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Served(_Strict):
    """One client and the model it is asked for. `provider` is the id in events; left out, name or host of the client
    tell it.
    """

    model: Name
    provider: Annotated[str, Field(max_length=256)] = ""
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    next_on: tuple[Reason, ...] = REASONS
    """What makes the next provider serve: budget, quota, timeout, failure."""


class BreakerConfig(_Strict):
    """So many failures in a row leave a provider alone for so long."""

    failures: Annotated[int, Field(gt=0)] = 5
    open_s: Annotated[float, Field(gt=0)] = 30.0


class FallbackConfig(_Strict):
    """`operations` names, per operation_name, the clients in order; `"*"` is for all others."""

    clients: dict[Name, Served]
    operations: dict[Name, tuple[Name, ...]]
    breaker: BreakerConfig = BreakerConfig()

    @model_validator(mode="after")
    def _names_belong(self) -> Self:
        for operation, order in self.operations.items():
            unknown = sorted(set(order) - set(self.clients))
            if unknown:
                known = ", ".join(sorted(self.clients)) or "none"
                raise ValueError(f"operation {operation}: no client {', '.join(unknown)} (there are: {known})")
            if not order:
                raise ValueError(f"operation {operation}: name at least one client")
            if len(set(order)) < len(order):
                raise ValueError(f"operation {operation}: a client is named twice")
        return self

    def provider_of(self, client: str) -> str:
        """Return the provider's id in events; "" when the host that is called must tell."""
        return self.clients[client].provider or PROVIDERS.get(client, "")

    @classmethod
    def from_dict(cls, document: Mapping[str, object], where: str = "fallback") -> "FallbackConfig":
        """Build from what a YAML or JSON file holds. Raises `ConfigError`."""
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            found = error.errors(include_input=False, include_url=False)
            texts = [".".join(map(str, one["loc"])) or "document" for one in found]
            said = [one["msg"].removeprefix("Value error, ") for one in found]
            raise ConfigError(
                "; ".join(f"{where}: {place}: {text}" for place, text in zip(texts, said, strict=True))
            ) from None

    @classmethod
    def from_file(cls, path: str | Path) -> "FallbackConfig":
        """Build from a YAML file (JSON is YAML, too). Raises `ConfigError`."""
        try:
            import yaml
        except ModuleNotFoundError:
            raise ConfigError("reading YAML needs pyyaml: pip install pyyaml, or give a dict") from None
        try:
            document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(document, Mapping):
            raise ConfigError(f"{path}: a mapping with clients and operations is expected")
        return cls.from_dict(document, str(path))
