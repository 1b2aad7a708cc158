"""Which models a caller may use: rows of `usage.policies` that only guards and the gateway read.

Keys are `models:<org>/<scope>/<name>`; a record without a value takes the row away.
"""

from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tollmeter.schemas.access import access_id
from tollmeter.schemas.names import exact_model, plain_model, version_key, without_date

MODELS_PREFIX = "models:"
ANY = "*"
"""As an allowed name: every model, also one that cannot be read."""
MODEL_SCOPES = ("org", "group", "user", "api_key")
ModelScope = Literal["org", "group", "user", "api_key"]
_Text = Annotated[str, Field(min_length=1, max_length=256)]


class ModelRule(BaseModel):
    """The models that calls of a scope may use; another is refused, or made with `downgrade_to` in its place.

    A name stands for the model with all its versions, one with a date for that version alone. `name` is "" for the
    organisation itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    org_id: Annotated[str, Field(max_length=256)]
    scope: ModelScope
    name: Annotated[str, Field(max_length=512)] = ""
    allowed: Annotated[tuple[_Text, ...], Field(min_length=1, max_length=200)]
    downgrade_to: Annotated[str, Field(max_length=256)] = ""
    """As the provider takes it; "" refuses."""

    @field_validator("allowed")
    @classmethod
    def _one_form(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        made = tuple(dict.fromkeys(allowed_form(name) for name in names))
        if "" in made:
            raise ValueError("an empty name allows no model: write one, or * for every model")
        return made

    @field_validator("downgrade_to")
    @classmethod
    def _trimmed(cls, name: str) -> str:
        return name.strip()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.scope == "org") == bool(self.name):
            raise ValueError("name says which group, user or key: it is empty for scope org, and for no other")
        if self.downgrade_to and not self.meets(spellings_of(self.downgrade_to)):
            raise ValueError(f"{self.downgrade_to} is not allowed itself: allowed are {', '.join(self.allowed)}")
        return self

    @property
    def key(self) -> str:
        """The key of its row."""
        return MODELS_PREFIX + access_id(self.org_id, self.scope, self.name)

    @cached_property
    def accepted(self) -> frozenset[str]:
        """The allowed names as they are compared."""
        return frozenset(version_key(entry) if without_date(entry) else plain_model(entry) for entry in self.allowed)

    def meets(self, names: frozenset[str]) -> bool:
        """Say whether a model that is known by these names is allowed."""
        return ANY in self.accepted or not self.accepted.isdisjoint(names)


def allowed_form(name: str) -> str:
    """Return an allowed name as it is kept: without path and seller, in lower case; a date of a version stays."""
    return ANY if name.strip() == ANY else exact_model(name)


def spellings_of(name: str) -> frozenset[str]:
    """Return the names by which rules know a model that is written so, without the price book; none for no name."""
    exact = exact_model(name)
    dated = {version_key(exact)} if without_date(exact) else set()
    return frozenset({exact, plain_model(exact), *dated}) - {""}
