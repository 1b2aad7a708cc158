"""What a refused caller is told: the exact bodies that clients know, and the alert, one per kind, scope and hour."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tollmeter.producers.guard.access import NANO_PER_S, Paced
from tollmeter.producers.guard.accounts import Refusal
from tollmeter.producers.guard.decision import NANO_PER_USD, CostLimitExceeded, Deny
from tollmeter.schemas.access import Block
from tollmeter.schemas.alert import Alert, alert_id, whom
from tollmeter.schemas.model_rules import ModelRule
from tollmeter.schemas.policy import Limit
from tollmeter.streams.rules.limits.models import Verdict, allowed_by_all

SOURCE = "tollmeter/guard"
_PERIOD_WORDS = {"day": "daily", "week": "weekly", "month": "monthly"}
_MEASURE_WORDS = {"money": "cost", "tokens": "token", "requests": "request"}
RETRY_SHARE_S = 1
"""How soon the others may be heard of: spend comes every second."""

ALERT_KINDS = {
    "cost_cap": "cap_refused",
    "rate_limited": "rate_limited",
    "blocked": "blocked",
    "model_not_allowed": "model_not_allowed",
}


UNHEARD = "spend is not known at present"
UNRATED = "no exchange rate is known for the currency of a limit: 'tollmeter prices fx update' brings rates"


def limit_text(limit: Limit) -> str:
    """Return the text of a used-up budget: `llm cost limit exceeded: daily cost limit reached`."""
    period = _PERIOD_WORDS.get(limit.period) or f"rolling {limit.hours} h"
    return f"llm cost limit exceeded: {period} {_MEASURE_WORDS[limit.measure]} limit reached"


def cost_cap(status: int, max_nano: int, est_nano: int) -> Deny:
    """The call alone may cost more than the cap."""
    body = {
        "ok": False,
        "error": "cost_cap",
        "max_usd": max_nano / NANO_PER_USD,
        "est_usd": est_nano / NANO_PER_USD,
    }
    return Deny(status, body)


def over_budget(status: int, refusal: Refusal, now_s: int, fx_stale: bool = False) -> Deny:
    """A budget is used up, or what is left of it does not cover the call; `fx_stale`: by an old rate and a margin."""
    (account, limit, _, budget), reason, spent, held = refusal
    ends = account.ends_s - now_s if now_s < account.ends_s else None
    body: dict[str, Any] = {
        "ok": False,
        "error": CostLimitExceeded.__name__,
        "message": limit_text(budget.limit),
        "reason": reason,
        "scope": budget.scope,
        "name": budget.name,
        "policy_id": budget.policy_id,
        "applies": budget.applies,
        "period": budget.period,
        "unit": budget.unit,
        "limit": limit,
        "used": spent,
        "in_flight": held,
        "remaining": max(0, limit - spent - held),
    }
    if fx_stale:
        body["fx_stale"] = True
    return Deny(status, body, RETRY_SHARE_S if reason == "share" else ends)


def blocked(block: Block) -> Deny:
    """An admin has blocked the key, the address or the user."""
    until = None if block.until is None else block.until.astimezone(UTC).isoformat().replace("+00:00", "Z")
    body = {
        "ok": False,
        "error": "blocked",
        "scope": block.scope,
        "name": block.name,
        "reason": block.reason,
        "until": until,
    }
    return Deny(403, body)


def paced(found: Paced) -> Deny:
    """Too many calls of one key or address."""
    limit, wait_s = found.limit, -(-found.wait_ns // NANO_PER_S)
    body = {
        "ok": False,
        "error": "rate_limited",
        "scope": found.scope,
        "name": found.name,
        "requests": limit.requests,
        "window_s": limit.window_s,
        "burst": limit.burst,
        "counted_by": found.counted_by,
        "retry_after_s": wait_s,
    }
    return Deny(429, body, wait_s)


def budget_unknown(staleness_ms: int | None, message: str = UNHEARD) -> Deny:
    """By setting, a call whose budgets are not known is refused."""
    known = None if staleness_ms is None else round(staleness_ms / 1_000, 1)
    body = {"ok": False, "error": "budget_unknown", "message": message, "staleness_s": known}
    return Deny(503, body, RETRY_SHARE_S)


def model_not_allowed(verdict: Verdict, rules: Sequence[ModelRule]) -> Deny:
    """A rule of the key, the user, his groups or the organisation does not allow the model."""
    first, allowed = verdict.broken[0], allowed_by_all(rules)
    whom = f"{first.scope.replace('_', ' ')} {first.name}" if first.name else f"organisation {first.org_id}"
    asked = f"model {verdict.model[:100]!r}" if verdict.model.strip() else "a call whose model cannot be read"
    body = {
        "ok": False,
        "error": "model_not_allowed",
        "message": f"{asked} is not allowed for {whom}; allowed: {', '.join(allowed[:20]) or 'none'}",
        "model": verdict.model,
        "scope": first.scope,
        "name": first.name,
        "rule": first.key,
        "allowed": list(allowed),
        "downgrade_to": verdict.instead or None,
    }
    return Deny(403, body)


def price_unknown(model: str) -> Deny:
    """By setting, a call that nobody can price is refused."""
    body = {"ok": False, "error": "price_unknown", "message": f"no price is known for {model[:100]!r}", "model": model}
    return Deny(503, body)


def alert_of(deny: Deny, org: str, caller: dict[str, str], at_ms: int) -> Alert | None:
    """Return the alert of a refusal: the same id for the same kind, scope and hour, in every process."""
    kind = ALERT_KINDS.get(deny.error)
    if kind is None:
        return None
    scope, name = deny.body.get("scope"), deny.body.get("name", "")
    if scope is None:
        scope = next((scope for scope in ("user", "api_key", "client_ip") if caller.get(scope)), "org")
        name = caller.get(scope, "")
    at = datetime.fromtimestamp(at_ms / 1_000, UTC)
    hour = at.strftime("%Y-%m-%dT%H")
    facts = {key: value for key, value in deny.body.items() if key not in ("ok", "error", "scope", "name")}
    if kind == "model_not_allowed":  # the rule may be of a group or of all: who called is what on-call looks for
        facts |= {f"caller_{part}": caller[part] for part in ("user", "api_key") if caller.get(part)}
    who = whom(org, scope.replace("_", " "), name)
    return Alert(
        id=alert_id(kind, org, scope, name, hour),
        kind=kind,
        severity="warning",
        org_id=org,
        scope=scope,
        name=name,
        period=hour,
        received_at=at,
        text=f"{who}: {_TEXTS[kind].format(**deny.body)}",
        facts=facts,
        source=SOURCE,
    )


_TEXTS = {
    "cap_refused": "a call of an estimated {est_usd:.4f} USD was refused; the cap is {max_usd} USD a call",
    "rate_limited": "calls beyond {requests} in {window_s} s were refused",
    "blocked": "calls were refused: {reason}",
    "model_not_allowed": "a call was refused: {message}",
}
