"""Named questions, one file each in `queries/`; parameters are bound by the server, never pasted into the text.

What several of them share stands once, in a file whose name begins with `_`: a line `-- include: NAME` stands for it.
"""

import re
from datetime import UTC, datetime
from functools import cache
from importlib import resources

_INCLUDE = re.compile(r"^ *-- include: (\w+)\n", re.MULTILINE)


@cache
def load(name: str) -> str:
    """Return the text of `queries/<name>.sql`."""
    return _INCLUDE.sub(lambda line: load(f"_{line[1]}"), _text(name))


def _text(name: str) -> str:
    return (resources.files(__package__) / "queries" / f"{name}.sql").read_text(encoding="utf-8")


def moment(at: datetime) -> str:
    """Return an aware datetime as a DateTime64(6, 'UTC') parameter, to the microsecond."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
