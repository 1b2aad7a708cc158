"""What is gone from a log is declared, never jumped over in silence: gaps of retention, and logs made anew.

Offsets only: `first` to `last` were never read and never will be. An offset means something in one log alone, so the id
of its topic stands beside each committed one.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, NamedTuple

from faust.types import TP

Kind = Literal["gap", "new_epoch"]


class Loss(NamedTuple):
    """Offsets of one partition that cannot be read any more.

    `gap`: retention, or somebody, deleted them. `new_epoch`: the log ends before the position, so it is not the one
    that was read before; `first` to `last` is then what of the new log lies below the old position, and it is read.
    """

    tp: TP
    kind: Kind
    first: int
    last: int


Committed = Mapping[TP, tuple[int, str]]
"""Committed offset and its metadata."""
OnLoss = Callable[[Loss, bool], Awaitable[None]]
"""What to do about a loss; True says that it was found while records were read, not at their start."""


def losses_at_start(positions: Mapping[TP, int], starts: Mapping[TP, int], ends: Mapping[TP, int]) -> list[Loss]:
    """Return what is wrong with the positions to start from."""
    found = []
    for tp, position in sorted(positions.items()):
        if position < starts[tp]:
            found.append(Loss(tp, "gap", position, starts[tp] - 1))
        elif position > ends[tp]:
            found.append(Loss(tp, "new_epoch", starts[tp], ends[tp] - 1))
    return found


def losses_between(tp: TP, expected: int, first: int, start: int, end: int) -> Loss | None:
    """Return what it means that a delivery begins at `first` instead of at `expected`.

    A jump inside the log passes over marks of transactions or compacted records, which nobody misses.
    """
    if first > expected and start > expected:
        return Loss(tp, "gap", expected, min(start, first) - 1)
    if first < expected and end < expected:
        return Loss(tp, "new_epoch", start, end - 1)
    return None


def with_log(log_id: str, note: str) -> str:
    """Return the metadata to commit beside an offset: the id of the topic, "" while unknown, and a note."""
    return f"{log_id} {note}".strip() if log_id else note


def log_and_note(metadata: str) -> tuple[str, str]:
    """Return the id of the topic and the note in the metadata of a committed offset; notes alone begin with a brace."""
    if not metadata or metadata.startswith("{"):
        return "", metadata
    log_id, _, note = metadata.partition(" ")
    return log_id, note


def of_other_logs(committed: Committed, ids: Mapping[str, str]) -> set[TP]:
    """Return the partitions whose committed offset is one of another log of that name. `ids` by topic; "" = unknown.

    Offset 0 is the beginning of any log.
    """
    found = set()
    for tp, (offset, metadata) in committed.items():
        log_id, present = log_and_note(metadata)[0], ids.get(tp.topic, "")
        if offset > 0 and log_id and present and log_id != present:
            found.add(tp)
    return found
