"""`tollmeter policy explain|status`: which limits bind a call, which policy decided, why, and what was used of them."""

from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import click

from tollmeter.admin.model_rules import Call, Explained, explained, model_rules
from tollmeter.admin.names import identity
from tollmeter.admin.policy_text import amount_text
from tollmeter.admin.scope_use import FX_WORDS, use_of
from tollmeter.admin.spend_status import SpendStatus, UserNotFoundError, is_known, spend_status
from tollmeter.broker.policies import Rules, read_rules, read_spend
from tollmeter.cli.ledger import reading
from tollmeter.cli.output import Finding, UserError, err, json_option, out, print_json, print_table
from tollmeter.cli.policy_options import doing, org_option, tell_unreadable
from tollmeter.producers.guard.answers import Version
from tollmeter.schemas.addresses import caller_form
from tollmeter.schemas.money import NANO_PER_MICRO
from tollmeter.schemas.spend import Spend, spend_key
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.streams.rules.limits.adjusted import in_force
from tollmeter.streams.rules.limits.periods import period_of
from tollmeter.streams.rules.limits.policies import (
    Budget,
    Effective,
    Lost,
    effective,
    lost_defaults,
    pool_limits,
)

_REASONS = {
    "own_policy": "the member's own policy wins whole",
    "smaller_limit": "a smaller limit of its kind is in force",
    "equal_limit": "an equal limit of its kind is in force",
}
_SCOPES = ("api_key", "client_ip", "agent", "model", "provider", "version", "feature", "session", "run")


@click.command()
@org_option
@click.option("--user", default="", help="Who calls.")
@click.option("--group", help="A group that the call names, beside those of the membership.")
@click.option("--api-key", help="Id of the key that is used.")
@click.option("--client-ip", help="Address of the caller.")
@click.option("--agent", help="Agent that calls.")
@click.option("--model", help="Model that is called.")
@click.option("--provider", help="Provider that is called.")
@click.option("--feature", help="What the application does: its operation_name.")
@click.option("--session", help="Session of the call.")
@click.option("--run", help="Run of the call: its trace id.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Tag of the call; repeatable.")
@json_option
@click.pass_obj
def explain(
    settings: Settings, /, org: str, user: str, tags: tuple[str, ...], as_json: bool, **named: str | None
) -> None:
    """Say which limits bind a call and why. Used = org-billed cost and money at risk, from the ledger."""
    for tag in tags:
        if "=" not in tag:
            raise UserError(f"--tag {tag}: write KEY=VALUE")
    meant = _meant(settings, named)
    scopes = {(kind, name) for kind in _SCOPES if (name := meant.get(kind))} | {("tag", tag) for tag in tags}
    with ExitStack() as opened:
        opened.enter_context(doing())
        rules, live = read_rules(settings), read_spend(settings)
        tell_unreadable(one for one in rules.unreadable if one.org_id == org)
        ledger = _ledger(settings, opened)
        groups = _groups(rules, org, user, named["group"])
        scopes |= {("group", group) for group in groups}
        scopes |= _versions(rules, org, meant)
        policies = in_force(rules.policies.values(), round(datetime.now(UTC).timestamp() * 1_000))
        own = effective(policies, org, user, groups)
        pools = pool_limits(policies, org, scopes)
        lost = (*own.lost, *lost_defaults(policies, org, scopes))
        rows = [_row(budget, _why(budget, own), ledger, live) for budget in (*own.budgets, *pools)]
        known = None if ledger is None else is_known(ledger, rules, org, user)
        call = Call(user, groups, named["api_key"] or "", named["provider"] or "", named["model"] or "")
        models = explained(settings, model_rules(settings, org), call)
    document = {
        "org": org,
        "user": user,
        "known": known,
        "meant": {kind: name for kind, name in meant.items() if name},
        "groups": list(groups),
        "warn_threshold_pct": own.warn_threshold_pct,
        "warn_policy_id": own.warn_policy_id,
        "budgets": rows,
        "lost": [_lost(one) for one in lost],
        "models": models.document,
    }
    if as_json:
        print_json(document)
    else:
        _print(document, models)


def _meant(settings: Settings, named: Mapping[str, str | None]) -> dict[str, str]:
    """Return the names by which the line and the guards know what was asked for."""
    given = {kind: name or "" for kind, name in named.items()} | {"client_ip": caller_form(named["client_ip"] or "")}
    if given["model"] or given["provider"]:
        provider, model = identity(settings, given["provider"], given["model"])
        given |= {"provider": provider, "model": model, "version": given["model"].strip()}
    return given


def _versions(rules: Rules, org: str, meant: Mapping[str, str]) -> set[tuple[str, str]]:
    """Return the versions of models that a call may be answered by, of those that have a policy: guards ask for all."""
    if not meant.get("version"):
        return set()
    version = Version(meant["version"], certain=False)
    named = {one.name for one in rules.policies.values() if (one.org_id, one.scope) == (org, "version")}
    return {("version", name) for name in named if version.may_be(name, meant["model"])}


def _lost(lost: Lost) -> dict[str, Any]:
    budget = lost.budget
    own = {"policy_id": budget.policy_id, "period": budget.period, "unit": budget.unit, "limit": budget.amount}
    return {**own, "reason": lost.reason, "to": lost.to}


@click.command()
@org_option
@click.option("--user", required=True, help="External id of the user.")
@click.option("--own-keys", is_flag=True, help="What he spent on keys of his own, which no limit concerns.")
@json_option
@click.pass_obj
def status(settings: Settings, org: str, user: str, own_keys: bool, as_json: bool) -> None:
    """What a user spent against the limits that bind, and in EUR; exit code 1 for one whom nobody knows."""
    with doing(), reading(settings) as ledger:
        rules = read_rules(settings)
        tell_unreadable(one for one in rules.unreadable if one.org_id == org)
        try:
            found = spend_status(ledger, rules, org, user, datetime.now(UTC), billing_scope_org=not own_keys)
        except UserNotFoundError as error:
            raise Finding(str(error)) from None
    if as_json:
        print_json(found.document())
        return
    _print_status(found, user, own_keys=own_keys)


def _print_status(found: SpendStatus, user: str, *, own_keys: bool) -> None:
    limits = [
        {
            "scope": f"{limit.scope} {limit.name}".strip(),
            "applies": limit.applies,
            "period": limit.period,
            "unit": limit.unit,
            "limit": _shown(limit.limit, limit.unit),
            "used": _shown(limit.used, limit.unit),
            "remaining": _shown(limit.remaining, limit.unit, down=True),
            "%": limit.percent,
        }
        for limit in found.limits or ()
    ]
    if limits:
        print_table(f"limits that bind calls of {user}", limits, spare=("remaining", "applies"))
    elif not own_keys:
        out.print(f"no limit binds calls of {user}")
    rows = [
        {
            "": name,
            "used": amount_text(getattr(found, f"cost_used_{name}_micro_eur")),
            "limit": _amount(getattr(found, f"cost_limit_{name}_micro_eur")),
            "remaining": _amount(getattr(found, f"cost_remaining_{name}_micro_eur")),
        }
        for name in ("today", "month")
    ]
    print_table(f"spend of {user}, EUR, against limits in EUR; warned at {found.warn_threshold_pct} %", rows)
    for line in found.fx_lines():
        out.print(line)
    if found.by_provider_keys:
        shown = [
            {"key": key.label, "paid by": key.billing_scope, "this month": amount_text(key.cost_month_micro_eur)}
            for key in found.by_provider_keys
        ]
        print_table("dearest keys, EUR", shown)


def _groups(rules: Rules, org: str, user: str, named: str | None) -> tuple[str, ...]:
    """Return the groups whose limits hold, as the guard finds them: those of the membership and what the call names."""
    given = rules.groups.closure(org, (named,)) if named else ()
    return tuple(sorted({*rules.groups.of(org, user), *given}))


def _ledger(settings: Settings, opened: ExitStack) -> ClickHouse | None:
    """Open the ledger; without it the answer lacks what was used, and says so."""
    try:
        return opened.enter_context(reading(settings))
    except UserError as error:
        err.print(f"what was used is unknown: {error.message}")
        return None


def _why(budget: Budget, own: Effective) -> str:
    if budget.by_default and budget.scope != "user":
        return f"the default for each {budget.scope} without a policy of its own"
    if budget.scope != "user":
        whom = f"{budget.scope} {budget.name}" if budget.name else "the organisation"
        return f"what all calls of {whom} spend together"
    if budget.policy_id.split("/")[1] == "user" and not budget.by_default:
        return "the user's own policy"
    beaten = sum(lost.to == budget.policy_id and lost.budget.kind == budget.kind for lost in own.lost)
    rank = f"the smallest of {beaten + 1} for each member" if beaten else "the only one for each member"
    return f"{rank}, the default for each user without a policy of his own" if budget.by_default else rank


def _row(budget: Budget, why: str, ledger: ClickHouse | None, live: dict[str, Spend]) -> dict[str, Any]:
    period = period_of(budget.limit.window, budget.timezone, int(datetime.now(UTC).timestamp()))
    use = None if ledger is None else use_of(ledger, budget.org_id, budget.scope, budget.name, period)
    used, fx = (None, None) if use is None else (use.of(budget.unit), use.fx(budget.unit))
    key = spend_key(budget.org_id, budget.scope, budget.name, budget.period, budget.unit)
    seen = live.get(key)
    return {
        "scope": budget.scope,
        "name": budget.name,
        "applies": budget.applies,
        "period": budget.period,
        "unit": budget.unit,
        "starts_at": _instant(period[0]),
        "ends_at": _instant(period[1]),
        "limit": budget.amount,
        "used": used,
        "remaining": None if used is None else max(0, budget.amount - used),
        "percent": None if used is None else used * 100 // budget.amount,
        "guards_see": seen.spent if seen is not None and seen.ends_s == period[1] else None,
        "policy_id": budget.policy_id,
        "why": why if fx is None else f"{why}; {FX_WORDS[fx]}",
        **({} if fx is None else {"fx": fx}),
    }


def _print_head(document: dict[str, Any], models: Explained) -> None:
    who = f"user {document['user'] or '(none)'} of {document['org']}"
    inside = f" in {', '.join(document['groups'])}" if document["groups"] else ""
    out.print(f"{who}{inside}; warned at {document['warn_threshold_pct']} %")
    if known := [f"{kind} {document['meant'][kind]}" for kind in ("provider", "model") if kind in document["meant"]]:
        out.print(f"counted as {', '.join(known)}")
    if document["user"] and document["known"] is False:
        out.print("nobody knows this user: not in the membership, never seen in an event")
    for line in models.lines:
        out.print(line)


def _print(document: dict[str, Any], models: Explained) -> None:
    _print_head(document, models)
    rows = [
        {
            "scope": f"{row['scope']} {row['name']}".strip(),
            "applies": row["applies"],
            "period": row["period"],
            "unit": row["unit"],
            "limit": _shown(row["limit"], row["unit"]),
            "used": _shown(row["used"], row["unit"]),
            "remaining": _shown(row["remaining"], row["unit"], down=True),
            "guards see": _shown(row["guards_see"], row["unit"]),
            "%": row["percent"],
            "decided by": row["policy_id"],
            "why": row["why"],
        }
        for row in document["budgets"]
    ]
    if not rows:
        out.print("no limit binds these calls")
        return
    print_table("limits in force", rows, spare=("guards see", "remaining", "applies"))
    lost = [
        {
            "policy": row["policy_id"],
            "period": row["period"],
            "unit": row["unit"],
            "limit": _shown(row["limit"], row["unit"]),
            "why not": f"{_REASONS[row['reason']]}: {row['to']}",
        }
        for row in document["lost"]
    ]
    if lost:
        print_table("limits that do not bind", lost)


def _shown(amount: int | None, unit: str, *, down: bool = False) -> str | None:
    """Return an amount for people: what was used is rounded up to micro-units, what remains down."""
    if amount is None:
        return None
    if unit in ("tokens", "requests"):
        return f"{amount:,}"
    return amount_text(amount // NANO_PER_MICRO if down else -(-amount // NANO_PER_MICRO))


def _amount(micro: int | None) -> str | None:
    return None if micro is None else amount_text(micro)


def _instant(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")
