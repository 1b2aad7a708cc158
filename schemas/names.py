"""What a model and a provider are called on every side of a comparison, however services and policies write them.

A model is its name in the price book, in lower case, without its seller's path and the date of its version. Where the
book knows no such name, it is what is left of the name as written.
"""

import re
from collections.abc import Callable, Iterable

_DATE = re.compile(
    r"[-@](?:20\d{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])|20\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))$"
)
_SHORT_DATE = re.compile(r"-(?:(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])|2[3-9](?:0[1-9]|1[0-2]))$")
"""Month and day, or year and month: only a date where the book knows the name without it."""

Find = Callable[[str], str | None]
"""Returns the book's name of a model, None where it knows none."""


def without_date(name: str) -> str:
    """Return a name without the date of its version; "" when it has none."""
    shorter = _DATE.sub("", name)
    return shorter if shorter != name else ""


def plain_model(name: str) -> str:
    """Return what is left of a model's name without the book: lower case, no path, no date."""
    whole = name.strip().lower()
    plain = whole.rstrip("/ ").rpartition("/")[2].strip()
    while shorter := without_date(plain).strip():
        plain = shorter
    return plain or whole


def plain_provider(name: str) -> str:
    """Return a provider's name without the book."""
    return name.strip().lower()


def model_id(names: Iterable[str], find: Find) -> str:
    """Return which model a call is of: by the first of its names that the book knows, else by the first it has."""
    own = [name for name in names if name.strip()]
    for name in own:
        found = find(name)
        if found is not None:
            return _without_short_date(plain_model(found), find)
    return plain_model(own[0]) if own else ""


def _without_short_date(name: str, find: Find) -> str:
    shorter = _SHORT_DATE.sub("", name)
    known = find(shorter) if shorter != name else None
    return name if known is None else plain_model(known)
