"""Import usage that was recorded elsewhere: read, convert, send, wait; what is imported twice is stored once."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol
from uuid import UUID, uuid5

from pydantic import ValidationError

from tollmeter.producers.imports.log_lines import from_line, is_line, unread_cost
from tollmeter.producers.imports.old_tables import TOKENS, OldToken, Ordinals, event_of, table_of, token_of
from tollmeter.producers.imports.publish import Acknowledged, Publisher
from tollmeter.producers.imports.readers import Bad, read
from tollmeter.schemas.codec import encode
from tollmeter.schemas.event import UsageEvent
from tollmeter.schemas.times import H_BACKFILL
from tollmeter.settings import Settings

FORMATS = ("auto", "sample", "openai-usage", "cloud-logging", "old-tables")
SHOWN = 5
HOME = "default"
NAMESPACE = UUID("9b0f6c1e-52a4-5f0d-8f7b-2a4f3d1c7e55")
_USAGE = frozenset({"usage", "model_used"})
"""What a line without a type must have to be taken for usage."""
_NUMBERS = frozenset({"prompt_chars", "est_cost"})
BLOCK = 2_000
LOG = ""
"""Name of the only trace in a log file; the merged sample has several, each with a calendar of its own."""


@dataclass
class Report:
    """What became of the entries: read = events + skipped + bad + tokens; `sent` of the events are acknowledged."""

    read: int = 0
    events: int = 0
    skipped: int = 0
    bad: int = 0
    sent: int = 0
    expired: int = 0
    """Events older than the ledger's retention."""
    first_bad: list[Bad] = field(default_factory=list)
    cost_unread: int = 0
    """Events that are in without the cost that their line states: it is no amount."""
    first_unread: list[Bad] = field(default_factory=list)
    shifts: dict[str, timedelta] = field(default_factory=dict)
    tokens: list[OldToken] = field(default_factory=list)
    """Tracking tokens of an older meter; they are no events, and for whoever keeps tokens."""
    assigned: bool = False
    """Keys, organisations and models were drawn from the seed."""

    def refuse(self, bad: Bad) -> None:
        self.bad += 1
        if len(self.first_bad) < SHOWN:
            self.first_bad.append(bad)

    def flag_cost(self, unread: Bad) -> None:
        self.cost_unread += 1
        if len(self.first_unread) < SHOWN:
            self.first_unread.append(unread)


class Traces(Protocol):
    """Rows of published traces, which lack keys, organisations and models: a seed gives them."""

    COLUMNS: frozenset[str]

    def trace_of(self, content: Mapping[str, object], /) -> str: ...
    def event_of(self, content: Mapping[str, object], place: str, seed: int, org: str, /) -> UsageEvent: ...


@dataclass(frozen=True, slots=True)
class Import:
    """What to read and how. `org` replaces the organisation of every event."""

    path: str
    format: str = "auto"
    seed: int = 1
    org: str = ""
    home: str = HOME
    """The organisation of what an older meter kept, which knew only one."""
    shift_to: datetime | None = None
    """The moment that the last event of each trace is moved to."""
    traces: Traces | None = None
    """Reads rows of published traces; without it they are no usage."""


async def import_events(
    settings: Settings,
    job: Import,
    now: datetime,
    position: Callable[[int], None] | None = None,
    acknowledged: Acknowledged | None = None,
) -> Report:
    """Send every good entry and return the report once all are acknowledged.

    Raises `UnreadableError` or `NotSentError`; what was sent before stays sent, and importing again adds only the rest.
    """
    oldest = now - timedelta(days=settings.retention_events_days)
    report = Report()
    with _rereadable(job) as job:
        if job.shift_to is not None:
            report.shifts = {trace: job.shift_to - last for trace, last in _last_times(job).items()}
        async with Publisher(settings, acknowledged=acknowledged, headers=[(H_BACKFILL, b"1")]) as publisher:
            block: list[bytes] = []
            for trace, event in events(job, report, position):
                moved = _moved(event, report.shifts.get(trace))
                report.expired += moved.occurred_at < oldest
                block.append(encode(moved))
                if len(block) == BLOCK:
                    await publisher.send(block)
                    block = []
            await publisher.send(block)
            await publisher.drain()
            report.sent = publisher.sent
    return report


def events(
    job: Import, report: Report, position: Callable[[int], None] | None = None
) -> Iterator[tuple[str, UsageEvent]]:
    """Yield (trace, event) with original times, counting into `report`. Raises `UnreadableError`."""
    ordinals = Ordinals()
    for entry in read(job.path, position):
        report.read += 1
        if isinstance(entry, Bad):
            report.refuse(entry)
            continue
        place, content = entry
        try:
            found = _convert(job, place, content, report, ordinals)
        except ValidationError as error:
            problem = error.errors(include_input=False, include_url=False)[0]
            report.refuse(Bad(place, f"{'.'.join(map(str, problem['loc'])) or 'counters'}: {problem['msg']}"))
        except ValueError as error:
            report.refuse(Bad(place, str(error)))
        else:
            if isinstance(found, OldToken):
                report.tokens.append(found)
                continue
            report.events += found is not None
            report.skipped += found is None
            if found is not None:
                yield found


def _convert(
    job: Import, place: str, content: dict[str, Any], report: Report, ordinals: Ordinals
) -> tuple[str, UsageEvent] | OldToken | None:
    """Return (trace, event), a token, or None for an entry that is no usage. Raises ValueError for a bad one."""
    traces = job.traces
    if traces is not None and (job.format == "sample" or (job.format == "auto" and content.keys() >= traces.COLUMNS)):
        missing = traces.COLUMNS - content.keys()
        if missing:
            raise ValueError(f"no {', '.join(sorted(missing))}")
        report.assigned = True
        return traces.trace_of(content), traces.event_of(content, place, job.seed, job.org)
    if job.format in ("auto", "old-tables") and (table := table_of(content)):
        if table == TOKENS:
            return token_of(content)
        return LOG, event_of(table, content, job.org or job.home, ordinals.of(table, content))
    if job.format == "cloud-logging" and "jsonPayload" not in content:
        raise ValueError("no jsonPayload: not an entry of a Cloud Logging export")
    line = _with_numbers(content)
    if not (is_line(line) or line.keys() >= _USAGE):
        return None
    event = from_line(line, **({"org_id": job.org} if job.org else {}))
    unread = unread_cost(line)
    if unread:
        report.flag_cost(Bad(place, unread))
    return LOG, event


def _with_numbers(content: dict[str, Any]) -> dict[str, Any]:
    """Return the entry with counts and costs as numbers: cells of a CSV export are text."""
    inner = content.get("jsonPayload", content)
    if not isinstance(inner, dict):
        return content
    usage = inner.get("usage")
    changed = inner | {name: _number(inner[name]) for name in _NUMBERS & inner.keys()}
    if isinstance(usage, dict):
        changed["usage"] = {name: _number(value) for name, value in usage.items()}
    return {**content, "jsonPayload": changed} if "jsonPayload" in content else changed


def _number(value: object) -> object:
    """Return text that spells a number as that number, anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        number = Decimal(value)
    except InvalidOperation:
        return value
    return number if number.is_finite() else value


def _last_times(job: Import) -> dict[str, datetime]:
    last: dict[str, datetime] = {}
    for trace, event in events(job, Report()):
        at = event.occurred_at
        last[trace] = max(last.get(trace, at), at)
    return last


def _moved(event: UsageEvent, shift: timedelta | None) -> UsageEvent:
    """Return the event at another time: another event with an id of its own, since time is part of the identity."""
    if not shift:
        return event
    at = event.occurred_at + shift
    return event.model_copy(
        update={"occurred_at": at, "event_id": str(uuid5(NAMESPACE, f"{event.event_id}/{at.isoformat()}"))}
    )


@contextmanager
def _rereadable(job: Import) -> Iterator[Import]:
    """Standard input can be read once; finding the last time first takes two readings."""
    if job.path != "-" or job.shift_to is None:
        yield job
        return
    with tempfile.NamedTemporaryFile(prefix="tollmeter-import-") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        yield replace(job, path=copy.name)
