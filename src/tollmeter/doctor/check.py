"""What a look at one thing found, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "wrong", "unknown"]
"""unknown: what has to be asked for it does not answer."""


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the doctor's table."""

    name: str
    state: State
    found: str
    do: str = ""
    """What to do, "" where nothing is to be done."""


def judged(name: str, found: str, wrong: bool, do: str, state: State = "wrong") -> Check:
    """Return a check that is well unless `wrong`; then `do` says what to do."""
    return Check(name, state, found, do) if wrong else Check(name, "ok", found)
