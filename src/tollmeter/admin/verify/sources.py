"""Which offsets of the source log are accounted for: priced, rejected, both, or neither. A byte for each offset."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import polars as pl

from tollmeter.admin.verify.count import SHOWN, Difference

ACCEPTED, REJECTED, NO_RECORD = 1, 2, 4
_Flags = np.ndarray[tuple[int], np.dtype[np.uint8]]


class SourceMap:
    """The offsets in [begin, end) of each source partition."""

    def __init__(self, begin: Mapping[int, int], end: Mapping[int, int]) -> None:
        self._begin = {number: min(begin.get(number, 0), last) for number, last in end.items()}
        self._flags = {number: np.zeros(last - self._begin[number], np.uint8) for number, last in end.items()}

    def inside(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Keep the rows whose source record lies in the map."""
        bounds = pl.DataFrame(
            {
                "src_partition": list(self._flags),
                "begin": [self._begin[number] for number in self._flags],
                "end": [self._begin[number] + flags.size for number, flags in self._flags.items()],
            },
            schema={"src_partition": pl.UInt16, "begin": pl.Int64, "end": pl.Int64},
        )
        joined = rows.join(bounds, on="src_partition", how="inner", maintain_order="left")
        return joined.filter(pl.col("src_offset").is_between(pl.col("begin"), pl.col("end"), closed="left")).drop(
            "begin", "end"
        )

    def accept(self, rows: pl.DataFrame) -> None:
        """Mark the source records of rows, which must be inside."""
        for (name,), part in rows.select("src_partition", "src_offset").group_by("src_partition"):
            number = int(str(name))
            self._flags[number][part["src_offset"].to_numpy() - self._begin[number]] |= ACCEPTED

    def reject(self, number: int, offset: int) -> None:
        self._mark(number, offset, REJECTED)

    def no_record(self, number: int, offset: int) -> None:
        """Mark an offset at which the log holds no record: the mark of a transaction, or a deleted one."""
        self._mark(number, offset, NO_RECORD)

    def _mark(self, number: int, offset: int, flag: int) -> None:
        flags = self._flags.get(number)
        if flags is not None and 0 <= offset - self._begin[number] < flags.size:
            flags[offset - self._begin[number]] |= flag

    def unaccounted(self) -> Iterator[tuple[int, list[int]]]:
        """Yield partitions with the offsets that nothing is known of."""
        for number, flags in self._flags.items():
            open_ = (np.flatnonzero(flags == 0) + self._begin[number]).tolist()
            if open_:
                yield number, open_

    def bounds(self) -> Iterator[tuple[int, int, int]]:
        """Yield partition, first offset and the offset behind the last."""
        return ((number, self._begin[number], self._begin[number] + f.size) for number, f in self._flags.items())

    def holding(self, number: int, first: int, last: int) -> list[int]:
        """Return the offsets from `first` to `last` that hold a record."""
        begin = self._begin[number]
        part = self._flags[number][first - begin : last - begin + 1]
        return (np.flatnonzero(part & NO_RECORD == 0) + first).tolist()

    def records(self) -> int:
        """Return how many offsets hold a record."""
        return sum(int((flags & NO_RECORD == 0).sum()) for flags in self._flags.values())

    def rejected(self) -> int:
        return sum(int((flags & REJECTED > 0).sum()) for flags in self._flags.values())

    def differences(self) -> list[Difference]:
        """Name source records that are neither priced nor rejected, and those that are both."""
        found = []
        for number, flags in self._flags.items():
            where, both = f"source partition {number}", flags & (ACCEPTED | REJECTED) == ACCEPTED | REJECTED
            for name, mask in (("priced_and_rejected", both), ("neither_priced_nor_rejected", flags == 0)):
                offsets = (np.flatnonzero(mask) + self._begin[number]).tolist()
                if offsets:
                    found.append(Difference(name, where, len(offsets), f"offsets {spans(offsets)}"))
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
