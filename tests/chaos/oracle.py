"""What the line must hold, computed from the manifest alone, beside what it does hold; every difference has a name.

At rest: each acknowledged event once in the ledger with its cost, each poisoned record in the dead letters, windows of
all scopes and the minute rollup equal to sums over the manifest, and each threshold reached alerted under one id.
"""

import io
import json
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import polars as pl

from tests.chaos.manifest import MINUTE_US, Manifest
from tollmeter.schemas.policy import Policy
from tollmeter.sinks.clickhouse.client import ClickHouse

LEVELS = {"minute": "1m", "hour": "1h", "day": "1d", "month": "1mo"}
SCOPES = {
    "org": None,
    "group": "group",
    "user": "user",
    "api_key": "api_key",
    "client_ip": "client_ip",
    "agent": "agent",
    "version": "model",
    "provider": "provider",
}
SUMS = ("calls", "input_tokens", "output_tokens", "cost_nano")
HORIZON_S, MARGIN_S = 3_600, 600
NAMES = (
    "lost",
    "double",
    "wrong_rows",
    "unknown_rows",
    "wrong_windows",
    "wrong_rollups",
    "alerts_missing",
    "alerts_wrong",
    "dead_letters_missing",
)
"""What may be wrong; each is a set of the things concerned."""

_LEDGER = """
SELECT toString(event_id) AS event_id, toUnixTimestamp64Micro(event_time) AS at_us, toString(org_id) AS org,
    input_tokens, output_tokens, cost_nano
FROM usage_events FINAL
"""
_WINDOWS = """
SELECT toString(level) AS level, toInt64(toUnixTimestamp(bucket)) AS start_s, toString(org_id) AS org,
    toString(scope) AS scope, name, calls, input_tokens, output_tokens, cost_nano + byok_cost_nano AS cost_nano
FROM usage_windows FINAL
WHERE calls != 0 AND scope IN ('org', 'group', 'user', 'api_key', 'client_ip', 'agent', 'provider', 'version')
"""
_ROLLUP = """
SELECT toInt64(toUnixTimestamp(minute)) AS start_s, toString(org_id) AS org, toString(api_key_id) AS api_key,
    toString(provider) AS provider, toString(model) AS model, toString(billing_scope) AS scope, toInt64(calls) AS calls,
    input_tokens, output_tokens, cost_nano
FROM usage_minutes FINAL WHERE calls > 0
"""
Wrong = dict[str, set[Hashable]]


@dataclass
class Alerts:
    """Budget alerts read so far: (policy, period, percent) -> ids; and the ids that the table of alerts holds."""

    found: dict[tuple[str, str, int], set[str]] = field(default_factory=dict)
    late: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """What came late into a period that was over: (policy, period, id of the alert that says so) -> nano-USD."""
    stored: set[str] = field(default_factory=set)

    def add(self, value: bytes) -> None:
        """Take in one record of usage.alerts."""
        event = json.loads(value)
        data = event["data"]
        if data["kind"] == "budget":
            key = data["policy_id"], data["period"], data["threshold_pct"]
            self.found.setdefault(key, set()).add(event["id"])
        elif data["kind"] == "late_spend":
            self.late[data["policy_id"], data["period"], event["id"]] = data["late"]

    def late_nano(self, policy_id: str, period: str) -> int:
        """Return what came late into a period of a budget: it is told so, and as no threshold."""
        return sum(late for (policy, at, _), late in self.late.items() if (policy, at) == (policy_id, period))


def frame_of(client: ClickHouse, query: str) -> pl.DataFrame:
    """Return an answer as columns."""
    return pl.read_ipc_stream(io.BytesIO(client.arrow(query))).with_columns(pl.col(pl.Categorical).cast(pl.String))


def judge(client: ClickHouse, manifest: Manifest, alerts: Alerts, letters: set[tuple[int, int]]) -> Wrong:
    """Compare everything with the manifest as it stands; an empty set means nothing is wrong."""
    sent = manifest.frame()
    wrong: Wrong = {name: set() for name in NAMES}
    wrong |= ledger_faults(sent, frame_of(client, _LEDGER))
    wrong["wrong_windows"] = differing(windows_of(sent), frame_of(client, _WINDOWS))
    wrong["wrong_rollups"] = differing(rollup_of(sent), frame_of(client, _ROLLUP))
    wrong["alerts_missing"], wrong["alerts_wrong"] = alert_faults(sent, manifest.policies, alerts, time.time())
    wrong["dead_letters_missing"] = {place for place in manifest.poison if place not in letters}
    return wrong


def ledger_faults(sent: pl.DataFrame, ledger: pl.DataFrame) -> Wrong:
    """Compare rows by id."""
    count = ledger.group_by("event_id").len()
    both = sent.join(ledger, on="event_id", how="inner", suffix="_stored")
    same = [
        pl.col(name).eq_missing(pl.col(f"{name}_stored"))
        for name in ("at_us", "org", "input_tokens", "output_tokens", "cost_nano")
    ]
    return {
        "lost": set(sent.join(ledger, on="event_id", how="anti")["event_id"]),
        "double": set(count.filter(pl.col("len") > 1)["event_id"]),
        "wrong_rows": set(both.filter(~pl.all_horizontal(same))["event_id"]),
        "unknown_rows": set(ledger.join(sent, on="event_id", how="anti")["event_id"]),
    }


def windows_of(sent: pl.DataFrame) -> pl.DataFrame:
    """Add up every bucket of every scope."""
    at = pl.from_epoch("at_us", time_unit="us")
    parts = []
    for level, length in LEVELS.items():
        timed = sent.with_columns((at.dt.truncate(length).dt.epoch("s")).alias("start_s"), pl.lit(level).alias("level"))
        for scope, column in SCOPES.items():
            name = pl.lit("") if column is None else pl.col(column)
            named = timed.with_columns(name.alias("name"), pl.lit(scope).alias("scope"))
            if column is not None:
                named = named.filter(pl.col("name") != "")
            parts.append(_add_up(named, ["level", "start_s", "org", "scope", "name"]))
    return pl.concat(parts)


def rollup_of(sent: pl.DataFrame) -> pl.DataFrame:
    """Add up every minute by key, provider, model and who pays."""
    timed = sent.with_columns((pl.col("at_us") // MINUTE_US * 60).alias("start_s"))
    return _add_up(timed, ["start_s", "org", "api_key", "provider", "model", "scope"])


def _add_up(rows: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    return rows.group_by(keys).agg(
        pl.len().cast(pl.Int64).alias("calls"), pl.col("input_tokens", "output_tokens", "cost_nano").sum()
    )


def differing(expected: pl.DataFrame, found: pl.DataFrame) -> set[Hashable]:
    """Return the keys whose sums differ or that one side lacks."""
    keys = [name for name in expected.columns if name not in SUMS]
    found = found.select(pl.col(name).cast(expected.schema[name]) for name in expected.columns)
    both = expected.join(found, on=keys, how="full", coalesce=True, suffix="_found")
    unlike = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_found")) for name in SUMS)
    return set(both.filter(unlike).select(keys).iter_rows())


def alert_faults(
    sent: pl.DataFrame, policies: list[Policy], alerts: Alerts, now_s: float
) -> tuple[set[Hashable], set[Hashable]]:
    """Return thresholds reached without an alert, and alerts without a threshold reached or under several ids.

    Of periods that are sealed neither is asked: what comes late then changes sums and alerts nobody. A threshold that
    is reached by what came late into a period that was over is told as late spend.
    """
    due: set[tuple[str, str, int]] = set()
    excused: set[tuple[str, str, int]] = set()
    spends = {level: _spend(sent, length) for level, length in (("day", "1d"), ("month", "1mo"))}
    open_: dict[str, bool] = {}
    unsealed = f"{datetime.fromtimestamp(now_s - HORIZON_S + MARGIN_S, tz=UTC):%Y-%m-%d}"
    for policy in policies:
        for level, limit_micro in (("day", policy.daily_limit_micro), ("month", policy.monthly_limit_micro)):
            for start, spent_nano in spends[level].get((policy.org_id, policy.scope, policy.name), {}).items():
                period = f"{start:%Y-%m-%d}" if level == "day" else f"{start:%Y-%m}"
                open_[period] = period >= unsealed[: len(period)]
                if limit_micro and open_[period]:
                    in_time = spent_nano - alerts.late_nano(policy.policy_id, period)
                    for pct in policy.alert_pcts:
                        if spent_nano * 100 >= pct * limit_micro * 1_000:
                            due.add((policy.policy_id, period, pct))
                            if in_time * 100 < pct * limit_micro * 1_000:
                                excused.add((policy.policy_id, period, pct))
    found = {key for key in alerts.found if open_.get(key[1], False)}
    unstored = {key for key in due & found if not alerts.found[key] <= alerts.stored}
    several = {key for key, ids in alerts.found.items() if len(ids) > 1}
    return {*(due - excused - found), *unstored}, {*(found - due), *several}


def _spend(sent: pl.DataFrame, length: str) -> Mapping[tuple[str, str, str], Mapping[datetime, int]]:
    """Return org-billed cost by scope and start of the period."""
    start = pl.from_epoch("at_us", time_unit="us").dt.truncate(length).alias("start")
    paid = sent.filter(pl.col("scope") == "ORG").with_columns(start)
    spends: dict[tuple[str, str, str], dict[datetime, int]] = {}
    for scope, column in (("org", pl.lit("")), ("user", pl.col("user")), ("api_key", pl.col("api_key"))):
        sums = paid.group_by("org", column.alias("name"), "start").agg(pl.col("cost_nano").sum())
        for org, name, at, cost in sums.iter_rows():
            spends.setdefault((org, scope, name), {})[at] = cost
    return spends
