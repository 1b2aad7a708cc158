"""Alerts of refusals on their way out: each id once per process, in order, and never more than fit."""

from collections import OrderedDict, deque

from tollmeter.schemas.alert import Alert

MAX_WAITING = 1_000
MAX_SAID = 10_000


class AlertQueue:
    """`put` is for any thread; the rest for the one that sends."""

    def __init__(self) -> None:
        self._waiting: deque[Alert] = deque(maxlen=MAX_WAITING)
        self._said: OrderedDict[str, None] = OrderedDict()

    def put(self, alert: Alert) -> None:
        """Take an alert in, unless it was said before."""
        if alert.id not in self._said:
            self._said[alert.id] = None
            self._waiting.append(alert)
            if len(self._said) > MAX_SAID:
                self._said.popitem(last=False)

    def first(self) -> Alert | None:
        """Return the oldest that waits."""
        return self._waiting[0] if self._waiting else None

    def sent(self, alert: Alert) -> None:
        """It is acknowledged."""
        if self._waiting and self._waiting[0] is alert:
            self._waiting.popleft()
