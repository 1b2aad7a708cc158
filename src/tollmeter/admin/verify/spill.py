"""Rows too many for memory go to disk by a hash of their id: what belongs together is read back together."""

import io
import struct
from pathlib import Path

import polars as pl

BUFFERED = 100_000
_LENGTH = struct.Struct(">Q")


class Spill:
    """Frames of one schema, cut by event id into `buckets` files of a folder that the caller removes."""

    def __init__(self, folder: Path, name: str, buckets: int, schema: pl.Schema) -> None:
        self._paths = [folder / f"{name}-{number}" for number in range(buckets)]
        self._schema = schema
        self._waiting: list[pl.DataFrame] = []
        self._height = 0

    def add(self, rows: pl.DataFrame) -> None:
        self._waiting.append(rows.cast(self._schema).select(list(self._schema)))
        self._height += rows.height
        if self._height >= BUFFERED:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        rows = pl.concat(self._waiting)
        self._waiting, self._height = [], 0
        # polars hashes the same text to the same number all over a process, which is as long as the files live
        bucket = (rows["event_id"].hash(0) % len(self._paths)).alias("bucket")
        for (number,), part in rows.with_columns(bucket).group_by("bucket", maintain_order=True):
            out = io.BytesIO()
            part.drop("bucket").write_ipc_stream(out, compression="lz4")
            with self._paths[int(str(number))].open("ab") as file:
                file.write(_LENGTH.pack(out.tell()))
                file.write(out.getbuffer())

    def read(self, number: int) -> pl.DataFrame:
        """Return the rows of one bucket in the order in which they were added."""
        self._flush()
        frames = [pl.DataFrame(schema=self._schema)]
        path = self._paths[number]
        if path.exists():
            with path.open("rb") as file:
                while head := file.read(_LENGTH.size):
                    frames.append(pl.read_ipc_stream(io.BytesIO(file.read(_LENGTH.unpack(head)[0]))))
        return pl.concat(frames)
