"""Bodies of requests that change something: small JSON objects, every field of which is known and of its kind."""

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from tollmeter.server.problems import Problem

MOST_BYTES = 64 * 1024
_Shape = TypeVar("_Shape", bound=BaseModel)


async def read(request: Request, shape: type[_Shape], **more: object) -> _Shape:
    """Return the body, with what the path and the key say, as a value. Raises `Problem` 400, 413 or 415."""
    document = await document_of(request)
    taken = more.keys() & document.keys()
    if taken:
        raise Problem(400, "bad_field", f"{min(taken)}: the path or the key says it, the body does not")
    return made(shape, {**document, **more})


async def document_of(request: Request) -> dict[str, Any]:
    """Return the body as an object; an empty body is an empty one. Raises `Problem` 400, 413 or 415."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind not in ("application/json", ""):
        raise Problem(415, "media_type", f"application/json is expected, not {kind[:60]}")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise Problem(413, "too_large", f"the body is larger than {MOST_BYTES} bytes")
    try:
        document = json.loads(
            bytes(body) or b"{}", parse_constant=_number, parse_float=_number, object_pairs_hook=_object
        )
    except _TwiceError as error:
        raise Problem(400, "bad_field", f"{error}: said twice") from None
    except (ValueError, RecursionError):
        raise Problem(400, "not_json", "the body is no JSON") from None
    if not isinstance(document, dict):
        raise Problem(400, "not_an_object", "the body is no JSON object")
    return document


class _TwiceError(ValueError):
    """A member of an object came twice: which of them is meant is not ours to say."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1)[:64])
    return found


def _number(text: str) -> float:
    """Return a number with a fraction; what is none, or larger than any, is no JSON: a limit of it would never bind."""
    number = float(text)
    if not isfinite(number):
        raise ValueError("no finite number")
    return number


def made(shape: type[_Shape], fields: Mapping[str, object]) -> _Shape:
    """Return a value of these fields. Raises `Problem` 400 naming the first that is wrong."""
    try:
        return shape.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        text = first["msg"].removeprefix("Value error, ")
        raise Problem(400, "bad_field", f"{where}: {text}" if where else text) from None
