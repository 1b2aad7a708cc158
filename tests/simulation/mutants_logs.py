"""Broken versions of what production does about logs that are not as expected: each forgets to look, or to say."""

from collections.abc import Mapping
from typing import Any

from tollmeter.streams.engine.incidents import Incidents
from tollmeter.streams.watch.stage import Watch


async def say_nothing(self: Incidents, loss: Any) -> None:
    """What is gone is passed over in silence."""


async def any_count(self: Incidents) -> str:
    """Nobody counts partitions."""
    return ""


def one_log(committed: Mapping[Any, Any], ids: Mapping[str, str]) -> set[Any]:
    """Offsets of a topic that is gone are taken for those of the one that has its name."""
    return set()


def one_source(state: Any, source_id: str, appended_ms: int) -> tuple[int, list[Any]]:
    """All topics called usage.events are one."""
    return 0, []


async def look_away(self: Watch, state: Any) -> None:
    """What was never folded is never looked for."""
    state.unread.clear()


def every_clock(self: Any, source: int, now_ms: int) -> None:
    """The clock of a partition counts even where the layout has none."""
    self.clocks[source] = max(now_ms, self.clocks.get(source, 0))
