"""Each kind of record that had to be set aside is told once a day, where it stands; floods are told beside that."""

from datetime import UTC, datetime

from tollmeter.schemas.alert import Alert, Severity, alert_id
from tollmeter.schemas.record import Record

FOREIGN = "foreign_record"


def letter_alert(stage: str, topic: str, reason: str, record: Record) -> Alert:
    """Say that a record became a dead letter: one alert a day for each topic and reason. `topic` without prefix.

    Nothing of the record itself is said: it may be anything.
    """
    at = datetime.fromtimestamp(record.timestamp / 1000, tz=UTC)
    severity: Severity = "critical" if reason == "secret" else "warning"
    place = f"{topic}/{record.partition}/{record.offset}"
    text = f"a record at {place} is a dead letter ({reason}); more of its kind are not told today"
    id_ = alert_id("dead_letter", stage, topic, reason, f"{at:%Y-%m-%d}")
    return _alert(id_, "dead_letter", stage, topic, reason, record, severity, text)


def foreign_alert(stage: str, topic: str, problem: str, record: Record) -> Alert:
    """Say that a record of a topic that only our own programs write is none of theirs; its readers pass over it."""
    at = datetime.fromtimestamp(record.timestamp / 1000, tz=UTC)
    place = f"{topic}/{record.partition}/{record.offset}"
    text = f"a record at {place} is none of ours ({problem}): its readers pass over it; find who may write there"
    id_ = alert_id("foreign_record", stage, topic, problem, f"{at:%Y-%m-%d}")
    return _alert(id_, FOREIGN, stage, topic, problem, record, "critical", text)


def _alert(
    id_: str, kind: str, stage: str, topic: str, reason: str, record: Record, severity: Severity, text: str
) -> Alert:
    at = datetime.fromtimestamp(record.timestamp / 1000, tz=UTC)
    return Alert(
        id=id_,
        kind=kind,
        severity=severity,
        org_id="",
        scope="pipeline",
        name=f"{topic} {reason}",
        period=f"{at:%Y-%m-%d}",
        received_at=at,
        text=text,
        source=f"tollmeter/{stage}",
        facts={"topic": topic, "partition": record.partition, "offset": record.offset, "reason": reason},
    )
