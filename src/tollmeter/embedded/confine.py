"""From here on this process, and every thread it starts, opens its own folder and the system's code and nothing else.

The engine's SQL reads and writes whatever its process may. Landlock (Linux 5.13 and later, no privileges needed)
makes that one folder: not the passwords beside it, not the environment of other processes, no address to connect to.
"""

import ctypes
import os
import struct
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Numbers of the system calls, the same on every architecture."""
_VERSION_FLAG, _PATH_BENEATH, _NO_NEW_PRIVILEGES = 1, 1, 38
_EXECUTE, _READ_FILE, _READ_FOLDER = 1, 4, 8
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
"""All rights on files that a version of Landlock knows; later versions add devices."""
_FILE_RIGHTS_NOW = (1 << 16) - 1
_FOLDER_RIGHTS = 0b11_1111_1111_1000
"""Reading folders; making, removing and moving what is in them: a rule for a file must not have these."""
_CONNECT = 2
_NETWORK_SINCE = 4

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime")
_MACHINE = (
    *("/dev/urandom", "/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage"),
    *("/proc/stat", "/proc/meminfo", "/proc/cpuinfo", "/proc/sys/vm/overcommit_memory"),
    *(f"/proc/self/{name}" for name in ("maps", "auxv", "statm", "status", "stat", "mountinfo", "cgroup")),
)
"""What the engine asks about the machine and itself: no arguments, no environment, no other process."""

_pinned: list[int] = []
"""The files of /proc stay open: what is looked up anew there is another file to the kernel."""


def confine(folder: Path) -> bool:
    """Allow this thread and those it starts `folder` and reading of code; False where the system has no Landlock.

    To be called before other threads are started, as those that run are not confined. Raises `OSError` when the
    system has Landlock and refuses.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    if version < 1:
        return False
    rights = _FILE_RIGHTS.get(version, _FILE_RIGHTS_NOW)
    network = struct.pack("Q", _CONNECT) if version >= _NETWORK_SINCE else b""
    asked = struct.pack("Q", rights) + network
    rules = _checked(libc.syscall(_CREATE_RULESET, asked, len(asked), 0))
    _allow(libc, rules, [str(folder)], rights)
    _allow(libc, rules, ["/dev/null"], rights & ~_EXECUTE)
    _allow(libc, rules, [*_code(), *_MACHINE], _EXECUTE | _READ_FILE | _READ_FOLDER)
    _checked(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _checked(libc.syscall(_RESTRICT_SELF, rules, 0))
    os.close(rules)
    return True


def _code() -> set[str]:
    """Return where Python, its packages and the system's libraries lie."""
    paths = sysconfig.get_paths()
    installed = {path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")}
    return {
        paths["stdlib"],
        paths["platstdlib"],
        f"{sys.prefix}/lib",
        f"{sys.base_prefix}/lib",
        *installed,
        *_LIBRARIES,
    }


def _allow(libc: ctypes.CDLL, rules: int, paths: Iterable[str], rights: int) -> None:
    """Add a rule for each path that exists; of the rights only those that its kind can have."""
    for path in paths:
        try:
            file = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        _pinned.append(file)
        fitting = rights if Path(path).is_dir() else rights & ~_FOLDER_RIGHTS
        _checked(libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", fitting, file), 0))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return result
