"""What the pace of a budget says, in plain words."""

from collections.abc import Mapping

from tollmeter.schemas.money import limit_text, used_text

_WINDOWS = {"day": "daily", "week": "weekly", "month": "monthly"}


def pace(kind: str, facts: Mapping[str, object]) -> str:
    """Return what a burn_rate or a forecast says, to be read behind a name. Raises `KeyError` for what is missing."""
    limit = f"{_WINDOWS.get(str(facts['window']), facts['window'])} limit of {_money(facts, 'limit_nano')}"
    if kind == "forecast":
        return f"will have spent {_money(facts, 'forecast_nano')} of its {limit} at the end, if it goes on like this"
    hours = "an hour" if facts["burn_hours"] == 1 else f"{facts['burn_hours']} hours"
    return (
        f"spent {_money(facts, 'burn_nano')} within {hours}, where a day's share is {_money(facts, 'day_share_nano')}: "
        f"at this pace its {limit} lasts {facts['hours_left']:,} hours more"
    )


def _money(facts: Mapping[str, object], name: str) -> str:
    amount = facts[name]
    if not isinstance(amount, int):
        raise TypeError(f"{name} is no amount")
    shown = limit_text(amount) if name == "limit_nano" else used_text(amount)
    return f"{shown} {facts['currency']}"
