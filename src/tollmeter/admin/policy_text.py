"""Policies as people write them: amounts in currency units, limits as period/measure; what is read back is the same.

Limits of zero or less, unknown zones and currencies, and a second limit of one kind are refused with one clear line.
"""

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

from pydantic import ValidationError

from tollmeter.schemas.policy import Amount, Limit, Policy
from tollmeter.yaml_files import words

_MICRO = 1_000_000
_LIMIT = re.compile(r"(day|week|month|rolling([1-9]\d{0,5})h)/(money|tokens|requests)")


class PolicyTextError(ValueError):
    """What was written makes no policy; the text says what is wrong and what to write. `key` names the field."""

    def __init__(self, text: str, key: str = "") -> None:
        super().__init__(f"{key}: {text}" if key else text)
        self.key, self.text = key, text


def amount_of(text: str, key: str = "") -> Amount:
    """Return an amount of currency in micro-units. Raises `PolicyTextError`."""
    try:
        micro = Decimal(text) * _MICRO
    except InvalidOperation:
        raise PolicyTextError(f"{text!r} is not an amount; write for example 25 or 0.5", key) from None
    if not micro.is_finite() or micro <= 0 or micro != micro.to_integral_value():
        raise PolicyTextError(f"{text} must be above 0 and have at most six decimals", key)
    return int(micro)


def amount_text(micro: int) -> str:
    """Return micro-units as an amount of currency: exact, at least two decimals."""
    whole, rest = divmod(micro, _MICRO)
    return f"{whole}.{f'{rest:06}'.rstrip('0').ljust(2, '0')}"


def limit_of(kind: str, amount: str) -> Limit:
    """Return a limit from its kind (day/money, rolling24h/tokens) and amount. Raises `PolicyTextError`."""
    found = _LIMIT.fullmatch(kind)
    if found is None:
        raise PolicyTextError(
            f"{kind!r} is no limit: write day, week, month or rolling24h, a slash, and money, tokens or requests",
            "limits",
        )
    window, hours, measure = found.groups()
    key = f"limits.{kind}"
    if measure != "money" and not re.fullmatch(r"[1-9]\d*", amount):
        raise PolicyTextError(f"{amount!r} must be a whole number above 0", key)
    size = amount_of(amount, key) if measure == "money" else int(amount)
    period = "rolling" if hours else window
    try:
        return Limit.model_validate(
            {"period": period, "measure": measure, "amount": size, "hours": int(hours) if hours else None}
        )
    except ValidationError as error:
        raise PolicyTextError(words(error.errors()[0]), key) from None


def limit_text(limit: Limit) -> tuple[str, str]:
    """Return kind and amount of a limit as they are written."""
    return limit.key, amount_text(limit.amount) if limit.measure == "money" else str(limit.amount)


def policy_of(fields: Mapping[str, object], limits: Mapping[str, str]) -> Policy:
    """Return the policy of these fields; limits of money per day and month get the fields that they have of old.

    Raises `PolicyTextError`.
    """
    made = {kind: limit_of(kind, amount) for kind, amount in limits.items()}
    daily, monthly = (made.pop(kind, None) for kind in ("day/money", "month/money"))
    try:
        return Policy.model_validate(
            {
                **fields,
                "daily_limit_micro": daily.amount if daily else None,
                "monthly_limit_micro": monthly.amount if monthly else None,
                "limits": tuple(made.values()),
            }
        )
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise PolicyTextError(words(problem), ".".join(map(str, problem["loc"]))) from None


def limits_text(policy: Policy) -> dict[str, str]:
    """Return all limits of a policy as they are written."""
    return dict(limit_text(limit) for limit in policy.all_limits)
