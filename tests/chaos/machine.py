"""What only root can do to a machine: a network namespace that can be cut off, a small disk in memory; and strace.

Everything has a name of its own that nobody else uses, and is gone afterwards.
"""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

DISK_MB = 2_048


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def _root() -> str | None:
    if sys.platform != "linux":
        return "not Linux"
    return None if os.geteuid() == 0 else "needs root"


class Namespace:
    """A network of its own behind one cable. Its programs reach the host under `host`, and only while it is plugged."""

    def __init__(self) -> None:
        self.name = f"tollmeter-{os.getpid()}"
        self._cable = f"tm{os.getpid()}"
        block = os.getpid() % 16_384  # a /30 of a range for tests of networks (RFC 2544)
        self._net = f"198.{18 + block // 8_192}.{block // 64 % 128}.{block % 64 * 4}".rpartition(".")
        self.host, self.inside = (f"{self._net[0]}.{int(self._net[2]) + last}" for last in (1, 2))

    def missing(self) -> str | None:
        """Say why there can be none here; None when it is up."""
        if reason := _root() or (None if shutil.which("ip") else "no ip command"):
            return reason
        try:
            _run("ip", "netns", "add", self.name)
            _run("ip", "link", "add", self._cable, "type", "veth", "peer", "name", "out", "netns", self.name)
            _run("ip", "address", "add", f"{self.host}/30", "dev", self._cable)
            _run("ip", "link", "set", self._cable, "up")
            for rest in (
                ("address", "add", f"{self.inside}/30", "dev", "out"),
                ("link", "set", "out", "up"),
                ("link", "set", "lo", "up"),
            ):
                _run("ip", "-n", self.name, *rest)
        except subprocess.CalledProcessError as error:
            self.close()
            return f"no network namespace: {error.stderr.strip()[:80]}"
        return None

    def command(self, *command: str) -> list[str]:
        """Return the command that runs another one inside."""
        return ["ip", "netns", "exec", self.name, *command]

    def plug(self, *, in_: bool) -> None:
        """Connect it, or cut it off: what is sent then is lost, and no end is told."""
        _run("ip", "link", "set", self._cable, "up" if in_ else "down")

    def close(self) -> None:
        """Remove it; its programs must have ended."""
        with suppress(OSError):
            subprocess.run(["ip", "link", "del", self._cable], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)


class Disk:
    """A file system in memory that can be made full in an instant: it shrinks to what it holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mounted = False

    def missing(self) -> str | None:
        """Say why there can be none here; None when it is mounted."""
        if reason := _root():
            return reason
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            _run("mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=700", "tollmeter-chaos", str(self.folder))
        except (OSError, subprocess.CalledProcessError):
            return "tmpfs cannot be mounted"
        self._mounted = True
        return None

    def fill(self) -> None:
        """Leave no free byte."""
        for _ in range(20):  # a write between the look and the shrinking makes it fail
            state = os.statvfs(self.folder)
            with suppress(subprocess.CalledProcessError):
                self._resize(f"{(state.f_blocks - state.f_bfree) * state.f_frsize // 1024}k")
                return
        raise RuntimeError("the disk in memory does not shrink to what it holds")

    def free(self) -> None:
        """Give the space back."""
        self._resize(f"{DISK_MB}m")

    def _resize(self, size: str) -> None:
        _run("mount", "-o", f"remount,size={size}", str(self.folder))

    def close(self) -> None:
        """Unmount it."""
        if self._mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=False, capture_output=True)


class Tracer:
    """strace on a running process: its file syncs fail."""

    def missing(self) -> str | None:
        """Say why it cannot be used here, by using it on a process of our own."""
        if sys.platform != "linux" or not shutil.which("strace"):
            return "no strace"
        sleeper = subprocess.Popen(["sleep", "30"])
        try:
            tried = subprocess.run(
                ["timeout", "1", "strace", "-p", str(sleeper.pid)], capture_output=True, text=True, check=False
            )
        finally:
            sleeper.kill()
            sleeper.wait()
        return None if "attached" in tried.stderr else "strace may not trace here"

    def fail_syncs(self, pid: int, first: int, log: Path) -> "subprocess.Popen[bytes]":
        """Let the `first` sync of each thread of a process fail, and every second one after it, until terminated."""
        calls = "fsync,fdatasync"
        command = ["strace", "-f", "-p", str(pid), "-e", f"trace={calls}"]
        command += ["-e", f"inject={calls}:error=EIO:when={first}+2", "-o", str(log)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
