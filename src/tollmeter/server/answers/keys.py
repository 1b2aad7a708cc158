"""Keys of the server and labels of provider keys, of the caller's organisation. A secret is in one answer alone."""

from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.admin import registry
from tollmeter.schemas.registry import KeyLabel, Role, ServerKey
from tollmeter.server import bodies
from tollmeter.server.answers.tokens import Switch
from tollmeter.server.asking import caller_of
from tollmeter.server.changes import change
from tollmeter.server.json_answer import JsonAnswer
from tollmeter.server.problems import Problem
from tollmeter.server.query import takes
from tollmeter.server.shapes import Model

_HIDDEN = ("digest", "earlier_digest", "secret_id")
_KEY, _SECRET = Model(ServerKey, _HIDDEN), Model(ServerKey, _HIDDEN, {"secret": str})
_LISTED, _NAMED = Model(ServerKey, _HIDDEN, {"used_at": str | None}), Model(KeyLabel, ("org_id",))


class NewKey(BaseModel):
    """What a key may do, and whose it is."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=128)
    role: Role
    may_set_identity: bool = False


class Overlap(BaseModel):
    """How long the old secret still works."""

    model_config = ConfigDict(extra="forbid", strict=True)

    overlap_s: int = Field(default=86_400, ge=0, le=31 * 86_400)


class Label(BaseModel):
    """What people call a key."""

    model_config = ConfigDict(extra="forbid", strict=True)

    label: str = Field(min_length=1, max_length=128)
    owner: str = Field(default="", max_length=256)
    cost_centre: str = Field(default="", max_length=128)


@takes(gives={"keys": [_LISTED]})
async def listed(request: Request) -> Response:
    """List the organisation's keys, and when each was last used, to about an hour."""
    caller = caller_of(request, "admin")
    found = await change(request, lambda line: registry.keys(line, caller.org_id), changes=False)
    rows = [{**_document(one.key), "used_at": one.used_at and one.used_at.isoformat()} for one in found]
    return JsonAnswer({"keys": rows})


@takes(body=NewKey, gives=_SECRET, statuses=(201,))
async def create(request: Request) -> Response:
    """Make a key; its secret is in this answer alone."""
    caller, now = caller_of(request, "admin"), datetime.now(UTC)
    wanted = await bodies.read(request, NewKey)
    identity = wanted.may_set_identity
    if identity and not caller.may_set_identity:
        raise Problem(403, "no_identity", "may_set_identity: your own key may not set it either")
    issued = await change(
        request,
        lambda line: registry.create_key(line, caller.org_id, wanted.role, wanted.name, now, may_set_identity=identity),
    )
    return JsonAnswer({**_document(issued.key), "secret": issued.secret}, 201)


@takes(body=Overlap, gives=_SECRET)
async def rotate(request: Request) -> Response:
    """Give a key a new secret, which is in this answer alone."""
    caller, id_, now = caller_of(request, "admin"), request.path_params["id"], datetime.now(UTC)
    overlap_s = (await bodies.read(request, Overlap)).overlap_s
    until = now + timedelta(seconds=overlap_s) if overlap_s else None
    issued = await change(request, lambda line: registry.rotate_key(line, id_, now, until, caller.org_id))
    return JsonAnswer({**_document(issued.key), "secret": issued.secret})


@takes(body=Switch, gives=_KEY)
async def switch(request: Request) -> Response:
    """Switch a key off or on."""
    caller, id_ = caller_of(request, "admin"), request.path_params["id"]
    active = (await bodies.read(request, Switch)).active
    return JsonAnswer(
        _document(await change(request, lambda line: registry.switch_key(line, id_, active, caller.org_id)))
    )


@takes(empty=("DELETE",))
async def delete(request: Request) -> Response:
    """Take a key away for good."""
    caller, id_ = caller_of(request, "admin"), request.path_params["id"]
    await change(request, lambda line: registry.delete_key(line, id_, caller.org_id))
    return Response(status_code=204)


@takes(gives={"labels": [_NAMED]})
async def labels(request: Request) -> Response:
    """List what the organisation calls its provider keys."""
    caller = caller_of(request, "admin")
    found = await change(request, lambda line: registry.labels(line, caller.org_id), changes=False)
    return JsonAnswer({"labels": [_label(one) for one in found]})


@takes(body=Label, gives=_NAMED, empty=("DELETE",))
async def label(request: Request) -> Response:
    """Give a provider key a label, or take it away."""
    caller, id_ = caller_of(request, "admin"), request.path_params["id"]
    if request.method == "DELETE":
        await change(request, lambda line: registry.unlabel_key(line, caller.org_id, id_))
        return Response(status_code=204)
    wanted = await bodies.read(request, Label)
    (made,) = await change(request, lambda line: registry.label_keys(line, caller.org_id, [id_], **wanted.model_dump()))
    return JsonAnswer(_label(made))


def _document(key: ServerKey) -> dict[str, object]:
    return key.model_dump(mode="json", exclude=set(_HIDDEN))


def _label(label: KeyLabel) -> dict[str, object]:
    return label.model_dump(mode="json", exclude={"org_id"})


ROUTES = [
    Route("/api/v1/server-keys", listed, methods=["GET"]),
    Route("/api/v1/server-keys", create, methods=["POST"]),
    Route("/api/v1/server-keys/{id}/rotate", rotate, methods=["POST"]),
    Route("/api/v1/server-keys/{id}/active", switch, methods=["PATCH"]),
    Route("/api/v1/server-keys/{id}", delete, methods=["DELETE"]),
    Route("/api/v1/key-labels", labels, methods=["GET"]),
    Route("/api/v1/key-labels/{id:path}", label, methods=["PUT", "DELETE"]),
]
