"""A wanted port if it is free, else one that the system picks; both on loopback."""

import socket
from collections.abc import Sequence
from contextlib import ExitStack


def choose(wanted: Sequence[int]) -> list[int]:
    """Return one free port per wish, all different; 0 means any."""
    with ExitStack() as held:  # all at once, or the same one would be picked twice
        listeners = [held.enter_context(listener(port)) for port in wanted]
        return [made.getsockname()[1] for made in listeners]


def listener(port: int) -> socket.socket:
    """Return a listening socket on the port, or on any other one when it is taken."""
    for candidate in (port, 0):
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            made.bind(("127.0.0.1", candidate))
            # on Linux bind with SO_REUSEADDR succeeds beside a bound but not listening socket; listen does not
            made.listen(1)
        except OSError:
            made.close()
            continue
        return made
    raise OSError("no free port on 127.0.0.1")


def is_free(port: int) -> bool:
    """Tell whether a program may listen on the port now."""
    with listener(port) as made:
        return bool(made.getsockname()[1] == port)


def answers(port: int) -> bool:
    """Tell whether something accepts connections on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
    except OSError:
        return False
    return True
