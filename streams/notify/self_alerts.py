"""What notify itself has to say: a storm, a digest, the daily report. Pure; ids are deterministic."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tollmeter.schemas.alert import Alert, Severity, alert_id
from tollmeter.streams.notify import texts
from tollmeter.streams.notify.notice import SEVERITIES, Delivery, Notice

SOURCE = "tollmeter/notify"


def storm_alert(at: datetime, per_minute: int) -> Alert:
    """More alerts than people can read; at most one such alert an hour."""
    hour = at.strftime("%Y-%m-%dT%H")
    return Alert(
        id=alert_id("storm", hour),
        kind="storm",
        severity="critical",
        org_id="",
        scope="org",
        name="",
        period=hour,
        received_at=at,
        source=SOURCE,
        text=f"more than {per_minute} alerts within a minute: they come as digests until it calms down; "
        "look at prices and clocks first",
        facts={"per_minute": per_minute},
    )


def digest_notice(consumer: str, members: Sequence[Notice], now_s: float) -> Notice:
    """One message to one consumer that stands for many alerts."""
    title, body = texts.digest(members)
    worst = max((member.severity for member in members), key=SEVERITIES.index)
    ids = tuple(member.id for member in members)
    return _notice("digest", alert_id("digest", consumer, *ids), worst, title, body, now_s, (consumer,), ids)


def report_notice(notice_id: str, severity: Severity, text: str, now_s: float, consumers: Sequence[str]) -> Notice:
    """The daily budget report as a message; its title is its verdict, the last line."""
    verdict = text.rstrip().rpartition("\n")[2]
    return _notice("report", notice_id, severity, f"[report] {verdict}"[:180], text, now_s, consumers, ())


def _notice(
    kind: str,
    notice_id: str,
    severity: Severity,
    title: str,
    body: str,
    now_s: float,
    consumers: Sequence[str],
    covers: tuple[str, ...],
) -> Notice:
    data: dict[str, Any] = {"kind": kind, "severity": severity, "org_id": "", "scope": "org", "name": "", "text": title}
    event = {
        "specversion": "1.0",
        "id": notice_id,
        "source": SOURCE,
        "type": f"tollmeter.alert.{kind}",
        "time": datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": data,
    }
    deliveries = tuple(Delivery(consumer=name, since_s=now_s, next_s=now_s) for name in consumers)
    return Notice(
        id=notice_id, event=event, opened_s=now_s, title=title, body=body, deliveries=deliveries, covers=covers
    )
