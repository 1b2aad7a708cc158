"""Environments of their own for programs of others that do not fit into ours: made from a lock with hashes, once.

They lie in build/environments; a lock that changed is made anew. Only nightly tests use them: they are downloaded.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

LOCKS = Path(__file__).parent
BUILT = LOCKS.parents[1] / "build" / "environments"
PIP = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--require-hashes", "--no-deps")


def python(name: str, *built_here: str) -> Path:
    """Return the interpreter of an environment. `built_here`: what PyPI has as source alone, built with the rest."""
    lock = LOCKS / f"{name}.lock"
    folder = BUILT / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    BUILT.mkdir(parents=True, exist_ok=True)
    with (BUILT / f"{name}.being-made").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            _install(folder, lock, built_here)
            (folder / "whole").touch()
    return folder / "bin" / "python"


def _install(folder: Path, lock: Path, built_here: tuple[str, ...]) -> None:
    """Install wheels first, so that what is built finds its tools among them and nothing else is downloaded."""
    pip = [folder / "bin" / "python", *PIP]
    if not built_here:
        subprocess.run([*pip, "--only-binary", ":all:", "-r", lock], check=True)
        return
    blocks = _blocks(lock.read_text(encoding="utf-8"))
    ours = [block for block in blocks if block.startswith(tuple(f"{name}==" for name in built_here))]
    assert len(ours) == len(built_here), "a name that the lock does not have"
    for part, options in ((set(blocks) - set(ours), ("--only-binary", ":all:")), (ours, ("--no-build-isolation",))):
        file = folder / "part.txt"
        file.write_text("\n".join(sorted(part)), encoding="utf-8")
        subprocess.run([*pip, *options, "-r", file], check=True)


def _blocks(text: str) -> list[str]:
    """Return the requirements of a lock, each with its hashes."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [
        block
        for block in "\n".join(lines).replace("\\\n", "\x00").splitlines()
        for block in [block.replace("\x00", "\\\n")]
    ]
