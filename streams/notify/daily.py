"""The daily budget report: made once a day at its hour, by whoever is in charge, and sent like an alert.

Its id is that of the day, so a restart or another instance sends no second one; six hours late is too late.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from time import time
from zoneinfo import ZoneInfo

from tollmeter.broker.policies import PolicyError, list_policies
from tollmeter.schemas.alert import Severity, alert_id
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import Rejected, Unavailable, connect_existing
from tollmeter.streams.notify import budget
from tollmeter.streams.notify.dispatcher import Dispatcher
from tollmeter.streams.notify.notice import Notice
from tollmeter.streams.notify.routes import Report
from tollmeter.streams.notify.self_alerts import report_notice

log = logging.getLogger("tollmeter.notify")

LATEST = timedelta(hours=6)
AGAIN_S = 60.0


def slot(report: Report, now_s: float) -> str | None:
    """Return the day whose report is due now, None outside its hours."""
    if not report.enabled:
        return None
    zone = ZoneInfo(report.timezone)
    now = datetime.fromtimestamp(now_s, zone)
    for day in (now.date(), now.date() - timedelta(days=1)):
        at = datetime.combine(day, report.at, zone).astimezone(UTC)
        if at <= now < at + LATEST:
            return day.isoformat()
    return None


Answers = Callable[[Iterable[str]], list[str]]
"""Given providers, a line for each whose key is known: does it answer?"""


class Daily:
    """Makes the report beside everything else: neither a slow ClickHouse nor a missing one holds up an alert."""

    def __init__(self, settings: Settings, report: Report, answers: Answers = lambda _: []) -> None:
        self._settings, self._report, self._answers = settings, report, answers
        self._making: asyncio.Task[tuple[list[budget.Budget], list[str]]] | None = None
        self._not_before = 0.0
        self._done = ""

    def due(self, dispatcher: Dispatcher, now_s: float) -> Notice | None:
        """Return the report when it is due and ready; start making it when it is due."""
        day = slot(self._report, now_s)
        if day is None or day == self._done or alert_id("report", day) in dispatcher.notices:
            return None
        if self._making is None:
            if now_s >= self._not_before:
                self._making = asyncio.create_task(asyncio.to_thread(self._read, int(now_s)))
            return None
        if not self._making.done():
            return None
        making, self._making = self._making, None
        try:
            budgets, remarks = making.result()
        except (Unavailable, Rejected, PolicyError) as error:
            self._not_before = now_s + AGAIN_S
            log.warning("the budget report of %s waits: %s", day, error)
            return None
        self._done = day
        severity: Severity = "warning" if any(entry.alert for entry in budgets) else "info"
        consumers = dispatcher.routes.consumers_for("report", severity, "", "org", "")
        if not budgets or not consumers:
            return None
        words = budget.Words(self._settings.verdict_ok, self._settings.verdict_alert)
        said = budget.text(budgets, int(time()), words, remarks)
        return report_notice(alert_id("report", day), severity, said, now_s, consumers)

    def _read(self, now_s: int) -> tuple[list[budget.Budget], list[str]]:
        wanted = budget.monthly_pools(list_policies(self._settings), "provider", "", "")
        if not wanted:
            return [], []
        ledger = connect_existing(self._settings)
        try:
            budgets = [budget.read(ledger, policy, now_s) for policy in wanted]
        finally:
            ledger.close()
        return budgets, self._answers([policy.name for policy in wanted])
