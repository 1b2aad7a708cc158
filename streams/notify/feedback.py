"""What people say of an incident: expected, so that its like is quiet until a time; or real, kept to judge rules by."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tollmeter.schemas.alert import Severity
from tollmeter.streams.notify.incidents import in_order, nano, window
from tollmeter.streams.notify.notice import SEVERITIES, Notice

Verdict = Literal["expected", "real"]
LONGEST_S = 366 * 86_400.0
KEPT_S = 400 * 86_400.0
USUAL_S = 7 * 86_400.0
"""How long what is expected is quiet, where nobody says."""


class Feedback(BaseModel):
    """One incident as people judge it. Times are seconds since 1970; the newest word about an incident counts."""

    model_config = ConfigDict(frozen=True)

    format: int = 1
    incident: str
    verdict: Verdict
    org: str
    scope: str
    name: str
    kinds: tuple[str, ...]
    """The rules that spoke."""
    severity: Severity
    cost_nano: int = Field(default=0, ge=0)
    """The most that one of its alerts names, 0 where none names any."""
    cost_by_window: dict[str, int] = Field(default_factory=dict)
    """The same by the span of time that the money is of; words from before it was kept have none."""
    since_s: float
    last_s: float
    """When it was first and last raised."""
    until_s: float = 0.0
    """Of what is expected: until when its like is told to nobody."""
    by: str = Field(max_length=200)
    reason: str = Field(default="", max_length=512)
    at_s: float

    def expects(self, notice: Notice, now_s: float) -> bool:
        """Tell whether an alert is of the expected shape: same scope and rules, no graver, not twice as dear."""
        if self.verdict != "expected" or self.until_s <= now_s or notice.kind not in self.kinds:
            return False
        if notice.scope != (self.org, self.scope, self.name):
            return False
        if SEVERITIES.index(notice.severity) > SEVERITIES.index(self.severity):
            return False
        cost = nano(notice)
        # what was fine for an hour is not for a minute: money of a span that nobody judged is told
        most = self.cost_by_window.get(window(notice), 0) if self.cost_by_window else self.cost_nano
        return cost == 0 or cost < 2 * most if self.cost_nano else True


def _by_window(members: Sequence[Notice]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in members:
        if cost := nano(one):
            found[window(one)] = max(cost, found.get(window(one), 0))
    return found


def judged(members: Sequence[Notice], verdict: Verdict, until_s: float, by: str, reason: str, at_s: float) -> Feedback:
    """Return the word about an incident of these alerts, at least one."""
    ordered = in_order(members)
    first, last = ordered[0], ordered[-1]
    org, scope, name = first.scope
    return Feedback(
        incident=first.incident,
        verdict=verdict,
        org=org,
        scope=scope,
        name=name,
        kinds=tuple(sorted({one.kind for one in members})),
        severity=max((one.severity for one in members), key=SEVERITIES.index),
        cost_nano=max(map(nano, members)),
        cost_by_window=_by_window(members),
        since_s=first.raised_s,
        last_s=last.raised_s,
        until_s=until_s if verdict == "expected" else 0.0,
        by=by[:200],
        reason=reason[:512],
        at_s=at_s,
    )
