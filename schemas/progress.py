"""How far WATCH has come in one partition, as it lies in `watch_progress`; read in one place, old rows too.

Rows without a version are of version 1. Fields that an older writer did not know have the value they had then.
"""

import json
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

VERSION = 1
_LOG_BITS = 40


class LogPosition(NamedTuple):
    """A place in a log that may be made anew, and then counts from 0 again. Its stamp never falls.

    The stamps of the n-th log begin at n << 40; offset -1 is in front of the first record.
    """

    epoch: int
    offset: int

    @classmethod
    def of(cls, stamp: int) -> Self:
        """Return the place that a stamp stands for."""
        epoch, behind = divmod(stamp + 1, 1 << _LOG_BITS)
        return cls(epoch, behind - 1)

    @property
    def stamp(self) -> int:
        return (self.epoch << _LOG_BITS) + self.offset

    @property
    def next_offset(self) -> int:
        """The offset behind it."""
        return self.offset + 1

    def new_log(self) -> "LogPosition":
        """Return the place in front of the first record of the next log."""
        return LogPosition(self.epoch + 1, -1)


class Progress(BaseModel):
    """What the fold knows beside its cells and policies."""

    model_config = ConfigDict(frozen=True)

    version: int = Field(default=VERSION, le=VERSION)
    applied: int
    """The stamp of the last record that is folded, see `LogPosition`."""
    base: int = 0
    """The stamp of the first record of the present log."""
    log_id: str = ""
    """The id of the topic usage.priced."""
    epochs: tuple[str, ...] = ()
    """Ids of the source topics so far, the newest last."""
    high: dict[int, int] = {}
    """Highest offset of each source partition that was seen."""
    clocks: dict[int, int] = {}
    """Time of each source partition, milliseconds since 1970 UTC."""
    watermark_ms: int | None = None
    """The slowest clock; None while one is not known."""
    closed_minute: int = -1
    closed_hour: int = -1
    touched: tuple[tuple[str, int], ...] = ()
    """Level and number of closed buckets that a late row changed since the last barrier."""
    counters: dict[str, int] = {}
    deferred: tuple[tuple[str, int, int], ...] = ()
    """Organisation and hour of late rows, and the offset up to which the batch went that saw the last one."""
    quiet_hours: tuple[tuple[str, int], ...] = ()
    """Those of them whose repair alerts nobody."""
    unread: tuple[tuple[int, int], ...] = ()
    """Offsets that will never be folded: their hours are repaired."""
    unsettled: dict[str, int] = {}
    """Organisations whose extra totals are to be backfilled, and since which offset."""
    repaired: dict[str, tuple[str, int]] = {}
    """Organisation to the last round of repair and its offset."""
    raised: dict[str, int] = {}
    """Alerts found at barriers, and the second at which their period is over."""
    remember_from_us: int = 0
    """Event time from which on ids are remembered, microseconds since 1970 UTC."""
    doubles_from_us: int = 0
    """Event time from which on it is known which of several times of an id came first."""
    doubled: tuple[tuple[int, str, str], ...] = ()
    """Event time, organisation and id of rows that nobody counts and whose voiding is not folded yet."""

    @classmethod
    def read(cls, text: str | bytes) -> Self:
        """Read a stored row. Raises `ValueError` for one that a newer release has written."""
        return cls.model_validate_json(text)

    def text(self) -> str:
        """Return it as it is stored."""
        return json.dumps(self.model_dump(exclude_unset=True), separators=(",", ":"), sort_keys=True)
