"""Policies, members, blocks and rate limits of the caller's organisation, by the functions of the commands."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.admin import access, cost_policies
from tollmeter.admin.names import known_as, resolved
from tollmeter.broker.policies import (
    member_delete,
    member_set,
    policy_delete,
    policy_set,
    read_rules,
    write,
)
from tollmeter.schemas.access import Block, RateLimit
from tollmeter.schemas.addresses import HASHED, address_or_network
from tollmeter.schemas.policy import Member, Policy
from tollmeter.server import bodies
from tollmeter.server.asking import caller_of, parts_of
from tollmeter.server.changes import change
from tollmeter.server.json_answer import JsonAnswer
from tollmeter.server.problems import Problem
from tollmeter.server.query import bad, checked, takes
from tollmeter.server.shapes import Model
from tollmeter.settings import Settings

_POLICY, _MEMBER = Model(Policy, ("org_id",), {"policy_id": str}), Model(Member, ("org_id",))
_UNREADABLE = {"key": str, "why": str}
_COST_POLICY = {
    **dict.fromkeys(("scope", "name"), str),
    **dict.fromkeys(("daily_limit_micro_eur?", "monthly_limit_micro_eur?", "warn_threshold_pct"), int),
}
_SCOPES = {"key": "api_key", "ip": "client_ip", "user": "user"}


class CostLimits(BaseModel):
    """Limits of an organisation, group or user in micro-EUR; zero or less is no limit."""

    model_config = ConfigDict(extra="forbid", strict=True)

    daily_limit_micro_eur: int | None = None
    monthly_limit_micro_eur: int | None = None
    warn_threshold_pct: int = Field(default=0, le=100)


class Groups(BaseModel):
    """The groups that a member is in."""

    model_config = ConfigDict(extra="forbid", strict=True)

    groups: list[str] = []


@takes(gives={"policies": [_POLICY], "unreadable?": [_UNREADABLE]})
async def policies(request: Request) -> Response:
    """List the organisation's policies."""
    caller = caller_of(request, "admin")
    rules = await change(request, read_rules, changes=False)
    found = [_policy(one) for one in rules.policies.values() if one.org_id == caller.org_id]
    broken = [one._asdict() for one in rules.unreadable if one.org_id == caller.org_id]
    return JsonAnswer({"policies": found, **({"unreadable": broken} if broken else {})})


@takes(body=Policy, said=("org_id",), gives=_POLICY)
async def put_policy(request: Request) -> Response:
    """Set the limits of a scope, in place of any it had in this currency."""
    caller = caller_of(request, "admin")
    policy = await bodies.read(request, Policy, org_id=caller.org_id)

    def put(line: Settings) -> Policy:
        made = resolved(line, policy)
        write(line, [policy_set(made)])
        return made

    return JsonAnswer(_policy(await change(request, put)))


@takes("scope", "name", "applies", "currency", gives={"deleted": int})
async def delete_policy(request: Request) -> Response:
    """Delete policies of a scope, but not an organisation's; an absent one is no error."""
    caller = caller_of(request, "admin")
    given = checked(request)
    if given.get("scope", "org") == "org":
        raise Problem(409, "refused", "cannot delete org policy")

    def delete(line: Settings) -> int:
        scope, name = known_as(line, given["scope"], given.get("name", ""))
        found = [
            one
            for one in read_rules(line).policies.values()
            if (one.org_id, one.scope, one.name) == (caller.org_id, scope, name)
            and given.get("applies", one.applies) == one.applies
            and given.get("currency", one.currency) == one.currency
        ]
        write(line, [policy_delete(caller.org_id, one.policy_id) for one in found])
        return len(found)

    return JsonAnswer({"deleted": await change(request, delete)})


@takes(body=CostLimits, gives=_COST_POLICY, empty=("DELETE",))
async def cost_policy(request: Request) -> Response:
    """Get, set or delete the cost policy of the organisation, a group or a user, in micro-EUR."""
    caller = caller_of(request, "admin")
    scope, name = request.path_params["scope"], request.path_params.get("name", "")
    if scope not in ("org", "group", "user") or (scope == "org") == bool(name):
        raise Problem(404, "not_found", "a cost policy is of org, of group/NAME or of user/NAME")
    if request.method == "DELETE":
        await change(request, lambda line: cost_policies.delete_cost_policy(line, caller.org_id, scope, name))
        return Response(status_code=204)
    if request.method == "PUT":
        limits = (await bodies.read(request, CostLimits)).model_dump()

        def put(line: Settings) -> Policy:
            return cost_policies.upsert_cost_policy(line, caller.org_id, scope, name, **limits)

        return JsonAnswer(_cost_policy(await change(request, put)))
    found = await change(
        request, lambda line: cost_policies.get_cost_policy(line, caller.org_id, scope, name), changes=False
    )
    return JsonAnswer(_cost_policy(found))


@takes(gives={"members": [_MEMBER]})
async def members(request: Request) -> Response:
    """List the organisation's members and their groups."""
    caller = caller_of(request, "admin")
    rules = await change(request, read_rules, changes=False)
    found = [one for one in rules.groups.members if one.org_id == caller.org_id]
    return JsonAnswer({"members": [one.model_dump(mode="json", exclude={"org_id"}) for one in found]})


@takes(body=Groups, gives=_MEMBER, empty=("DELETE",))
async def member(request: Request) -> Response:
    """Say in which groups a user or group is, or take it out of the membership."""
    caller = caller_of(request, "admin")
    who = {"org_id": caller.org_id, "kind": request.path_params["kind"], "name": request.path_params["name"]}
    if request.method == "DELETE":
        gone = bodies.made(Member, who)
        await change(request, lambda line: write(line, [member_delete(caller.org_id, gone.member_id)]))
        return Response(status_code=204)
    groups = (await bodies.read(request, Groups)).groups
    made = bodies.made(Member, {**who, "groups": groups})
    await change(request, lambda line: write(line, [member_set(made)]))
    return JsonAnswer(made.model_dump(mode="json", exclude={"org_id"}))


@takes(gives={"blocks": [Model(Block)]})
async def blocks(request: Request) -> Response:
    """List who is blocked in the organisation, or for all of them."""
    return await _listed(request, "blocks", access.blocks)


@takes(gives={"rate_limits": [Model(RateLimit)]})
async def rate_limits(request: Request) -> Response:
    """List the rate limits of the organisation, and those for all of them."""
    return await _listed(request, "rate_limits", access.rate_limits)


@takes(body=Block, said=("org_id", "scope", "name"), gives=Model(Block), empty=("DELETE",))
async def block(request: Request) -> Response:
    """Refuse every call of a key, an address or a user, or let it call again."""
    return await _access(request, Block, ("key", "ip", "user"))


@takes(body=RateLimit, said=("org_id", "scope", "name"), gives=Model(RateLimit), empty=("DELETE",))
async def rate_limit(request: Request) -> Response:
    """Say how often a key or an address may call, or end that."""
    return await _access(request, RateLimit, ("key", "ip"))


async def _listed(request: Request, name: str, read: Callable[[Settings], Sequence[Block | RateLimit]]) -> Response:
    caller, now = caller_of(request, "admin"), datetime.now(UTC)
    rows = await change(request, read, changes=False)
    mine = [row for row in rows if row.org_id in (caller.org_id, "*") and (row.until is None or row.until > now)]
    return JsonAnswer({name: [row.model_dump(mode="json") for row in mine]})


async def _access(request: Request, shape: type[Block] | type[RateLimit], kinds: tuple[str, ...]) -> Response:
    caller, kind = caller_of(request, "admin"), request.path_params["kind"]
    if kind not in kinds:
        raise Problem(404, "not_found", f"choose from {', '.join(kinds)}")
    who = {"org_id": caller.org_id, "scope": _SCOPES[kind], "name": _name(kind, request.path_params["id"])}
    if request.method == "DELETE":
        needed = {"reason": "-"} if shape is Block else {"requests": 1, "window_s": 1}
        gone = bodies.made(shape, {**who, **needed})
        await change(request, lambda line: access.take_away(line, gone))
        return Response(status_code=204)
    made = await bodies.read(request, shape, **who)
    line = parts_of(request).line
    if isinstance(made, RateLimit) and kind == "ip" and not access.can_be_rated(line, made.name):
        raise bad("id", access.not_rated(line, made.name))
    await change(request, lambda line: access.put(line, made))
    return JsonAnswer(made.model_dump(mode="json"))


def _name(kind: str, text: str) -> str:
    if kind != "ip" or text == "*" or HASHED.fullmatch(text):
        return text
    try:
        return address_or_network(text)
    except ValueError:
        raise bad("id", f"{text[:60]!r} is no address and no network") from None


def _policy(policy: Policy) -> dict[str, object]:
    return {"policy_id": policy.policy_id, **policy.model_dump(mode="json", exclude={"org_id"})}


def _cost_policy(policy: Policy) -> dict[str, object]:
    limits = {"daily": policy.daily_limit_micro, "monthly": policy.monthly_limit_micro}
    stated = {f"{name}_limit_micro_eur": amount for name, amount in limits.items() if amount is not None}
    return {"scope": policy.scope, "name": policy.name, **stated, "warn_threshold_pct": policy.warn_threshold_pct}


ROUTES = [
    Route("/api/v1/policies", policies, methods=["GET"]),
    Route("/api/v1/policies", put_policy, methods=["PUT"]),
    Route("/api/v1/policies", delete_policy, methods=["DELETE"]),
    Route("/api/v1/cost-policies/{scope}", cost_policy, methods=["GET", "PUT", "DELETE"]),
    Route("/api/v1/cost-policies/{scope}/{name:path}", cost_policy, methods=["GET", "PUT", "DELETE"]),
    Route("/api/v1/members", members, methods=["GET"]),
    Route("/api/v1/members/{kind}/{name:path}", member, methods=["PUT", "DELETE"]),
    Route("/api/v1/blocks", blocks, methods=["GET"]),
    Route("/api/v1/blocks/{kind}/{id:path}", block, methods=["PUT", "DELETE"]),
    Route("/api/v1/rate-limits", rate_limits, methods=["GET"]),
    Route("/api/v1/rate-limits/{kind}/{id:path}", rate_limit, methods=["PUT", "DELETE"]),
]
