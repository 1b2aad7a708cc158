"""How many guards are at work: those that were heard of lately, and never fewer than the settings say."""

from collections.abc import Callable

from tollmeter.schemas.guards import ALIVE_S, PREFIX, Beat

FORGOTTEN_S = 600
"""A guard that ended without a word is taken out of the topic after so long."""


class Peers:
    """The guards heard of, by id. What is heard live counts from its arrival, whatever the sender's clock says."""

    def __init__(self, own: str, at_least: int, wall_ms: Callable[[], int]) -> None:
        self.own = own
        self._at_least = at_least
        self._wall_ms = wall_ms
        self._heard_ms: dict[str, int] = {}

    def apply(self, key: str, value: bytes | None, live: bool) -> None:
        """Take note of a beat, or of an end. Raises `ValueError` for one that cannot be read."""
        guard = key.removeprefix(PREFIX)
        if value is None:
            self._heard_ms.pop(guard, None)
        else:
            self._heard_ms[guard] = self._wall_ms() if live else Beat.model_validate_json(value).at_ms

    @property
    def size(self) -> int:
        """How many guards may spend at present."""
        since = self._wall_ms() - ALIVE_S * 1_000
        others = sum(1 for guard, heard in self._heard_ms.items() if heard >= since and guard != self.own)
        return max(self._at_least, others + 1)

    def lost(self) -> list[str]:
        """Return the guards that are long gone, for the first of those alive to take out of the topic; else none."""
        now = self._wall_ms()
        alive = [guard for guard, heard in self._heard_ms.items() if now - heard <= ALIVE_S * 1_000]
        if min(alive, default="") != self.own:
            return []
        return [guard for guard, heard in self._heard_ms.items() if now - heard > FORGOTTEN_S * 1_000]
