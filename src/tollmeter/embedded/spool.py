"""The rows of an INSERT lie in a file for a moment, in memory where the system has a folder for that."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MEMORY = Path("/dev/shm")  # noqa: S108 -- a private folder is made in it


class Spool:
    """A private folder for one data folder; what a killed predecessor left in memory is removed."""

    def __init__(self, data: Path) -> None:
        prefix = f"tollmeter-{os.getuid()}-{hashlib.sha256(bytes(data.absolute())).hexdigest()[:16]}-"
        self._folders = [Path(tempfile.mkdtemp(prefix="spool-", dir=data))]
        for left in (*data.glob("spool-*"), *_MEMORY.glob(f"{prefix}*")):
            if left not in self._folders:
                shutil.rmtree(left, ignore_errors=True)
        if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK):
            self._folders.insert(0, Path(tempfile.mkdtemp(prefix=prefix, dir=_MEMORY)))

    def close(self) -> None:
        """Remove the folders."""
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def file(self, rows: bytes) -> Iterator[Path]:
        """Yield a file that holds the rows, on disk when memory is full; it is gone afterwards."""
        path = self._write(rows)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _write(self, rows: bytes) -> Path:
        for folder in self._folders:
            handle, name = tempfile.mkstemp(dir=folder)
            try:
                with os.fdopen(handle, "wb") as out:
                    out.write(rows)
            except OSError:
                Path(name).unlink()
                if folder == self._folders[-1]:
                    raise
            else:
                return Path(name)
        raise AssertionError("there is always a folder on disk")
