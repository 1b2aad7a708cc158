"""Which models a request names, wherever it can, and the same request for another model.

Pure. What two readers could take for different models is no name that can be read: a rule about models refuses it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote

from tollmeter.producers.http.weight import read_object

_BEDROCK = re.compile(r"(?<=/model/)(.+)(?=/(?:converse|invoke)(?:-stream|-with-response-stream)?/?$)")
"""The whole of it, which may be an ARN with slashes and colons in it."""
_DEPLOYMENT = re.compile(r"(?<=/deployments/)([^/]+)")
_VERB = re.compile(r"(?<=/models/)((?:(?!%3a)[^/:])+)|(?<=/model/)([^/:]+)", re.IGNORECASE)
_IN_FORM = re.compile(rb'(name="model"\r\n(?:[^\r\n]+\r\n)*\r\n)([^\r\n]{1,256})(?=\r\n)')
_FIELDS = re.compile(rb'name\*?\s*=\s*"?model["\s;]', re.IGNORECASE)
NAMES = ("model", "modelId")
_SPARE = ("models", "fallbacks")
"""OpenRouter's and LiteLLM's lists of models to serve when the first does not."""
UNREADABLE = ""


class Named(NamedTuple):
    """The model that is called, and further ones that may serve or be called within: each must be allowed."""

    model: str
    others: tuple[str, ...] = ()


def named(path: str, body: Mapping[str, object] | None) -> Named:
    """Return what a path and a JSON body name; None is a body that cannot be read."""
    in_path = model_in_path(path)
    if body is None:
        return Named(in_path, (UNREADABLE,) if in_path else ())
    stated = [one for name in NAMES if (one := body.get(name))]
    first = stated[0] if stated else in_path
    model = first if isinstance(first, str) else in_path
    further = [in_path, *stated, *_spare(body)]
    others = (one.removeprefix("models/") if isinstance(one, str) else UNREADABLE for one in further if one)
    return Named(model, tuple(one for one in dict.fromkeys(others) if one != model.removeprefix("models/")))


def named_in_form(content: bytes) -> Named:
    """Return what the fields of a form name."""
    found = _IN_FORM.search(content)
    if found is None or len(_FIELDS.findall(content)) != 1:
        return Named("")
    return Named(found[2].decode("utf-8", "replace"))


def model_in_path(path: str) -> str:
    """Return the model that a path names; "" for none."""
    found = _place(path)
    return unquote(found[0]) if found else ""


def _place(path: str) -> re.Match[str] | None:
    return next((found for form in (_BEDROCK, _DEPLOYMENT, _VERB) if (found := form.search(path))), None)


def _spare(body: Mapping[str, object]) -> Iterator[object]:
    for name in _SPARE:
        yield from _models_of(body.get(name))
    tools = body.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and isinstance(tool.get("model"), str):
            yield tool["model"]


def _models_of(value: object) -> Iterator[object]:
    """Yield the models of a list of names, or of objects that name one each; what is neither cannot be read."""
    if value is None:
        return
    for one in value if isinstance(value, list) else [value]:
        yield one.get("model") or UNREADABLE if isinstance(one, dict) else one


def with_model(path: str, content: bytes, headers: Mapping[str, str], model: str) -> tuple[str, bytes]:
    """Return path and body of the same call for another model.

    `headers` have names in lower case. The body is written unpacked: `content-encoding` must not be sent with it.
    Raises `ValueError` where it cannot be written.
    """
    place = _place(path)
    written = path if place is None else f"{path[: place.start()]}{quote(model, safe='')}{path[place.end() :]}"
    if "multipart/form-data" in headers.get("content-type", ""):
        if len(_FIELDS.findall(content)) != 1 or not _IN_FORM.search(content) or "\r" in model or "\n" in model:
            raise ValueError("a form that does not name one model")
        return written, _IN_FORM.sub(lambda found: found[1] + model.encode(), content)
    body = read_object(content, headers.get("content-encoding", "").strip().lower())
    places = [name for name in NAMES if body and isinstance(body.get(name), str)]
    if body is None or (place is None and not places):
        raise ValueError("a body that names no model")
    if not places:
        return written, json.dumps(body, separators=(",", ":")).encode()
    return written, json.dumps({**body, **dict.fromkeys(places, model)}, separators=(",", ":")).encode()
