"""What a name written by a person stands for: models and providers as the price book in use knows them."""

from collections.abc import Iterable
from typing import NamedTuple

from pydantic import ValidationError

from tollmeter.schemas.names import exact_model
from tollmeter.schemas.policy import Policy
from tollmeter.settings import Settings

BY_BOOK = ("model", "provider")


class Identity(NamedTuple):
    """A call's provider and model as limits and reports know them."""

    provider: str
    model: str


def identity(settings: Settings, provider: str, model: str) -> Identity:
    """Return what calls with these names are counted under. Raises `OverridesError` or `FxError` for a wrong file."""
    from tollmeter.streams.price.book.book import load  # the help of a command needs no price book
    from tollmeter.streams.rules.pricing.model_names import Names

    names = Names(provider, "", model, "", "", "", "chat", "", "REALTIME")
    return Identity(*load(settings).planner.identity(names))


def is_known(settings: Settings, model: str) -> bool:
    """Say whether the price book in use knows a model of this name. Raises as `identity` does."""
    from tollmeter.streams.price.book.book import load
    from tollmeter.streams.rules.pricing.model_names import Names

    names = Names("", "", exact_model(model), "", "", "", "chat", "", "REALTIME")
    return load(settings).planner.meaning(names).known


def resolved(settings: Settings, policy: Policy) -> Policy:
    """Return a policy under the name that its scope is counted by. Raises as `identity` does."""
    return next(iter(resolved_all(settings, [policy])))


def resolved_all(settings: Settings, policies: Iterable[Policy]) -> list[Policy]:
    """Return policies under the names that their scopes are counted by. Raises as `identity` does."""
    return [
        policy.model_copy(update={"name": _by_book(settings, policy.scope, policy.name)})
        if policy.scope in (*BY_BOOK, "version")
        else policy
        for policy in policies
    ]


def known_as(settings: Settings, scope: str, name: str) -> tuple[str, str]:
    """Return the scope and the name under which a policy of them is kept; as they are where no policy can be."""
    try:
        made = resolved(settings, Policy.model_validate({"org_id": "", "scope": scope, "name": name}))
    except ValidationError:
        return scope, name
    return made.scope, made.name


def _by_book(settings: Settings, scope: str, name: str) -> str:
    if scope == "version":  # answers name it as the provider does: in lower case, where the book knows it
        return name.lower() if is_known(settings, name) else name
    if scope == "provider":
        return identity(settings, name, "").provider or name
    return identity(settings, "", name).model or name
