"""A copy of the checkout as a clone would be: what git tracks or would add, links as links, nothing that was built."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def copy(target: Path, leave_out: tuple[str, ...] = ("tests/", "docs/", "benchmarks/")) -> Path:
    """Copy the tree to `target`, without what starts with one of `leave_out`, and return `target`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if name.startswith(leave_out) or not os.path.lexists(ROOT / name):
            continue
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            path.symlink_to((ROOT / name).readlink())
        else:
            path.write_bytes((ROOT / name).read_bytes())
    return target
