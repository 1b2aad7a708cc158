"""Does every group of the minute rollup equal the ledger's rows? Compared by organisation, key, provider and model."""

from dataclasses import dataclass, field
from datetime import datetime

from tollmeter.admin.verify.count import Difference
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load, moment

SUMS = (
    "calls",
    "errors",
    "blocked",
    "unpriced",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_nano",
    "at_risk_nano",
    "cost_eur_nano",
    "cost_rub_nano",
)
"""In the order of the query."""


@dataclass
class RollupCheck:
    compared: int = 0
    differences: list[Difference] = field(default_factory=list)
    minutes: list[int] = field(default_factory=list)
    """Seconds since 1970 of the minutes to be computed again."""


def check(client: ClickHouse, slack_s: float, oldest: datetime, since: datetime) -> RollupCheck:
    """Compare the minutes from `since` on. One that the rollup lacks counts when it is younger than `oldest`."""
    whole = since.replace(second=0, microsecond=0)  # half a minute of the ledger is no minute of the rollup
    wanted = {"slack_us": int(slack_s * 1e6), "oldest": moment(oldest), "from": moment(whole)}
    row = client.query(load("verify_rollup"), wanted)[0]
    result = RollupCheck(row["compared"])
    minutes = set()
    for minute, org, key, provider, model, billing, rollup, ledger in row["found"]:
        minutes.add(int(minute.timestamp()))
        where = f"minute {minute:%Y-%m-%dT%H:%MZ}, org {org}, key {key or '-'}, {provider}/{model}, {billing}"
        result.differences += [
            Difference(f"rollup_{name}", where, abs(has - should), f"the rollup has {has}, the ledger {should}")
            for name, has, should in zip(SUMS, rollup, ledger, strict=True)
            if has != should
        ]
    result.minutes = sorted(minutes)
    return result


def recompute(client: ClickHouse, minutes: list[int]) -> None:
    """Compute these minutes again from the ledger."""
    for begin in range(0, len(minutes), 500):
        client.command(load("rollup_recompute"), {"minutes": minutes[begin : begin + 500]})
