"""Who is asking travels beside the code by a context variable, through threads' and tasks' own contexts, not by hand.

The middleware sets it per request; `calling` sets it anywhere else; what calls a model reads it.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, NamedTuple, cast

from tollmeter.schemas.event import UsageEvent
from tollmeter.schemas.texts import clean_text

FIELDS = frozenset(UsageEvent.model_fields) - {
    "event_id",
    "occurred_at",
    "status",
    "http_status",
    "error_type",
    "usage_source",
    "stream",
}
"""Fields of an event that can be known before the call; the others only the call itself can say."""
_TEXTS = frozenset(name for name in FIELDS if UsageEvent.model_fields[name].annotation is str)


class Scope(NamedTuple):
    """Event fields known of the present request, and the groups that the user is in."""

    fields: Mapping[str, Any] = {}
    groups: tuple[str, ...] = ()
    counted: frozenset[str] = frozenset()
    """Kinds of caller (client_ip, api_key) that were counted for this request at the door: its calls are not again."""

    def with_fields(self, fields: Mapping[str, object]) -> "Scope":
        """Return this scope with more known of it; None means "not known", `groups` are the user's.

        Ids may be numbers or UUIDs, and are cut to what an event holds. Raises ValueError for what is no such field.
        """
        known = {name: value for name, value in fields.items() if value is not None}
        groups = cast("Iterable[object]", known.pop("groups", self.groups))
        unknown = known.keys() - FIELDS
        if unknown:
            raise ValueError(f"no event field that a caller can fix: {', '.join(sorted(unknown))}")
        texts = {name: clean_text(value) for name, value in known.items() if name in _TEXTS}
        return self._replace(fields={**self.fields, **known, **texts}, groups=tuple(map(str, groups)))


_current: ContextVar[Scope] = ContextVar("tollmeter_scope")
_NOBODY = Scope()


def current() -> Scope:
    """Return the scope of the present request; an empty one outside of any."""
    return _current.get(_NOBODY)


def enter(scope: Scope) -> Token[Scope]:
    """Make this the present scope; give the token to `leave`."""
    return _current.set(scope)


def leave(token: Token[Scope]) -> None:
    """Go back to the scope before."""
    _current.reset(token)


@contextmanager
def calling(**fields: object) -> Iterator[Scope]:
    """Say who the calls inside are for: `with calling(user_id="ann", feature="summarise", groups=["staff"]): ...`

    Keywords are fields of the usage event, and `groups`; inner ones add to outer ones.
    """
    scope = current().with_fields(fields)
    token = enter(scope)
    try:
        yield scope
    finally:
        leave(token)
