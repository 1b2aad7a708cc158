"""A time given as a number is read by its magnitude: seconds, milliseconds, microseconds or nanoseconds since 1970.

Between 2001 and 2100 the four ranges do not touch, so that no number means two times; any other number means none.
"""

import re
from collections.abc import Iterable
from decimal import Decimal
from math import isfinite

FIRST_S, END_S = 978_307_200, 4_102_444_800
"""2001-01-01 and 2100-01-01."""
REACH_DAYS = 400
"""An event may be so long before or after its arrival; beyond that its time is taken for a fault."""
H_BACKFILL = "tollmeter-backfill"
"""A header of a source record, whatever its value: its time is meant, however long ago, and it alerts nobody."""
EXPECTED = (
    "no time between 2001 and 2100: microseconds since 1970 are expected (seconds, milliseconds and nanoseconds "
    "are known by their size)"
)
_IS_NUMBER = re.compile(r"-?[0-9]{1,32}(\.[0-9]{1,32})?")
_PER_S = (1, 1_000, 1_000_000, 1_000_000_000)


def is_backfill(headers: Iterable[tuple[str, bytes]]) -> bool:
    """Tell whether the record with these headers is marked as brought in afterwards."""
    return any(name == H_BACKFILL for name, _ in headers)


def is_number(text: str) -> bool:
    """Tell whether a text is a decimal number, and no date."""
    return _IS_NUMBER.fullmatch(text) is not None


def micros_of(number: int | float | str) -> int | None:
    """Return microseconds since 1970 of a number of any of the four units, or such a text; None outside 2001 to 2100.

    Digits beyond the microsecond are cut. A float is the shortest decimal that reads as it.
    """
    if isinstance(number, float) and not isfinite(number):
        return None
    value = number if isinstance(number, int) else Decimal(str(number))
    for per_s in _PER_S:
        if FIRST_S * per_s <= value < END_S * per_s:
            return int(value * 1_000_000 // per_s)
    return None
