"""The rows of an INSERT lie in a file for a moment: in memory where the system can, and never left behind there."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Spool:
    """Makes the files; on disk they lie in a private folder that is emptied at the start."""

    def __init__(self, data: Path) -> None:
        self._folder = data / "spool"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for left in self._folder.iterdir():
            left.unlink()

    @contextmanager
    def file(self, rows: bytes) -> Iterator[Path]:
        """Yield a path that this process can read the rows from; it is gone afterwards."""
        if hasattr(os, "memfd_create"):
            with os.fdopen(os.memfd_create("rows"), "wb", buffering=0) as memory:
                _write(memory.fileno(), rows)
                yield Path(f"/proc/self/fd/{memory.fileno()}")
        else:
            with tempfile.NamedTemporaryFile(dir=self._folder, buffering=0) as disk:
                _write(disk.fileno(), rows)
                yield Path(disk.name)


def _write(file: int, rows: bytes) -> None:
    left = memoryview(rows)
    while left:  # one call writes 2 GB at most, and less when interrupted
        left = left[os.write(file, left) :]
