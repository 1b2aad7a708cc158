"""Count the log's rows and name what does not add up. Pure: frames in, numbers and differences out.

Every term is counted by itself: accepted as source coordinates, resends as rows whose identity came before, distinct
as identities; none is the difference of the others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

IDENTITY = ["event_time", "org_id", "event_id"]
COORDINATES = ["src_partition", "src_offset"]
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it should be: which identity broke, where, and by how much."""

    name: str
    where: str
    amount: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LogCounts:
    """What one partition of usage.priced holds of the source records in question."""

    accepted: int
    distinct: int
    resends: int


def in_range(rows: pl.DataFrame, begin: Mapping[int, int], end: Mapping[int, int]) -> pl.DataFrame:
    """Keep rows whose source record lies in [begin, end) of its partition."""
    bounds = pl.DataFrame(
        {"src_partition": list(end), "begin": [begin.get(number, 0) for number in end], "end": list(end.values())},
        schema={"src_partition": pl.UInt16, "begin": pl.Int64, "end": pl.Int64},
    )
    joined = rows.join(bounds, on="src_partition", how="inner", maintain_order="left")
    return joined.filter(pl.col("src_offset").is_between(pl.col("begin"), pl.col("end"), closed="left")).drop(
        "begin", "end"
    )


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


def conflicts(rows: pl.DataFrame, where: str) -> list[Difference]:
    """Name ids that came with two times or two contents: the first wins, the producer is wrong."""
    found = []
    times = rows.group_by("org_id", "event_id").agg(pl.col("event_time").n_unique().alias("times"))
    twice = times.filter(pl.col("times") > 1)
    if twice.height:
        detail = f"the same event_id at several times, for example {_ids(twice)}"
        found.append(Difference("id_with_several_times", where, twice.height, detail))
    contents = rows.filter(pl.col("revision") == 0).group_by(IDENTITY).agg(pl.col("content").n_unique().alias("kinds"))
    changed = contents.filter(pl.col("kinds") > 1)
    if changed.height:
        detail = f"sent again with other content, the first one counts, for example {_ids(changed)}"
        found.append(Difference("resend_with_other_content", where, changed.height, detail))
    return found


def source_gaps(
    accepted: pl.DataFrame, rejected: Mapping[int, set[int]], begin: Mapping[int, int], end: Mapping[int, int]
) -> list[Difference]:
    """Name source records that are neither priced nor rejected, and those that are both."""
    found = []
    for number, last in end.items():
        first = begin.get(number, 0)
        ours = accepted.filter(pl.col("src_partition") == number)["src_offset"].unique().to_list()
        refused = {offset for offset in rejected.get(number, ()) if first <= offset < last}
        both = refused.intersection(ours)
        where = f"source partition {number}"
        if both:
            found.append(Difference("priced_and_rejected", where, len(both), f"offsets {spans(both)}"))
        if len(ours) + len(refused) - len(both) != last - first:
            missing = set(range(first, last)).difference(ours, refused)
            found.append(Difference("neither_priced_nor_rejected", where, len(missing), f"offsets {spans(missing)}"))
    return found


def spans(offsets: Iterable[int]) -> str:
    """Show offsets as ranges: 3-7, 9 ..."""
    out: list[list[int]] = []
    for offset in sorted(offsets):
        if out and offset == out[-1][1] + 1:
            out[-1][1] = offset
        else:
            out.append([offset, offset])
    shown = ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in out[:SHOWN])
    return shown + (f" and {len(out) - SHOWN} more ranges" if len(out) > SHOWN else "")


def compare(
    expected: pl.DataFrame, ledger: pl.DataFrame, refused: Mapping[int, set[int]], where: str
) -> list[Difference]:
    """Name identities that one side lacks, and costs that differ. `refused`: source records LEDGER dead-lettered."""
    found = []
    missing = expected.join(ledger, on=IDENTITY, how="anti")
    letters = pl.DataFrame(
        [(number, offset) for number, offsets in refused.items() for offset in offsets],
        schema={"src_partition": pl.UInt16, "src_offset": pl.Int64}, orient="row",
    )  # fmt: skip
    turned_away = missing.join(letters, on=COORDINATES, how="semi")
    missing = missing.join(letters, on=COORDINATES, how="anti")
    if turned_away.height:
        detail = f"ClickHouse refused them; they are dead letters: {_ids(turned_away)}"
        found.append(Difference("refused_by_ledger", where, turned_away.height, detail))
    if missing.height:
        found.append(Difference("missing_in_ledger", where, missing.height, f"for example {_ids(missing)}"))
    surplus = ledger.join(expected, on=IDENTITY, how="anti")
    if surplus.height:
        found.append(Difference("only_in_ledger", where, surplus.height, f"for example {_ids(surplus)}"))
    return found + _costs(expected, ledger, where)


def _costs(expected: pl.DataFrame, ledger: pl.DataFrame, where: str) -> list[Difference]:
    both = expected.join(ledger, on=IDENTITY, how="inner", suffix="_ledger")
    other = both.filter(pl.col("cost_nano").ne_missing(pl.col("cost_nano_ledger")))
    if not other.height:
        return []
    amount = int(other.select(pl.col("cost_nano_ledger").fill_null(0) - pl.col("cost_nano").fill_null(0)).sum().item())
    detail = f"{other.height} events, the ledger is {amount:+} nano-USD off, for example {_ids(other)}"
    return [Difference("cost_nano", where, abs(amount) or other.height, detail)]


def _ids(rows: pl.DataFrame) -> str:
    return ", ".join(rows["event_id"].head(SHOWN).to_list())
