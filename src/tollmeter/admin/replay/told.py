"""What people would have been told: alerts of a history through notify's own dispatcher. Pure.

Times are those of the alerts; storms, cooldown, quiet and growth hold as they do in `tollmeter notify`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tollmeter.streams.notify.dispatcher import Dispatcher
from tollmeter.streams.notify.incidents import in_order, nano
from tollmeter.streams.notify.notice import SEVERITIES, Notice, Scope
from tollmeter.streams.notify.outcome import Outcome
from tollmeter.streams.notify.routes import Limits, Routes

NEVER_OLD_S = 1e12
SWEEP_S = 600.0
_EVERYBODY = {"consumers": {"all": {"type": "log"}}, "routes": [{"to": "all"}]}


@dataclass(frozen=True, slots=True)
class Found:
    """One incident, or one alert about a budget's pace. Times are seconds since 1970 UTC."""

    kinds: tuple[str, ...]
    scope: Scope
    severity: str
    first_s: float
    """When people would first have heard of it."""
    last_s: float
    alerts: int
    told: int
    cost_nano: int | None
    """The most that one of its alerts names; None where none names any."""
    text: str


@dataclass(slots=True)
class Telling:
    """Takes alerts in order of time."""

    dispatcher: Dispatcher = field(
        default_factory=lambda: Dispatcher(Routes.model_validate({**_EVERYBODY, "limits": Limits()}), NEVER_OLD_S)
    )

    _swept_s: float = 0.0
    _newest_s: float = 0.0

    def take(self, alerts: Iterable[dict[str, Any]]) -> None:
        """Have these CloudEvents told, and what is over by then."""
        for event in alerts:
            now_s = datetime.fromisoformat(event["time"]).timestamp()
            self._sweep(now_s)
            notice = self.dispatcher.take(event, now_s)
            if notice is not None:
                self.dispatcher.add(notice)
            self._deliver(now_s)

    def _sweep(self, now_s: float) -> None:
        """Let time pass as it does for notify: what is over ends when it does, and not with the next alert."""
        while self._swept_s + SWEEP_S < now_s and self.dispatcher.notices:
            self._swept_s = max(self._swept_s + SWEEP_S, self._newest_s)
            self.dispatcher.sweep(self._swept_s)
            self._deliver(self._swept_s)
        self._newest_s = now_s

    def _deliver(self, now_s: float) -> None:
        while due := self.dispatcher.due(now_s):
            for _, notice, delivery in due:
                self.dispatcher.settle(notice.id, delivery, Outcome(), now_s)

    def found(self) -> list[Found]:
        """Return everything that people would have heard of, in order of time."""
        groups: dict[str, list[Notice]] = {}
        for notice in self.dispatcher.notices.values():
            groups.setdefault(notice.incident or notice.id, []).append(notice)
        made = [_found(in_order(members)) for members in groups.values()]
        return sorted((one for one in made if one is not None), key=lambda one: (one.first_s, one.scope))


def _found(members: list[Notice]) -> Found | None:
    told = [one for one in members if one.deliveries]
    if not told:
        return None
    gravest = max(members, key=lambda one: SEVERITIES.index(one.severity))
    return Found(
        kinds=tuple(dict.fromkeys(one.kind for one in members)),
        scope=members[0].scope,
        severity=gravest.severity,
        first_s=told[0].raised_s,
        last_s=members[-1].raised_s,
        alerts=len(members),
        told=len(told),
        cost_nano=max(map(nano, members)) or None,
        text=str(gravest.facts.get("text", "")),
    )
