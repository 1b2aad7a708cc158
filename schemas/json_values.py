"""JSON from outside: what is nested too deeply is as wrong as what is no JSON, one kind of error for both."""

import json
from typing import Any


def loads(text: str | bytes) -> Any:
    """Return the value of a JSON text. Raises `ValueError`, also for one that is nested too deeply to be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
