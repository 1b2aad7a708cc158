"""A check of one row: steps that hold or fail one by one, and the state that follows from them."""

from collections.abc import Container, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal
from uuid import uuid4

import pytest

WORKS = "works"
MISSING = "missing"
PARTLY = "partly: missing: "

ROW = [pytest.mark.stack, pytest.mark.timeout(600)]
"""The marks of a module of rows."""
PATIENCE_S, SHORT_S = 30.0, 3.0
patience_s: ContextVar[float] = ContextVar("patience_s", default=PATIENCE_S)
"""How long an effect may take on a machine that does much else; on a quiet one it takes a second. Short for what the
table declares as missing: nobody waits for it."""

Result = Literal["holds", "fails", "unchecked"]


class Lacking(Exception):  # noqa: N818 - no fault of anybody
    """This machine lacks what a step needs (Docker, Node.js, quiet cores): it is not checked, nor does it hold."""


class Refused(BaseException):
    """Something that should have been taken was refused for good."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one step ended; `detail` is the first lines of what was seen instead."""

    result: Result
    detail: str = ""


@dataclass
class Check:
    """The steps of one row, in the order in which they ran."""

    code: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    missing: Container[str] = ()
    """The steps that the table declares as missing."""
    org: str = ""
    """An organisation of this run of the row alone."""

    def __post_init__(self) -> None:
        self.org = self.org or f"{self.code.lower()}-{uuid4().hex[:8]}"

    @contextmanager
    def step(self, words: str) -> Iterator[None]:
        """Note whether what is inside holds. `words` say what the user has when it does; no step stops the next one."""
        if words in self.outcomes:
            raise ValueError(f"{self.code} has two steps {words!r}")
        token = patience_s.set(SHORT_S if words in self.missing else PATIENCE_S)
        try:
            yield
        except Lacking as lacking:
            self.outcomes[words] = Outcome("unchecked", str(lacking))
        except (Exception, Refused) as error:
            self.outcomes[words] = Outcome("fails", _brief(error))
        else:
            self.outcomes[words] = Outcome("holds")
        finally:
            patience_s.reset(token)

    def steps(self, result: Result) -> list[str]:
        """Return the steps that ended so."""
        return [words for words, outcome in self.outcomes.items() if outcome.result == result]

    @property
    def state(self) -> str:
        """The state of the row as it was seen here."""
        if not self.steps("holds"):
            return MISSING
        open_steps = [
            words if outcome.result == "fails" else f"{words} (not checked: {outcome.detail})"
            for words, outcome in self.outcomes.items()
            if outcome.result != "holds"
        ]
        return PARTLY + "; ".join(open_steps) if open_steps else WORKS


def _brief(error: BaseException) -> str:
    """Name the error in a few lines, and the line of the test where it rose."""
    trace = error.__traceback__
    place = ""
    while trace is not None:
        if "/acceptance/test_" in trace.tb_frame.f_code.co_filename:
            place = f"line {trace.tb_lineno}: "
        trace = trace.tb_next
    text = str(error).strip()[:600]
    return f"{place}{type(error).__name__}: {text}"
