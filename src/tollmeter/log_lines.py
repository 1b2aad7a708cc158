"""What our processes log: an event is one line, whatever a name or an error from outside holds.

Keys of providers are masked; lines of a trace are indented.
"""

import logging
import sys
from textwrap import indent

from tollmeter.schemas.escapes import many_lines, one_line
from tollmeter.schemas.secrets import mask_keys, mask_secrets


class LogLines(logging.Formatter):
    """Time, level, logger and message on one line; lines of a trace below it begin with blanks."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - named by logging
        record.message = one_line(mask_keys(record.message))
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802 - named by logging
        return indent(many_lines(mask_secrets(super().formatException(ei))), "  ")  # type: ignore[arg-type]


def log_to_stderr(*filters: logging.Filter) -> None:
    """Send what is logged to stderr: ours from level info, that of libraries from warning."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogLines())
    for one in filters:
        handler.addFilter(one)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("tollmeter").setLevel(logging.INFO)
