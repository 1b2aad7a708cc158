"""A refusal in one sentence for people: which rule refused the call, by how much, and what to do next.

Pure. Programs read the body's members; whoever sees only the text of an exception reads this.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tollmeter.schemas.escapes import one_line
from tollmeter.schemas.money import NANO_PER_USD

Body = Mapping[str, Any]
COUNTS = ("tokens", "requests")
_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def sentence(body: Body, retry_after_s: int | None = None) -> str:
    """Return the sentence of a refusal's body; of one made by hand that lacks members its message, else its kind."""
    kind = str(body["error"])
    try:
        return one_line(_WORDED[kind](body, retry_after_s))
    except KeyError:
        return one_line(body.get("message") or kind)


def _cost_cap(body: Body, _wait_s: int | None) -> str:
    most, expected = _usd(body["max_usd"]), _usd(body["est_usd"])
    return (
        f"this call may cost {expected} USD, and one call may cost at most {most} USD: "
        "ask for fewer output tokens or a cheaper model, or have TOLLMETER_MAX_USD raised"
    )


def _over_budget(body: Body, wait_s: int | None) -> str:
    used, limit = _amount(body["used"], body["unit"]), _amount(body["limit"], body["unit"])
    held = f" and {_amount(body['in_flight'], body['unit'])} in flight" if body["in_flight"] else ""
    next_step = {
        "reserved": "what is left does not cover this call: ask for fewer output tokens or a cheaper model",
        "share": "other processes may be spending the rest",
    }.get(body["reason"], "")
    again = f"try again in {_span(wait_s)}" if wait_s else ""
    raised = "" if body["reason"] == "share" else f"have policy {body['policy_id']} raised"
    steps = ", or ".join(step for step in (next_step, again, raised) if step)
    return f"{body['message']}: {_who(body)} has used {used}{held} of {limit}; {steps}"


def _blocked(body: Body, _wait_s: int | None) -> str:
    reason = f": {body['reason']}" if body["reason"] else ""
    until = f"until {body['until']}" if body["until"] else "until an admin ends that"
    return f"{_who(body)} is blocked {until}{reason}"


def _rate_limited(body: Body, wait_s: int | None) -> str:
    one = body["requests"] == 1
    allowed = f"{body['requests']:,} {'call' if one else 'calls'} in {_span(body['window_s'])}"
    return f"{_who(body)} may make {allowed}, and has made {'it' if one else 'them'}: try again in {_span(wait_s or 1)}"


def _model_not_allowed(body: Body, _wait_s: int | None) -> str:
    instead = f"; {body['downgrade_to']} would serve" if body["downgrade_to"] else ""
    return f"{body['message']}{instead}"


def _budget_unknown(body: Body, wait_s: int | None) -> str:
    return f"{body['message']}, and calls are refused until it is: try again in {_span(wait_s or 1)}"


def _price_unknown(body: Body, _wait_s: int | None) -> str:
    return f"{body['message']}, and such calls are refused: ask for a model of the price list, or have it added"


_WORDED = {
    "cost_cap": _cost_cap,
    "CostLimitExceeded": _over_budget,
    "blocked": _blocked,
    "rate_limited": _rate_limited,
    "model_not_allowed": _model_not_allowed,
    "budget_unknown": _budget_unknown,
    "price_unknown": _price_unknown,
}


def _who(body: Body) -> str:
    scope = str(body["scope"])
    if scope == "org":
        return "the organisation"
    scope = {"client_ip": "address", "api_key": "key"}.get(scope, scope.replace("_", " "))
    return f"{scope} {str(body['name'])[:100]}" if body["name"] else f"each {scope}"


def _amount(value: int, unit: str) -> str:
    if unit in COUNTS:
        return f"{value:,} {unit}"
    return f"{_plain(Decimal(value) / NANO_PER_USD)} {unit}"


def _usd(value: float) -> str:
    return _plain(Decimal(str(value)))


def _plain(value: Decimal) -> str:
    """Return an amount without exponent and without zeros at its end."""
    text = f"{value:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _span(seconds: int) -> str:
    """Return a time to wait, rounded up in its largest unit: never sooner than it is over."""
    size, name = next(((size, name) for size, name in _SPANS if seconds >= 2 * size), _SPANS[-1])
    return f"{-(-seconds // size)} {name}"
