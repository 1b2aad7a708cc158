"""How guards know of each other: a beat of each on `usage.spend`, so that what remains of a budget is shared fairly."""

from pydantic import BaseModel, ConfigDict

PREFIX = "guard/"
BEAT_EVERY_S = 5
ALIVE_S = 20
"""A guard that was not heard of for so long is gone."""


class Beat(BaseModel):
    """A guard is at work. A record without a value says that it has ended."""

    model_config = ConfigDict(frozen=True)

    guard: str
    at_ms: int

    @property
    def key(self) -> str:
        """The key of its record."""
        return PREFIX + self.guard
