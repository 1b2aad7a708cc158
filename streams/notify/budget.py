"""The budget report: what a monthly pool budget has left, what that still buys, one verdict. Pure but for `read`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, NamedTuple

from tollmeter.schemas.money import NANO_PER_MICRO
from tollmeter.schemas.policy import Policy
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load, moment
from tollmeter.streams.rules.limits.periods import forecast_of, period_name, period_of

TOP_OPERATIONS = 5
QUOTED = 100
"""So many more calls are quoted with their cost."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What an operation used in the period. `spent` in nano-units of the budget's currency."""

    name: str
    calls: int
    tokens: int
    spent: int

    @property
    def mean(self) -> int:
        return self.spent // self.calls if self.calls else 0

    def buys(self, remaining: int) -> int | None:
        """Return how many more calls the remaining budget pays for; None where calls cost nothing."""
        return remaining * self.calls // self.spent if self.spent else None

    def cost_of(self, calls: int) -> int:
        return self.spent * calls // self.calls if self.calls else 0


@dataclass(frozen=True, slots=True)
class Budget:
    """One monthly budget. Amounts in nano-units of the policy's currency, `cost_nano` in nano-USD."""

    policy: Policy
    period: str
    starts_s: int
    ends_s: int
    now_s: int
    unpriced: int
    cost_nano: int
    at_risk_nano: int
    operations: tuple[Operation, ...]

    @property
    def limit(self) -> int:
        assert self.policy.monthly_limit_micro is not None
        return self.policy.monthly_limit_micro * NANO_PER_MICRO

    @property
    def calls(self) -> int:
        return sum(operation.calls for operation in self.operations)

    @property
    def tokens(self) -> int:
        return sum(operation.tokens for operation in self.operations)

    @property
    def spent(self) -> int:
        return sum(operation.spent for operation in self.operations)

    @property
    def remaining(self) -> int:
        """Return what is left; never below 0."""
        return max(0, self.limit - self.spent)

    @property
    def percent(self) -> int:
        return self.spent * 100 // self.limit

    @property
    def forecast(self) -> int | None:
        """Return the spend at the period's end at the mean pace so far."""
        return forecast_of(self.spent, self.now_s - self.starts_s, self.ends_s - self.starts_s)

    @property
    def alert(self) -> bool:
        """Tell whether somebody should look: less left than the policy says, or its warning threshold is reached."""
        least = self.policy.alert_remaining_micro
        short = least is not None and self.remaining < least * NANO_PER_MICRO
        return short or self.percent >= self.policy.warn_threshold_pct

    @property
    def name(self) -> str:
        scope, org = self.policy.scope, self.policy.org_id
        return f"org {org}" if scope == "org" else f"{scope} {self.policy.name} of {org}"


def monthly_pools(policies: Sequence[Policy], scope: str, org: str, name: str) -> list[Policy]:
    """Return the policies of a kind of scope that set a monthly pool budget, of one organisation or name if given."""
    return [
        policy
        for policy in policies
        if policy.scope == scope
        and policy.monthly_limit_micro is not None
        and policy.applies == "pool"
        and org in ("", policy.org_id)
        and name in ("", policy.name)
    ]


def read(ledger: ClickHouse, policy: Policy, now_s: int) -> Budget:
    """Return the state of a budget from the ledger. Raises `Unavailable` or `Rejected`."""
    start, end = period_of("month", policy.timezone, now_s)
    rows = ledger.query(
        load("budget_report"),
        {
            "org_id": policy.org_id,
            "scope": policy.scope,
            "name": policy.name,
            "currency": policy.currency,
            "since": _at(start),
            "until": _at(end),
        },
    )
    return Budget(
        policy,
        period_name("month", policy.timezone, now_s),
        start,
        end,
        now_s,
        unpriced=sum(int(row["calls"]) - int(row["priced"]) for row in rows),
        cost_nano=sum(int(row["cost_nano"]) for row in rows),
        at_risk_nano=sum(int(row["at_risk_nano"]) for row in rows),
        operations=tuple(
            Operation(row["operation_name"], int(row["calls"]), int(row["total_tokens"]), int(row["spent"]))
            for row in rows
        ),
    )


def _at(seconds: int) -> str:
    return moment(datetime.fromtimestamp(seconds, UTC))


def amount(nano: int, currency: str, *, fine: bool = False) -> str:
    """Show money with two decimals, half up; `fine` keeps up to six where they say something."""
    value = Decimal(nano).scaleb(-9)
    if fine:
        value = value.quantize(Decimal("0.000001"), ROUND_HALF_UP).normalize()
    places = max(2, -int(value.as_tuple().exponent)) if fine else 2
    text = f"{value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP):,f}"
    return f"${text}" if currency == "USD" else f"{text} {currency}"


class Words(NamedTuple):
    """How the verdict begins: in the words that somebody's log is searched for."""

    ok: str = "OK"
    alert: str = "ALERT"


WORDS = Words()


def text(budgets: Sequence[Budget], now_s: int, words: Words = WORDS, remarks: Sequence[str] = ()) -> str:
    """Return the report: plain lines for a log file, the last one the verdict; before it what else is to be said."""
    at = datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = [f"tollmeter budget report, {at}"]
    for budget in budgets:
        lines += _lines(budget)
    return "\n".join([*lines, *remarks, verdict(budgets, words)])


def _lines(budget: Budget) -> list[str]:
    currency = budget.policy.currency
    forecast = budget.forecast
    end = "too early to say" if forecast is None else amount(forecast, currency)
    over = " (above the budget)" if forecast is not None and forecast > budget.limit else ""
    lines = [
        f"{budget.name}",
        f"  period: {budget.period} ({budget.policy.timezone})",
        f"  calls: {budget.calls:,}",
        f"  tokens: {budget.tokens:,}",
        f"  estimated cost: {amount(budget.cost_nano, 'USD')}",
        f"  budget: {amount(budget.limit, currency)}",
        f"  spent: {amount(budget.spent, currency)} ({budget.percent} %)",
        f"  remaining: {amount(budget.remaining, currency)}",
        f"  at the end of the period, at this pace: {end}{over}",
    ]
    if budget.unpriced:
        risk = amount(budget.at_risk_nano, "USD")
        lines.append(f"  in it: {budget.unpriced:,} calls of unknown cost, estimated at {risk}")
    elif budget.at_risk_nano:
        risk = amount(budget.at_risk_nano, "USD")
        lines.append(f"  in it: at most {risk} of calls whose price is not wholly known")
    for operation in budget.operations[:TOP_OPERATIONS]:
        buys = operation.buys(budget.remaining)
        if buys is not None:
            lines.append(
                f"  {operation.name or 'other'}: {operation.calls:,} calls at "
                f"{amount(operation.mean, currency, fine=True)}; {QUOTED} more cost "
                f"{amount(operation.cost_of(QUOTED), currency, fine=True)}; what remains buys {buys:,}"
            )
    return lines


def verdict(budgets: Sequence[Budget], words: Words = WORDS) -> str:
    """Return one line that begins with OK or ALERT, or the words for them."""
    alerts = [budget for budget in budgets if budget.alert]
    return f"{words.alert if alerts else words.ok} " + "; ".join(_said(budget) for budget in (alerts or budgets))


def _said(budget: Budget) -> str:
    spent, left = (amount(nano, budget.policy.currency) for nano in (budget.spent, budget.remaining))
    return f"{budget.name}: {budget.calls:,} calls, {budget.tokens:,} tokens, {spent} spent, {left} remaining"


def document(
    budgets: Sequence[Budget], now_s: int, words: Words = WORDS, remarks: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the report for machines; the words are in `text` alone."""
    return {
        "at": datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "verdict": "ALERT" if any(budget.alert for budget in budgets) else "OK",
        "text": verdict(budgets, words),
        "providers": list(remarks),
        "budgets": [_fields(budget) for budget in budgets],
    }


def _fields(budget: Budget) -> dict[str, Any]:
    policy = budget.policy
    return {
        "policy_id": policy.policy_id,
        "org_id": policy.org_id,
        "scope": policy.scope,
        "name": policy.name,
        "period": budget.period,
        "starts_s": budget.starts_s,
        "ends_s": budget.ends_s,
        "timezone": policy.timezone,
        "currency": policy.currency,
        "calls": budget.calls,
        "tokens": budget.tokens,
        "cost_usd": _number(budget.cost_nano),
        "budget": _number(budget.limit),
        "spent": _number(budget.spent),
        "remaining": _number(budget.remaining),
        "forecast": _number(budget.forecast),
        "percent": budget.percent,
        "unpriced": budget.unpriced,
        "at_risk_usd": _number(budget.at_risk_nano),
        "verdict": "ALERT" if budget.alert else "OK",
        "operations": [
            {
                "operation_name": operation.name,
                "calls": operation.calls,
                "total_tokens": operation.tokens,
                "spent": _number(operation.spent),
                "mean_cost": _number(operation.mean),
                "cost_of_100": _number(operation.cost_of(QUOTED)),
                "remaining_buys": operation.buys(budget.remaining),
            }
            for operation in budget.operations
        ],
    }


def _number(nano: int | None) -> float | None:
    return None if nano is None else float(Decimal(nano).scaleb(-9))
