"""What the fold hands to the rules about identity, and what their findings say."""

import numpy as np
import polars as pl

from tollmeter.schemas.alert import Alert, Severity, alert_id, whom
from tollmeter.streams.rules.anomalies.calls import Calls
from tollmeter.streams.rules.anomalies.detector import LATE_MS, Detector
from tollmeter.streams.rules.anomalies.findings import Finding
from tollmeter.streams.rules.anomalies.words import OF_HOURS, said
from tollmeter.streams.rules.windows.alerts import MINUTE_US, Passage, instant
from tollmeter.streams.rules.windows.scopes import Scopes
from tollmeter.streams.rules.windows.totals import (
    CACHE_READ,
    ERRORS,
    INPUT,
    OUTPUT,
    UNKNOWN_MODEL,
    Vector,
    key_cost,
    period_text,
)

AHEAD_MS = 300_000
"""A call that was made so long after it came was made by a clock that is wrong."""
_CALLED = {"api_key": "key", "client_ip": "address", "user": "user", "org": "org"}
# The last eight bytes of the text are enough: it is a hash itself.
_BODY = pl.col("prompt_hash").str.pad_start(8).cast(pl.Binary).bin.tail(8)
_BODIES = _BODY.bin.reinterpret(dtype=pl.UInt64, endianness="little")
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""Multiplying by it spreads neighbours over the whole range (Knuth, The Art of Computer Programming 3, 6.4)."""


def note(detector: Detector, passage: Passage, rows: pl.DataFrame) -> None:
    """Keep what was folded for the next barrier, except for what came late or was brought in afterwards."""
    matrix = passage.matrix
    calls = Calls(
        org=passage.scopes["org"],
        key=passage.scopes["api_key"],
        user=passage.scopes["user"],
        address=passage.scopes["client_ip"],
        minute=passage.charged_us // MINUTE_US,
        received_ms=passage.received_ms,
        errors=matrix[:, ERRORS],
        cost_nano=key_cost(matrix),
        unknown=matrix[:, UNKNOWN_MODEL],
        input=matrix[:, INPUT],
        cached=matrix[:, CACHE_READ],
        output=matrix[:, OUTPUT],
        body=_bodies(rows["prompt_hash"]),
        model=passage.scopes["model"],
        ahead=(passage.times_us > (passage.received_ms + AHEAD_MS) * 1_000).astype(np.int64),
    )
    past = passage.quiet | (passage.charged_us < (passage.received_ms - LATE_MS) * 1_000)
    detector.note(calls.only(~past) if past.any() else calls)


def _bodies(hashes: pl.Series) -> Vector:
    """Return a number from 1 on per body, 0 where a service sends none."""
    given = (hashes != "").to_numpy()
    if not given.any():
        return np.zeros(hashes.len(), dtype=np.int64)
    numbers = hashes.to_frame().select(_BODIES).to_series().to_numpy()
    spread = (numbers * _SPREAD >> np.uint64(48)).astype(np.int64) + 1
    found: Vector = np.where(given, spread, 0)
    return found


def suspicion(scopes: Scopes, finding: Finding) -> Alert:
    """Say what a rule about identity found."""
    org, kind, name = scopes.names[finding.scope]
    facts = finding.figures | {part: scopes.names[number][2] for part, number in finding.names.items() if number >= 0}
    severity = _severity(finding)
    hour = period_text("hour", finding.hour)
    return Alert(
        id=alert_id(finding.kind, org, kind, name, hour, severity),
        kind=finding.kind,
        severity=severity,
        org_id=org,
        scope=kind,
        name=name,
        period=hour,
        received_at=instant(finding.received_ms),
        text=f"{whom(org, _CALLED[kind], name)} {said(finding.kind, facts)}",
        facts={"window": "hour" if finding.kind in OF_HOURS else "ten_minutes", **facts},
    )


def _severity(finding: Finding) -> Severity:
    return ("info", "warning", "critical")[finding.level - 1]
