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

_BEDROCK = re.compile(
    r"(?:(?:[a-z]{2,6}(?:-gov)?|regional)\.)?"
    r"(?:ai21|amazon|anthropic|cohere|deepseek|google|luma|meta|minimax|mistral|moonshot|nvidia|openai|qwen|stability"
    r"|twelvelabs|writer|zai)\.([a-z0-9][^:]*?)(?:-v\d+)?(?:-?\d*:\d+)?(?::\d+k|:mm)?"
)
"""A model as Amazon Bedrock names it: us.anthropic.claude-sonnet-4-5-20250929-v1:0. Places and vendors stand in front,
https://docs.aws.amazon.com/bedrock/latest/userguide/models-supported.html (2026-11-30)."""

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


def exact_model(name: str) -> str:
    """Return a model's name in lower case, without path, place and vendor; the date of a version stays."""
    whole = name.strip().lower()
    last = whole.rstrip("/ ").rpartition("/")[2].strip() or whole
    found = _BEDROCK.fullmatch(last)
    return found[1] if found else last


def version_key(name: str) -> str:
    """Return a name with a date as it is compared: sellers write -2024-08-06, -20240806 or @20240806."""
    shorter = without_date(name)
    return f"{shorter}@{name[len(shorter) :].strip('-@').replace('-', '')}" if shorter else name


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
