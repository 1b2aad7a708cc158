"""The page Limits: every limit with its bar, raised until midnight with who and why; who is blocked, and until when."""

import asyncio
import time
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.admin import access
from tollmeter.admin.adjust import Wish, in_words, midnight_ms, raised
from tollmeter.admin.policy_text import PolicyTextError, limit_of
from tollmeter.admin.reports.rows import Row
from tollmeter.admin.scope_use import FX_WORDS
from tollmeter.admin.spend_status import used_limits
from tollmeter.broker.policies import PolicyError, Rules, adjust, entries, read_rules, rules_of
from tollmeter.broker.unreadable import readable
from tollmeter.schemas.access import EVERYONE, Block
from tollmeter.schemas.addresses import named_address
from tollmeter.schemas.model_rules import ModelRule
from tollmeter.schemas.policy import Policy
from tollmeter.server.asking import parts_of
from tollmeter.server.pages.doing import admin_form, back, by_whom, choice, done
from tollmeter.server.pages.session import Session
from tollmeter.server.pages.site import page, reader
from tollmeter.server.parts import Parts
from tollmeter.server.problems import Problem
from tollmeter.settings import Settings
from tollmeter.streams.rules.limits.adjusted import adjusted
from tollmeter.streams.rules.limits.periods import period_of

PATH = "/dashboard/limits"
SCOPES = {"api_key": "Key", "client_ip": "Address", "user": "User"}
HOURS = {"1": "an hour", "24": "a day", "168": "a week", "": "until it is undone"}
ROWS = 500
_MONEY = ("USD", "EUR", "RUB")
_GIVEN = ("scope", "name", "org", "policy", "limit")


async def limits(request: Request) -> Response:
    """Show limits and blocks."""
    session = await reader(request)
    if isinstance(session, Response):
        return session
    parts, now = parts_of(request), datetime.now(UTC)
    reading = asyncio.to_thread(_of_log, parts.line)
    pools, log = await asyncio.gather(_pools(parts, session), reading, return_exceptions=True)
    if isinstance(log, PolicyError):
        raise Problem(503, "policies_away", str(log))
    for failed in (pools, log):
        if isinstance(failed, BaseException) and not isinstance(failed, Problem):
            raise failed
    assert isinstance(log, tuple)
    rules, blocked, models = log
    now_ms = round(now.timestamp() * 1_000)
    budgets: list[Row] | None = None
    if session.user:
        budgets = await _own(parts, rules, session, int(now.timestamp()))
    elif not isinstance(pools, BaseException):
        budgets = [_budget(one, rules.policies.get(one["policy_id"]), now_ms) for one in pools[0]]
    as_of = None if isinstance(pools, BaseException) else pools[1]
    groups = rules.groups.of(session.org, session.user) if session.user else ()
    binding = {one["policy_id"] for one in budgets or ()} if session.user else set()
    mine = [one for one in rules.policies.values() if _is_shown(one, session) or one.policy_id in binding]
    given = {name: request.query_params.get(name, "") for name in _GIVEN}
    values: dict[str, Any] = {
        "budgets": budgets,
        "age_s": None if as_of is None else max(0.0, (now - as_of).total_seconds()),
        "rows": [
            {"block": one, "over": one.until is not None and one.until <= now, "ours": session.sees in ("", one.org_id)}
            for one in blocked
            if _is_blocked(one, session)
        ],
        "raises": _raises(mine, given, now_ms),
        "otherwise": [one for policy in mine for one in _otherwise(policy, now)],
        "models": _models(models, session, groups),
        "unreadable": [one for one in rules.unreadable if not session.user and session.sees in ("", one.org_id)],
    }
    return page(request, "limits.html", session, scopes=SCOPES, given=given, hours=HOURS, **values)


async def _pools(parts: Parts, session: Session) -> tuple[list[Row], datetime | None]:
    """Return the limits of pools with what is used of them, and as of when; a user has a question of his own."""
    if session.user:
        [newest] = await parts.ledger.ask_sometimes(2.0, "freshness", orgs=session.orgs(parts.line.org), days=2)
        return [], newest["as_of"]
    asking = parts.ledger.ask("budget_list", org_id=session.sees, user_id="", top=ROWS)
    rows, [told] = await asyncio.gather(asking, parts.ledger.ask_sometimes(2.0, "limits_as_of"))
    return rows, told["as_of"]


def _of_log(line: Settings) -> tuple[Rules, list[Block], list[ModelRule]]:
    """Return rules, blocks and rules about models, by one reading of the log. Raises `PolicyError`."""
    found = entries(line)
    return rules_of(found), readable(found, Block), readable(found, ModelRule)


async def _own(parts: Parts, rules: Rules, session: Session, at_s: int) -> list[Row] | None:
    """Return what binds a user's calls, for himself and through his groups; None while the ledger does not answer."""
    try:
        found = await parts.ledger.answer(lambda ledger: used_limits(ledger, rules, session.org, session.user, at_s))
    except Problem:
        return None
    rows = [
        {
            **{name: getattr(one, name) for name in ("policy_id", "unit", "timezone", "org_id", "scope", "name")},
            "amount": one.amount,
            "used": use.of(one.unit),
            "period": one.limit.window,
            "ends": _moment(1_000 * period_of(one.limit.window, one.timezone, at_s)[1]),
            "fx": FX_WORDS[mark] if (mark := use.fx(one.unit)) else "",
        }
        for one, use in found
    ]
    return sorted((_budget(one, None, 0) for one in rows), key=lambda one: (-one["percent"], one["policy_id"]))


async def raise_(request: Request) -> Response:
    """Raise a limit until the day of its policy's time zone is over, as `tollmeter policy raise` does."""
    session, fields = await admin_form(request)
    line, now_ms = parts_of(request).line, round(time.time() * 1_000)
    policy_id, _, key = fields.get("which", "").rpartition(" ")
    reason = fields.get("reason", "").strip()
    if not reason:
        raise Problem(400, "reason", "reason: say why; it is kept in the history")
    try:
        wanted = limit_of(key, fields.get("amount", "").strip())
    except PolicyTextError as error:
        raise Problem(400, "amount", f"amount: {error.text}") from None

    def work() -> None:
        policy = read_rules(line).policies.get(policy_id)
        if policy is None or not _is_shown(policy, session):
            raise PolicyError("the organisation has no such policy")
        wish = Wish(by_whom(session, fields), reason, now_ms, midnight_ms(policy, now_ms))
        adjust(line, policy, raised(policy, [wanted], wish))

    await done(work)
    return back(PATH)


async def block(request: Request) -> Response:
    """Refuse a key, an address or a user from now on."""
    session, fields = await admin_form(request)
    hours = choice(fields, "hours", HOURS, "1")
    until = datetime.now(UTC) + timedelta(hours=int(hours)) if hours else None
    reason = fields.get("reason", "").strip() or "blocked by an operator"
    line = parts_of(request).line
    await done(lambda: access.put(line, Block(**_whom(fields, session), reason=reason, until=until)))
    return back(PATH)


async def unblock(request: Request) -> Response:
    """Let them call again. What holds for all organisations is not one organisation's to end."""
    session, fields = await admin_form(request)
    line, ended = parts_of(request).line, {**_whom(fields, session), "reason": "unblocked"}

    def work() -> None:
        gone = Block(**ended)
        if gone.key not in {one.key for one in access.blocks(line)}:
            raise PolicyError("the organisation blocks nobody of this name: it may be over, or hold for everybody")
        access.take_away(line, gone)

    await done(work)
    return back(PATH)


def _whom(fields: dict[str, str], session: Session) -> dict[str, Any]:
    """Return whom a form means; an address in the one form that guards compare."""
    scope, name = fields.get("scope", ""), fields.get("name", "").strip()
    if scope == "client_ip":
        try:
            name = named_address(name)
        except ValueError as error:
            raise Problem(400, "name", str(error)) from None
    return {"org_id": session.sees or fields.get("org", "").strip() or EVERYONE, "scope": scope, "name": name}


def _is_shown(policy: Policy | ModelRule, session: Session) -> bool:
    own = not session.user or (policy.scope, policy.name) == ("user", session.user)
    return session.sees in ("", policy.org_id) and own


def _models(rules: Iterable[ModelRule], session: Session, groups: Collection[str]) -> list[Row]:
    shown = (one for one in rules if _is_shown(one, session) or _holds(one, session, groups))
    return [{"whom": _whose(one.org_id, one.scope, one.name), "rule": one} for one in shown]


def _holds(one: ModelRule, session: Session, groups: Collection[str]) -> bool:
    """Say whether a rule of the organisation, or of one of his groups, holds for the user who looks."""
    named = one.scope == "org" or (one.scope == "group" and one.name in groups)
    return bool(session.user) and one.org_id == session.org and named


def _is_blocked(one: Block, session: Session) -> bool:
    own = not session.user or (one.scope, one.name) == ("user", session.user)
    return (session.sees in ("", one.org_id) or one.org_id == EVERYONE) and own


def _budget(row: dict[str, Any], policy: Policy | None, now_ms: int) -> dict[str, Any]:
    """Return a bar: what the ledger says is used, of what the policy says now; the ledger's copy may be behind."""
    money = row["unit"] in _MONEY
    places, per_unit = (1e9, 1_000) if money else (1, 1)
    key = f"{row['period']}/{'money' if money else row['unit']}"
    limits = {limit.key: limit for limit in adjusted(policy, now_ms).all_limits} if policy else {}
    amount = limits[key].amount * per_unit if key in limits else row["amount"]
    amounts = {"limit": amount / places, "used": row["used"] / places, "percent": 100 * row["used"] / amount}
    return {"fx": "", **row, **amounts, "key": key, "whom": _whose(row["org_id"], row["scope"], row["name"])}


def _whose(org: str, scope: str, name: str) -> str:
    return org if scope == "org" else f"{scope} {name} of {org}"


def _raises(policies: Iterable[Policy], given: dict[str, str], now_ms: int) -> list[dict[str, Any]]:
    """Return the limits that can be raised, with their amounts of now and when midnight is; the one meant is marked."""
    rows = [
        {
            "which": f"{policy.policy_id} {limit.key}",
            "whom": _whose(policy.org_id, policy.scope, policy.name),
            "each": policy.applies == "each_member",
            "limit": limit.key,
            "amount": in_words(limit),
            "unit": policy.currency if limit.measure == "money" else "",
            "until": _moment(midnight_ms(policy, now_ms)),
            "zone": policy.timezone,
            "meant": (given["policy"] == policy.policy_id and given["limit"] == limit.key)
            or (
                not given["policy"]
                and (given["org"], given["scope"], given["name"]) == (policy.org_id, policy.scope, policy.name)
            ),
        }
        for policy in policies
        for limit in adjusted(policy, now_ms).all_limits
    ]
    return rows[:ROWS]


def _otherwise(policy: Policy, now: datetime) -> list[dict[str, Any]]:
    """Return what of a policy is otherwise at present, until when, by whom and why."""
    whom = _whose(policy.org_id, policy.scope, policy.name)
    return [
        {
            "whom": whom,
            "limit": one.limit,
            "what": "raised" if one.amount else "reset",
            "since": _moment(one.since_ms),
            "until": _moment(one.until_ms),
            "by": one.by,
            "reason": one.reason,
        }
        for one in policy.adjustments
        if one.until_ms > now.timestamp() * 1_000
    ]


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1_000, UTC)


ROUTES = [
    Route(PATH, limits, methods=["GET"]),
    Route(PATH, block, methods=["POST"]),
    Route(PATH + "/unblock", unblock, methods=["POST"]),
    Route(PATH + "/raise", raise_, methods=["POST"]),
]
