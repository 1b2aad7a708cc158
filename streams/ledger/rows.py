"""What LEDGER reads off records beside their rows: counts, alerts, declared gaps; and the columns of its tables."""

from datetime import UTC, datetime

from tollmeter.schemas.json_values import loads
from tollmeter.schemas.record import Record
from tollmeter.schemas.registry import public

CoverageRow = tuple[int, int, int, int, int, int, int, int, str, str]
"""A row of COVERAGE_COLUMNS."""
AlertRow = tuple[str, datetime]
"""The event as sent, and when the broker appended it."""
RegistryRow = tuple[str, str, int]
"""A row of REGISTRY_COLUMNS."""
GapRow = tuple[str, int, int, int, str, str, str]
"""A row of GAP_COLUMNS."""

COVERAGE_COLUMNS = (
    "priced_partition",
    "priced_offset",
    "source_partition",
    "first_offset",
    "last_offset",
    "records",
    "rejected",
    "rows",
    "price_book",
    "boot",
)
GAP_COLUMNS = ("stage", "priced_partition", "first_offset", "last_offset", "reason", "topic", "topic_id")
REGISTRY_COLUMNS = ("key", "value", "version")
_OFFSETS_A_MS = 20
_GAP_KINDS = ("gap", "new_epoch")
_GAP_BITS = (16, 64, 64)


def is_object(value: bytes) -> bool:
    """Tell whether bytes are a JSON object."""
    try:
        return isinstance(loads(value), dict)
    except ValueError:
        return False


def alert_row(record: Record) -> AlertRow:
    """Return an alert as its table stores it: the event as sent, and when the broker appended it."""
    return (record.value or b"").decode("utf-8", "replace"), datetime.fromtimestamp(record.timestamp / 1000, tz=UTC)


def registry_row(record: Record) -> RegistryRow | None:
    """Return a row of the registry as its table stores it, without secrets; None of one that is none.

    Its version is the append time and, within one millisecond, the order in the log.
    """
    version = (record.timestamp << _OFFSETS_A_MS) + record.offset % (1 << _OFFSETS_A_MS)
    try:
        return (record.key or b"").decode(), public(record.value) if record.value else "", version
    except ValueError:
        return None


def _is_number(value: object, bits: int) -> bool:
    return type(value) is int and 0 <= value < 1 << bits


def gap_row(record: Record) -> GapRow | None:
    """Return the row of an alert that declares offsets as gone; None of any other."""
    try:
        data = loads(record.value or b"")["data"]
        if data["kind"] not in _GAP_KINDS:
            return None
        last = max(0, data["last_offset"])
        numbers = data["partition"], data["first_offset"], last
        texts = data["stage"], data["topic"], data["topic_id"]
        if not all(isinstance(text, str) for text in texts) or not all(map(_is_number, numbers, _GAP_BITS)):
            return None
        return texts[0], *numbers, data["kind"], *texts[1:]
    except (ValueError, KeyError, TypeError):
        return None  # foreign, but stored among the alerts all the same
