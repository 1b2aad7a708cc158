"""Run the real command as people meet it: in a terminal of some width, and in a pipe."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import unicodedata
from collections.abc import Mapping

CODES = re.compile(r"\x1b\[[0-9;]*m")


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return this environment without our settings and without what says how wide or colourful a terminal is."""
    unwanted = ("COLUMNS", "LINES", "NO_COLOR")
    return {k: v for k, v in os.environ.items() if not k.startswith("TOLLMETER_") and k not in unwanted} | dict(more)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tollmeter", *arguments]


def in_terminal(width: int, *arguments: str, timeout_s: float = 60, **more: str) -> str:
    r"""Return what the command writes to a terminal of so many columns, with its escape codes, lines ended by \n."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    process = subprocess.Popen(
        command(*arguments), stdin=there, stdout=there, stderr=there, env=environment(more), close_fds=True
    )
    os.close(there)
    written = b""
    try:
        while True:
            try:
                part = os.read(here, 65_536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            written += part
        process.wait(timeout_s)
    finally:
        os.close(here)
        process.kill()
        process.wait()
    return written.decode().replace("\r\n", "\n")


def in_pipe(*arguments: str, stdin: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
    """Return what the command writes into pipes."""
    return subprocess.run(
        command(*arguments), input=stdin, capture_output=True, env=environment(more), timeout=120, check=False
    )


def widest(text: str) -> int:
    """Return the columns of the widest line, without escape codes."""
    return max(
        sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in CODES.sub("", line))
        for line in text.splitlines()
    )
