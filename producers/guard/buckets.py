"""Where rate limits count: in this process, or in one file that all processes of this user on this machine share.

A bucket is one number, the moment (on the machine's monotonic clock) at which it will be full again. In the file it has
a slot by the hash of its name and of this boot of the machine, so what was counted before a restart is nobody's.
A file that cannot be had, or whose lock somebody stopped holds, costs the sharing, never a call.
"""

import fcntl
import mmap
import os
import struct
import threading
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Literal, Protocol

from tollmeter.producers.client.destinations import RateLimited

Bucket = tuple[str, str, str]
"""Organisation, scope and name."""
CountedBy = Literal["host", "process"]
MAX_BUCKETS = 50_000
"""When so many buckets are young they become the old ones, and the old are forgotten: a check costs the same always."""
SLOTS, PROBES = 1 << 16, 8
_SLOT = struct.Struct("<QQ")
_LOCK_WAIT_S, _LOCK_STEP_S, _ALONE_S = 0.01, 0.0002, 1.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Buckets(Protocol):
    """Between `acquire` and `release` nobody else counts."""

    @property
    def counted_by(self) -> CountedBy: ...

    def acquire(self) -> None: ...
    def release(self) -> None: ...
    def get(self, bucket: Bucket) -> int: ...
    def put(self, bucket: Bucket, full_at: int) -> None: ...
    def after_fork(self) -> None: ...


class ProcessBuckets:
    """Of this process alone."""

    counted_by: CountedBy = "process"

    def __init__(self) -> None:
        self._full_at: dict[Bucket, int] = {}
        self._old: dict[Bucket, int] = {}
        self.after_fork()

    def after_fork(self) -> None:
        """Take a lock of our own: in the child of a fork the parent's may be held for ever."""
        self._lock = threading.Lock()

    def acquire(self) -> None:
        self._lock.acquire()

    def release(self) -> None:
        self._lock.release()

    def get(self, bucket: Bucket) -> int:
        return self._full_at.get(bucket) or self._old.get(bucket, 0)

    def put(self, bucket: Bucket, full_at: int) -> None:
        self._full_at[bucket] = full_at
        if len(self._full_at) >= MAX_BUCKETS:
            self._old, self._full_at = self._full_at, {}


class HostBuckets:
    """Of all processes that name the same file; of this one alone while that cannot be had."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._alone = ProcessBuckets()
        self._boot = _boot_id()
        self._faults = RateLimited()
        self.after_fork()

    def after_fork(self) -> None:
        """Open the file anew: a lock of the parent's descriptor would be ours, too."""
        self._alone.after_fork()
        self._lock = threading.Lock()
        self._file = -1
        self._slots: mmap.mmap | None = None
        self._shared = False
        self._alone_until = 0.0

    @property
    def counted_by(self) -> CountedBy:
        return "host" if self._shared else "process"

    def acquire(self) -> None:
        self._lock.acquire()
        self._alone.acquire()
        self._shared = time.monotonic() >= self._alone_until and self._opened() and self._locked()
        if not self._shared:
            self._alone_until = max(self._alone_until, time.monotonic() + _ALONE_S)

    def release(self) -> None:
        if self._shared:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._alone.release()
        self._lock.release()

    def get(self, bucket: Bucket) -> int:
        if not self._shared or self._slots is None:
            return self._alone.get(bucket)
        name = self._name(bucket)
        known, full_at = _SLOT.unpack_from(self._slots, self._place(self._slots, name))
        return int(full_at) if known == name else 0

    def put(self, bucket: Bucket, full_at: int) -> None:
        if not self._shared or self._slots is None:
            self._alone.put(bucket, full_at)
        else:
            name = self._name(bucket)
            _SLOT.pack_into(self._slots, self._place(self._slots, name), name, full_at)

    @staticmethod
    def _place(slots: mmap.mmap, name: int) -> int:
        """Return the place of a bucket's slot: its own, else the one of its few that is, or will be, full first."""
        first, soonest = 0, -1
        for step in range(PROBES):
            place = (name + step) % SLOTS * _SLOT.size
            known, full_at = _SLOT.unpack_from(slots, place)
            if known == name:
                return place
            if soonest < 0 or full_at < soonest:
                first, soonest = place, full_at
        return first

    def _name(self, bucket: Bucket) -> int:
        parts = "\0".join((self._boot, *bucket)).encode("utf-8", "surrogatepass")
        return int.from_bytes(blake2b(parts, digest_size=8).digest(), "little") or 1

    def _opened(self) -> bool:
        if self._slots is not None:
            return True
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if os.fstat(self._file).st_size != SLOTS * _SLOT.size:
                os.posix_fallocate(self._file, 0, SLOTS * _SLOT.size)
            self._slots = mmap.mmap(self._file, SLOTS * _SLOT.size)
        except (OSError, ValueError) as error:
            self._faults.warn("rate limits count in this process alone: %s", type(error).__name__)
            with suppress(OSError):
                os.close(self._file)
            return False
        return True

    def _locked(self) -> bool:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(_LOCK_STEP_S)


def _boot_id() -> str:
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:  # not Linux: a bucket of before the restart is cut to what a bucket can be
        return ""
