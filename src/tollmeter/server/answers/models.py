"""Which models the caller's organisation allows its keys, users and groups, by the functions of the commands."""

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.admin import model_rules as rules
from tollmeter.schemas.model_rules import ANY, MODEL_SCOPES, ModelRule
from tollmeter.server import bodies
from tollmeter.server.asking import caller_of
from tollmeter.server.changes import change
from tollmeter.server.json_answer import JsonAnswer
from tollmeter.server.problems import Problem
from tollmeter.server.query import takes
from tollmeter.server.shapes import Model
from tollmeter.settings import Settings

_SHORT = {"key": "api_key"}
_RULE = Model(ModelRule, more={"rule": str})
_SET = Model(ModelRule, more={"rule": str, "meant": dict[str, str], "unknown": list[str]})


class Allowed(BaseModel):
    """Names of models, and the one that is called in place of others."""

    model_config = ConfigDict(extra="forbid", strict=True)

    allowed: list[str]
    downgrade_to: str = ""


@takes(gives={"allowed_models": [_RULE]})
async def listed(request: Request) -> Response:
    """List which models the organisation allows whom."""
    caller = caller_of(request, "admin")
    found = await change(request, lambda line: rules.model_rules(line, caller.org_id), changes=False)
    return JsonAnswer({"allowed_models": [rules.shown(rule) for rule in found]})


@takes(body=Allowed, gives=_SET, empty=("DELETE",))
async def one(request: Request) -> Response:
    """Say which models a key, user, group or the organisation may use, or allow every one again."""
    caller = caller_of(request, "admin")
    scope, name = request.path_params["scope"], request.path_params.get("name", "")
    scope = _SHORT.get(scope, scope)
    if scope not in MODEL_SCOPES or (scope == "org") == bool(name):
        raise Problem(404, "not_found", "choose from org, group/NAME, user/NAME, key/ID")
    who = {"org_id": caller.org_id, "scope": scope, "name": name}
    if request.method == "DELETE":
        gone = bodies.made(ModelRule, {**who, "allowed": [ANY]})
        await change(request, lambda line: rules.take_away(line, gone))
        return Response(status_code=204)
    given = await bodies.read(request, Allowed)
    made = bodies.made(ModelRule, {**who, **given.model_dump()})

    def put(line: Settings) -> rules.Resolved:
        found = rules.resolved(line, made, given.allowed)
        rules.put(line, found.rule)
        return found

    return JsonAnswer((await change(request, put)).document)


ROUTES = [
    Route("/api/v1/allowed-models", listed, methods=["GET"]),
    Route("/api/v1/allowed-models/{scope}", one, methods=["PUT", "DELETE"]),
    Route("/api/v1/allowed-models/{scope}/{name:path}", one, methods=["PUT", "DELETE"]),
]
