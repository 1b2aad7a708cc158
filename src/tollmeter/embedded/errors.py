"""An error of the HTTP front has ClickHouse's own shape: a code, a text, and the HTTP status a server would send."""

import re

# HTTP status by ClickHouse error code, as a real server maps them; everything else about a query is 500.
_STATUS = {
    516: 401, 192: 401, 193: 401, 194: 401,
    60: 404, 81: 404, 47: 404, 46: 404, 115: 404, 16: 404, 79: 404,
    62: 400, 36: 400, 6: 400, 27: 400, 33: 400, 38: 400, 41: 400, 53: 400, 69: 400, 70: 400, 72: 400, 117: 400,
    130: 400, 131: 400, 349: 400, 376: 400, 469: 400, 636: 400, 675: 400, 676: 400, 691: 400,
    164: 403, 291: 403, 497: 403,
    48: 501, 159: 408, 202: 503,
}  # fmt: skip
_CODE = re.compile(r"Code: (\d+)")


class FrontError(Exception):
    """A refusal or failure as the client sees it: `Code: N. DB::Exception: text. (NAME)`."""

    def __init__(self, code: int, text: str, status: int | None = None) -> None:
        super().__init__(text if text.startswith("Code: ") else f"Code: {code}. DB::Exception: {text}")
        self.code = code
        self.status = status or _STATUS.get(code, 500)


def from_engine(error: Exception) -> FrontError | None:
    """Return chDB's plain exception as a `FrontError`; None when it carries no ClickHouse code (a bug, then)."""
    text = str(error)
    found = _CODE.search(text)
    return FrontError(int(found.group(1)), text[found.start() :]) if found else None


def refused(text: str) -> FrontError:
    """Return the error for what a read-only user may not do."""
    return FrontError(164, f"{text} (READONLY)")
