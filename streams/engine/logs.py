"""Logs go to stderr, one line per event; what is repeated is said once in a while."""

import logging
import os
from time import monotonic

from tollmeter import log_lines

REPEAT_S = 10.0


class Seldom(logging.Filter):
    """Lets the same thing be said once in ten seconds: without a broker its clients say it ten times a second.

    The same is, of a library, a line with other values as well; of our own, the same warning word for word.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        ours = record.name.startswith("tollmeter")
        if ours and record.levelno != logging.WARNING:
            return True
        key, now = (record.name, record.getMessage() if ours else record.msg), monotonic()
        if now < self._said.get(key, -REPEAT_S) + REPEAT_S:
            return False
        self._said = {said: at for said, at in self._said.items() if now < at + REPEAT_S}  # texts differ without end
        self._said[key] = now
        return True


def log_to_stderr() -> None:
    """Set up logging of a worker: ours from level info, libraries from warning.

    Malformed records may make polars panic. That is caught and costs a line; a trace would cost 5 ms and a hundred.
    """
    os.environ["RUST_BACKTRACE"] = "0"
    log_lines.log_to_stderr(Seldom())
    # Faust's services log under the modules of our classes: only what is wrong
    logging.getLogger("tollmeter.streams").setLevel(logging.WARNING)
