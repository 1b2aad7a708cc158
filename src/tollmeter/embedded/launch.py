"""Become another program that dies with its parent: `python launch.py PARENT_PID COMMAND...` (standard library only).

The kernel kills it when its parent is gone, whatever killed that (Linux); elsewhere only an orderly stop ends it.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

parent, command = int(sys.argv[1]), sys.argv[2:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call above
        sys.exit(1)
os.execvp(command[0], command)  # noqa: S606 -- no shell is wanted
