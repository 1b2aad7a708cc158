"""Count the log's rows and name what does not add up. Pure: frames in, numbers and differences out.

Every term is counted by itself: accepted as source coordinates, resends as rows whose identity came before, distinct
as identities; none is the difference of the others.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import polars as pl

from tollmeter.schemas import priced
from tollmeter.schemas.priced import VOID

IDENTITY = list(priced.IDENTITY)
COORDINATES = ["src_partition", "src_offset"]
CALL = ["event_time", "event_id"]
"""What stays of a call that moves to another organisation."""
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it should be: which identity broke, where, and by how much."""

    name: str
    where: str
    amount: int
    detail: str = ""


class Differences:
    """What was found so far; the same thing found again at the same place adds up."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Difference] = {}

    def add(self, found: Iterable[Difference]) -> None:
        for one in found:
            known = self._found.get((one.name, one.where))
            self._found[one.name, one.where] = (
                one if known is None else replace(known, amount=known.amount + one.amount)
            )

    def __iter__(self) -> Iterator[Difference]:
        return iter(self._found.values())


@dataclass(frozen=True, slots=True)
class LogCounts:
    """What the log holds of the source records in question."""

    accepted: int = 0
    distinct: int = 0
    resends: int = 0

    def __add__(self, other: "LogCounts") -> "LogCounts":
        return LogCounts(self.accepted + other.accepted, self.distinct + other.distinct, self.resends + other.resends)


def first_deliveries(rows: pl.DataFrame) -> pl.DataFrame:
    """Keep one row per source record, the first in the log: the same record priced again is a replay, not a resend."""
    return rows.sort("priced_offset", maintain_order=True).unique(COORDINATES, keep="first", maintain_order=True)


def count(rows: pl.DataFrame) -> LogCounts:
    """Count rows that `first_deliveries` has passed."""
    before = pl.int_range(pl.len()).over(IDENTITY)
    return LogCounts(
        accepted=rows.select(pl.struct(COORDINATES).n_unique()).item() if rows.height else 0,
        distinct=rows.select(pl.struct(IDENTITY).n_unique()).item() if rows.height else 0,
        resends=int(rows.select((before > 0).sum()).item()),
    )


def expected_ledger(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the row that each identity must have in the ledger: the highest revision, and of those the first."""
    ordered = rows.sort(["revision", "priced_offset"], descending=[True, False], maintain_order=True)
    return ordered.unique(IDENTITY, keep="first", maintain_order=True)


def several_times(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of ids that came with two times or more, one for each time, the first in the log first."""
    twice = rows.group_by("org_id", "event_id").agg(pl.col("event_time").n_unique().alias("times"))
    twice = twice.filter(pl.col("times") > 1).select("org_id", "event_id")
    if not twice.height:
        return rows.clear()
    ordered = rows.sort("priced_offset", maintain_order=True).join(twice, on=["org_id", "event_id"], how="semi")
    return ordered.unique(IDENTITY, keep="first", maintain_order=True)


def changed_contents(rows: pl.DataFrame, where: str) -> list[Difference]:
    """Name ids that were sent again with other content: the first counts, the producer is wrong."""
    contents = rows.filter(pl.col("revision") == 0).group_by(IDENTITY).agg(pl.col("content").n_unique().alias("kinds"))
    changed = contents.filter(pl.col("kinds") > 1)
    if not changed.height:
        return []
    detail = f"sent again with other content, the first one counts, for example {ids(changed)}"
    return [Difference("resend_with_other_content", where, changed.height, detail)]


@dataclass(frozen=True, slots=True)
class Corrected:
    """What corrections did: identities they touched, calls they took away, and calls under another organisation."""

    rows: int = 0
    voided: int = 0
    moved: int = 0

    def __add__(self, other: "Corrected") -> "Corrected":
        return Corrected(self.rows + other.rows, self.voided + other.voided, self.moved + other.moved)


def corrected(rows: pl.DataFrame, corrections: pl.DataFrame, stored: pl.DataFrame) -> Corrected:
    """Count corrections. `rows`: of the source; `corrections`: rows that these brought; `stored`: the ledger's.

    A call that moved is an empty row under its old organisation, and an identity that no source record has: such pairs
    are calls that moved, what is empty beyond them was taken away.
    """
    touched = corrections.select(IDENTITY).unique()
    arrived = touched.join(rows, on=IDENTITY, how="anti")
    empty = stored.filter(pl.col("status") == VOID)
    calls = (
        pl.concat(
            [
                arrived.select(*CALL, pl.lit(1).alias("arrived"), pl.lit(0).alias("empty")),
                empty.select(*CALL, pl.lit(0).alias("arrived"), pl.lit(1).alias("empty")),
            ]
        )
        .group_by(CALL)
        .sum()
    )
    pairs = int(calls.select(pl.min_horizontal("arrived", "empty").sum()).item())
    return Corrected(touched.height, empty.height - pairs, arrived.height)


def as_read(stored: pl.DataFrame, expected: pl.DataFrame, beyond: pl.Series) -> pl.DataFrame:
    """Return ledger rows as of the part of the log that was read.

    A corrected row `beyond` it has taken the place of the one that the log has: that one stands for it.
    """
    later = stored.filter(beyond)
    there = expected.join(later, on=IDENTITY, how="semi")
    return pl.concat([stored.filter(~beyond), there.select(stored.columns)])


@dataclass(frozen=True, slots=True)
class Compared:
    """What one side lacks or has otherwise; rows of the log for `missing` and `wrong`."""

    differences: list[Difference]
    missing: pl.DataFrame
    wrong: pl.DataFrame
    back: pl.DataFrame
    """Ledger rows that were voided."""
    voided: int


def compare(
    expected: pl.DataFrame, ledger: pl.DataFrame, letters: pl.DataFrame, voids: pl.DataFrame, where: str
) -> Compared:
    """Name identities that one side lacks, and costs that differ.

    `letters`: COORDINATES of source records that LEDGER dead-lettered; `voids`: IDENTITY of rows taken out on purpose.
    """
    found = []
    missing = expected.join(ledger, on=IDENTITY, how="anti")
    voided = missing.join(voids, on=IDENTITY, how="semi").height
    missing = missing.join(voids, on=IDENTITY, how="anti")
    turned_away = missing.join(letters, on=COORDINATES, how="semi")
    missing = missing.join(letters, on=COORDINATES, how="anti")
    back = ledger.join(voids, on=IDENTITY, how="semi")
    surplus = ledger.join(expected, on=IDENTITY, how="anti").join(voids, on=IDENTITY, how="anti")
    if turned_away.height:
        detail = f"ClickHouse refused them; they are dead letters: {ids(turned_away)}"
        found.append(Difference("refused_by_ledger", where, turned_away.height, detail))
    if back.height:
        detail = f"rows that were voided are in the ledger again, for example {ids(back)}"
        found.append(Difference("voided_is_back", where, back.height, detail))
    if missing.height:
        found.append(Difference("missing_in_ledger", where, missing.height, f"for example {ids(missing)}"))
    if surplus.height:
        found.append(Difference("only_in_ledger", where, surplus.height, f"for example {ids(surplus)}"))
    both = expected.join(ledger, on=IDENTITY, how="inner", suffix="_ledger")
    dear = both.filter(pl.col("cost_nano").ne_missing(pl.col("cost_nano_ledger")))
    older = both.filter(pl.col("revision") != pl.col("revision_ledger"))
    if dear.height:
        found.append(_costs(dear, where))
    if older.height:
        detail = f"the ledger has another revision than the log's corrections, for example {ids(older)}"
        found.append(Difference("revision", where, older.height, detail))
    wrong = pl.concat([dear, older]).unique(IDENTITY, keep="first", maintain_order=True)
    return Compared(found, missing, wrong.select(expected.columns), back, voided)


def _costs(wrong: pl.DataFrame, where: str) -> Difference:
    off = pl.col("cost_nano_ledger").fill_null(0) - pl.col("cost_nano").fill_null(0)
    amount = int(wrong.select(off).sum().item())
    detail = f"{wrong.height} events, the ledger is {amount:+} nano-USD off, for example {ids(wrong)}"
    return Difference("cost_nano", where, abs(amount) or wrong.height, detail)


def ids(rows: pl.DataFrame) -> str:
    """Show some of the ids."""
    return ", ".join(rows["event_id"].head(SHOWN).to_list())
