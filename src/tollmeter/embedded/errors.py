"""An error of the HTTP front has ClickHouse's own shape: a code, a text, and the HTTP status a server would send."""

import re

# HTTP status by ClickHouse error code; what is not listed is the statement's or the rows' fault: 400.
_STATUS = {
    516: 401,
    192: 401,
    193: 401,
    194: 401,
    60: 404,
    81: 404,
    47: 404,
    46: 404,
    115: 404,
    16: 404,
    79: 404,
    164: 403,
    291: 403,
    497: 403,
    48: 501,
    159: 408,
    160: 408,
    202: 503,
    252: 503,
    # no memory, no disk, no file, a logical error, an abort: ours
    49: 500,
    74: 500,
    75: 500,
    76: 500,
    173: 500,
    209: 500,
    210: 500,
    228: 500,
    236: 500,
    241: 500,
    242: 500,
    243: 500,
    246: 500,
    1000: 500,
    1001: 500,
    1002: 500,
}
_CODE = re.compile(r"Code: (\d+)")


class FrontError(Exception):
    """A refusal or failure as the client sees it: `Code: N. DB::Exception: text. (NAME)`."""

    def __init__(self, code: int, text: str, status: int | None = None) -> None:
        super().__init__(text if text.startswith("Code: ") else f"Code: {code}. DB::Exception: {text}")
        self.code = code
        self.status = status or _STATUS.get(code, 400)


def from_engine(error: Exception) -> FrontError | None:
    """Return chDB's plain exception as a `FrontError`; None when it carries no ClickHouse code (a bug, then)."""
    text = str(error)
    found = _CODE.search(text)
    return FrontError(int(found.group(1)), text[found.start() :]) if found else None


def refused(text: str) -> FrontError:
    """Return the error for what a read-only user may not do."""
    return FrontError(164, f"{text} (READONLY)")
