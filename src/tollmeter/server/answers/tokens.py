"""Tracking tokens over HTTP: listed, made, switched off and on, deleted, by an organisation's admin key."""

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.admin import registry
from tollmeter.schemas.registry import TrackingToken
from tollmeter.server import bodies
from tollmeter.server.asking import caller_of, parts_of
from tollmeter.server.changes import change
from tollmeter.server.json_answer import JsonAnswer
from tollmeter.server.query import takes
from tollmeter.server.shapes import Model


class NewToken(BaseModel):
    """What a token is called."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=128)


class Switch(BaseModel):
    """Whether it is on."""

    model_config = ConfigDict(extra="forbid", strict=True)

    active: bool


_TOKEN = Model(TrackingToken, without=("org_id",))


@takes(gives={"tokens": [_TOKEN]})
async def listed(request: Request) -> Response:
    """List the organisation's tracking tokens, oldest first."""
    caller = caller_of(request, "admin")
    found = await change(request, lambda line: registry.tokens(line, caller.org_id), changes=False)
    return JsonAnswer({"tokens": [document(one) for one in found]})


@takes(body=NewToken, gives=_TOKEN, statuses=(201,))
async def create(request: Request) -> Response:
    """Make a tracking token."""
    caller = caller_of(request, "admin")
    wanted = await bodies.read(request, NewToken)
    length, now = parts_of(request).settings.tracking_token_length, datetime.now(UTC)
    made = await change(request, lambda line: registry.create_token(line, caller.org_id, wanted.name, now, length))
    return JsonAnswer(document(made), 201)


@takes(body=Switch, gives=_TOKEN)
async def switch(request: Request) -> Response:
    """Switch a token off or on."""
    caller, id_ = caller_of(request, "admin"), request.path_params["id"]
    wanted = await bodies.read(request, Switch)
    made = await change(request, lambda line: registry.switch_token(line, id_, wanted.active, caller.org_id))
    return JsonAnswer(document(made))


@takes(empty=("DELETE",))
async def delete(request: Request) -> Response:
    """Take a token away; the usage that it has named stays."""
    caller, id_ = caller_of(request, "admin"), request.path_params["id"]
    await change(request, lambda line: registry.delete_token(line, id_, caller.org_id))
    return Response(status_code=204)


def document(token: TrackingToken) -> dict[str, object]:
    """Return a token as it is shown."""
    return token.model_dump(mode="json", include={"id", "name", "value", "active", "created_at"})


ROUTES = [
    Route("/ingest/tokens", listed, methods=["GET"]),
    Route("/ingest/tokens", create, methods=["POST"]),
    Route("/ingest/tokens/{id}/active", switch, methods=["PATCH"]),
    Route("/ingest/tokens/{id}", delete, methods=["DELETE"]),
]
