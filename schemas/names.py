"""What a model and a provider are called on every side of a comparison, however services and policies write them.

A model is what its maker calls it, in lower case, without its seller's path, place and vendor and the date of its
version: the name alone says which model it is, whoever sells it. Where nobody knows it, it is what is left of the name.
"""

import re
from collections.abc import Callable, Iterable

from tollmeter.schemas.open_weights import one_spelling

_DATE = re.compile(
    r"[-@](?:20\d{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])|20\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))$"
)
_SHORT_DATE = re.compile(r"-(?:(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])|2[3-9](?:0[1-9]|1[0-2])|latest)$")
"""Month and day, or year and month: only a date where the book knows the name without it."""
_OF_A_VERSION = re.compile(r"(?:-(?:latest|preview|exp|experimental|beta|stable|\d{2,4}))+")

_BEDROCK = re.compile(
    r"(?:(?:[a-z]{2,6}(?:-gov)?|regional)\.)?"
    r"(ai21|amazon|anthropic|cohere|deepseek|google|luma|meta|minimax|mistral|moonshot|nvidia|openai|qwen|stability"
    r"|twelvelabs|writer|zai)\.([a-z0-9][^:]*?)(?:-v\d+)?(?:-?\d*:\d+)?(?::\d+k|:mm)?"
)
"""A model as Amazon Bedrock names it: us.anthropic.claude-sonnet-4-5-20250929-v1:0. Places and vendors stand in front,
https://docs.aws.amazon.com/bedrock/latest/userguide/models-supported.html (2026-11-30)."""

_ROUTED = re.compile(r":(?:batch|beta|exacto|extended|floor|free|nitro|online|thinking)$")
"""How OpenRouter is to route a call: https://openrouter.ai/docs/features/model-routing (2026-11-30). Tags of Ollama,
which stand in the same place, name sizes."""
_CLAUDE = re.compile(r"claude(?:-[a-z0-9]+)+")
_CLAUDE_ALIAS = re.compile(r"-(?:latest|0)$")
"""claude-opus-4-0 and claude-opus-4-latest stand for claude-opus-4, which is what other sellers call it."""

Find = Callable[[str], str | None]
"""Returns the book's name of a model, None where it knows none."""


def without_date(name: str) -> str:
    """Return a name without the date of its version; "" when it has none."""
    shorter = _DATE.sub("", name)
    return shorter if shorter != name else ""


def plain_model(name: str) -> str:
    """Return what is left of a model's name without the book: lower case, no path, place, vendor, route and date."""
    plain, before = name, ""
    while plain != before:
        before, plain = plain, exact_model(plain)
        plain = _ROUTED.sub("", plain) or plain
        plain = one_spelling(_as_anthropic(without_date(plain).strip() or plain))
    return plain


def _as_anthropic(plain: str) -> str:
    """Return a model of Anthropic's as Anthropic writes it, whoever sells it; other names as they are."""
    hyphens = plain.replace(".", "-")
    return _CLAUDE_ALIAS.sub("", hyphens) if _CLAUDE.fullmatch(hyphens) else plain


def exact_model(name: str) -> str:
    """Return a model's name in lower case, without path, place and vendor; the date of a version stays."""
    whole = name.strip().lower()
    last = whole.rstrip("/ ").rpartition("/")[2].strip() or whole
    found = _BEDROCK.fullmatch(last)
    if found is None:
        return last
    if found[1] != "deepseek":
        return found[2]
    # the one whose models are not named by it; deepseek.v3-v1:0 is V3.1:
    # https://docs.aws.amazon.com/bedrock/latest/userguide/models-supported.html (2026-11-30)
    return {"v3": "deepseek-v3.1"}.get(found[2], f"deepseek-{found[2]}")


def version_key(name: str) -> str:
    """Return a name with a date as it is compared: sellers write -2024-08-06, -20240806 or @20240806."""
    shorter = without_date(name)
    return f"{shorter}@{name[len(shorter) :].strip('-@').replace('-', '')}" if shorter else name


def plain_provider(name: str) -> str:
    """Return a provider's name without the book."""
    return name.strip().lower()


def model_id(names: Iterable[str], known: Callable[[str], bool], find: Find) -> str:
    """Return which model a call is of: by the first of its names that is `known`, else by the first it has.

    The name alone decides, not who sells it: `find` looks into the book of the model's maker.
    """
    own = [name for name in names if name.strip()]
    name = next(filter(known, own), own[0] if own else "")
    return one_name(name, find)


def one_name(name: str, find: Find) -> str:
    """Return a model's name as its maker calls it, without what names a version of it; else as it is written."""
    plain = plain_model(name)
    found = plain_model(find(exact_model(name)) or find(plain) or plain)
    if plain.startswith(f"{found}-") and _OF_A_VERSION.fullmatch(plain[len(found) :]):
        plain = found
    shorter = _SHORT_DATE.sub("", plain)
    return shorter if shorter and find(shorter) is not None else plain
