"""A rule about models tried out on what was: which calls it would have refused or moved to another model.

The rule is held against past calls by itself, as guards hold it: other rules of the same callers play no part.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from tollmeter.admin.model_rules import prices_of
from tollmeter.admin.policy_trial import CannotTryError
from tollmeter.producers.guard.models import names_of
from tollmeter.schemas.model_rules import ModelRule
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load, moment
from tollmeter.streams.rules.limits.models import judge


class Tried(NamedTuple):
    """The calls to one model of one provider, and what the rule would have done. `cost_nano`: of those with a price."""

    provider: str
    model: str
    verdict: str
    """allowed, refused or downgraded."""
    calls: int
    users: int
    first: datetime
    cost_nano: int
    unpriced: int

    @property
    def document(self) -> dict[str, Any]:
        """The same as --json has it."""
        return {**self._asdict(), "first": self.first.isoformat()}


def try_models(
    settings: Settings, ledger: ClickHouse, rule: ModelRule, since: datetime, until: datetime
) -> Sequence[Tried]:
    """Return what a rule would have done, most calls first. Raises `CannotTryError`, `Unavailable`, `Rejected`."""
    if rule.scope == "group":
        raise CannotTryError("who was in a group then is not kept: try the rule with --scope user --name NAME")
    own_keys = int(rule.scope == "api_key")
    asked = {"org": rule.org_id, "scope": rule.scope, "name": rule.name, "own": own_keys}
    rows = ledger.query(load("model_trial"), {**asked, "since": moment(since), "until": moment(until)})
    prices = prices_of(settings)

    def verdict(provider: str, model: str) -> str:
        found = judge(
            (rule,),
            model,
            (),
            lambda name: names_of(prices, provider, name),
            lambda name: prices.sells(provider, name),
        )
        return "downgraded" if found.instead else "refused" if found.broken else "allowed"

    return [
        Tried(
            row["provider"],
            row["model"],
            verdict(row["provider"], row["model"]),
            int(row["calls"]),
            int(row["users"]),
            row["first"],
            int(row["nano"]),
            int(row["unpriced"]),
        )
        for row in rows
    ]
