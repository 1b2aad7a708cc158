"""What a check is asked, and what it says: the counts, what differs, and what a repair would work on."""

from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from tollmeter.admin.verify.count import Corrected, Difference
from tollmeter.admin.verify.rollups import RollupCheck
from tollmeter.admin.verify.windows import WindowCheck


@dataclass(frozen=True, slots=True)
class Options:
    """How long to wait for the workers, how far back to look, and whether to read the source log again."""

    wait_s: float = 30.0
    since_s: float | None = None
    windows_s: float = 35 * 86_400.0
    deep: bool = False


@dataclass
class Broken:
    """What a repair works on: rows of the log, minutes of the rollup, totals of WATCH."""

    missing: list[pl.DataFrame] = field(default_factory=list)
    wrong: list[pl.DataFrame] = field(default_factory=list)
    twice: list[pl.DataFrame] = field(default_factory=list)
    back: list[pl.DataFrame] = field(default_factory=list)
    rollup: RollupCheck = field(default_factory=RollupCheck)
    windows: WindowCheck = field(default_factory=WindowCheck)


@dataclass
class Verdict:
    """The counts and what differs. records = accepted + rejected, accepted = distinct + resends.

    distinct = ledger + voided.
    """

    records: int = 0
    accepted: int = 0
    rejected: int = 0
    distinct: int = 0
    resends: int = 0
    ledger: int = 0
    voided: int = 0
    corrected: Corrected = field(default_factory=Corrected)
    """By corrections; what they took away is in `voided` too."""
    differences: list[Difference] = field(default_factory=list)
    several_times: list[dict[str, Any]] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    deep: dict[str, int] | None = None
    windows_compared: int = 0
    rollup_compared: int = 0
    cost_nano: int = 0
    """Sum over the ledger rows in question; unknown costs left out."""
    broken: Broken = field(default_factory=Broken)

    def document(self) -> dict[str, Any]:
        """Return the counts as JSON carries them."""
        names = ("records", "accepted", "rejected", "distinct", "resends", "ledger", "voided")
        more = ("windows_compared", "rollup_compared", "several_times", "gaps", "deep")
        return {
            **{name: getattr(self, name) for name in names},
            "differences": [asdict(difference) for difference in self.differences],
            **{name: getattr(self, name) for name in more},
            "corrected": asdict(self.corrected),
        }
