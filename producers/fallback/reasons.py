"""Why a call did not succeed, read from the error that its SDK raised: is another provider worth trying?

By status and class name, so that no SDK is imported. Pure.
"""

from typing import Any, Literal

from tollmeter.producers.http.answer import REFUSED

Reason = Literal["budget", "quota", "timeout", "failure"]
REASONS: tuple[Reason, ...] = ("budget", "quota", "timeout", "failure")

BUDGET_ERRORS = frozenset(("CostLimitExceeded", "cost_cap", "budget_unknown", "price_unknown"))
"""Refusals of the guard that a cheaper provider may escape. Blocks and rate limits are about the caller: they stay."""
_QUOTA = frozenset((402, 429))
_FAILURES = frozenset((401, 403, 404, 408))
"""The provider does not take our key, has no such model, or gave up: another one may serve."""
_TIMEOUTS = frozenset(("TimeoutError", "TimeoutException", "APITimeoutError"))
_UNREACHABLE = frozenset(("ConnectionError", "TransportError", "APIConnectionError", "URLError"))


def reason_of(error: BaseException) -> Reason | None:
    """Return why, or None when the request itself is wrong, the caller is refused, or it is no provider's error."""
    refused = _refused_as(error)
    if refused:
        return "budget" if refused in BUDGET_ERRORS else None
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & _TIMEOUTS:
        return "timeout"
    status = _status_of(error)
    if status is None:
        return "failure" if names & _UNREACHABLE else None
    if status in _QUOTA:
        return "quota"
    return "failure" if status in _FAILURES or status >= 500 else None


def _refused_as(error: BaseException) -> str:
    """Return the guard's name for its refusal; "" when the guard did not refuse."""
    if type(error).__name__ == "CostLimitExceeded":
        return "CostLimitExceeded"
    deny = getattr(error, "deny", None)
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or {}
    return str(getattr(deny, "error", "") or headers.get(REFUSED, ""))


def _status_of(error: BaseException) -> int | None:
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "code", "status"):
            found = getattr(holder, name, None)
            if isinstance(found, int) and not isinstance(found, bool):
                return found
    return None
