"""What a finding says, in plain words: what happened, how much more than before, and for how much money."""

from collections.abc import Mapping

from tollmeter.schemas.money import nano_to_text

_CALLS = "{calls:,} calls for {cost} USD"
_SAID = {
    "fan_out": "is used from {addresses:,} addresses within ten minutes, {past}: " + _CALLS,
    "error_storm": "had {errors:,} failed calls of {calls:,} within ten minutes, {past}: it looks like retries",
    "same_body": "sent one body about {repeats:,} times within ten minutes, {past}: " + _CALLS,
    "dominance": "takes {share_pct} % of what its organisation spends in this hour, {past}: {cost} of {org_cost} USD",
}
KINDS = tuple(_SAID)


def said(kind: str, figures: Mapping[str, object]) -> str:
    """Return what a scope did, to be read behind its name. Raises `KeyError` for a figure that is missing."""
    amounts = {
        name.removesuffix("_nano"): nano_to_text(value, 2)
        for name, value in figures.items()
        if name.endswith("_nano") and isinstance(value, int)
    }
    return _SAID[kind].format(**{**figures, **amounts}, past=_past(figures))


def _past(figures: Mapping[str, object]) -> str:
    if "usual_share_pct" in figures:
        usual = figures["usual_share_pct"]
        return f"usually {usual} %" if usual else "it had no share before"
    past = figures["past_peak"]
    return f"at most {past:,} before" if past else "with no past to compare"
