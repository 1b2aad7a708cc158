"""What people say of an incident: expected, so that its like is quiet until a time; or real, kept to judge rules by."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tollmeter.schemas.alert import Severity
from tollmeter.streams.notify.incidents import in_order, nano
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
        same = SEVERITIES.index(notice.severity) <= SEVERITIES.index(self.severity)
        return same and (not self.cost_nano or nano(notice) < 2 * self.cost_nano)


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
        since_s=first.raised_s,
        last_s=last.raised_s,
        until_s=until_s if verdict == "expected" else 0.0,
        by=by[:200],
        reason=reason[:512],
        at_s=at_s,
    )
