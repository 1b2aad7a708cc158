"""What an incident cost before anybody heard of it, and in all, beyond what was usual. Pure.

A leak begins where the windows before its first alert are no longer dear: those are dear that cost more than twice the
usual window. Usual is the mean of the windows with calls before the day of the alert; without such, nothing was usual.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

WINDOW_S = 600
DAY_S = 86_400
LONGEST_S = DAY_S
"""So far it is looked back, and on."""


class Minute(NamedTuple):
    """What a minute cost, and of that up to the first alert."""

    nano: int
    before_nano: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Amounts are nano-USD, times seconds since 1970 UTC. `usual_nano`: a window of ten minutes."""

    began_s: int
    ended_s: int
    usual_nano: int
    before_nano: int
    """Until the first alert."""
    all_nano: int


def lost(minutes: Mapping[int, Minute], first_s: float, last_s: float) -> Lost:
    """Return what was lost. `minutes`: by the start of each; `first_s`, `last_s`: first and last alert."""
    windows: dict[int, int] = {}
    for start, minute in minutes.items():
        windows[start // WINDOW_S] = windows.get(start // WINDOW_S, 0) + minute.nano
    first, last = int(first_s) // WINDOW_S, int(last_s) // WINDOW_S
    past = [nano for window, nano in windows.items() if window < first - DAY_S // WINDOW_S and nano > 0]
    usual = sum(past) // len(past) if past else 0

    def dear(window: int) -> bool:
        return windows.get(window, 0) > 2 * usual

    begin, end, most = first, max(first, last), LONGEST_S // WINDOW_S
    while begin > first - most and dear(begin - 1):
        begin -= 1
    while end < last + most and dear(end + 1):
        end += 1
    before = sum(minute.before_nano for start, minute in minutes.items() if start >= begin * WINDOW_S)
    beyond = sum(windows.get(window, 0) for window in range(begin, end + 1)) - usual * (end - begin + 1)
    return Lost(
        began_s=begin * WINDOW_S,
        ended_s=(end + 1) * WINDOW_S,
        usual_nano=usual,
        before_nano=max(0, min(before - usual * (first - begin), beyond)),
        all_nano=max(0, beyond),
    )
