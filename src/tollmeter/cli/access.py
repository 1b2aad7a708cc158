"""`tollmeter block`, `unblock` and `ratelimit`: who may not call, and how often the others may. Guards obey at once."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import click
from pydantic import ValidationError

from tollmeter.admin import access
from tollmeter.broker.policies import PolicyError, unread
from tollmeter.cli.groups import Group
from tollmeter.cli.ledger import reading
from tollmeter.cli.output import UserError, err, json_option, out, print_json, print_table
from tollmeter.cli.policy_options import tell_unreadable
from tollmeter.schemas.access import EVERYONE, Block, RateLimit
from tollmeter.schemas.addresses import HASHED, address_or_network, comparable, network_of, width
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.queries import load

SCOPES = {"key": "api_key", "ip": "client_ip", "user": "user"}
_DURATION = re.compile(r"(\d{1,5})\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

_SHORT = re.compile(r"^(?:…|\.\.\.)")
REASON = "blocked by an operator"

_org = click.option("--org", default=EVERYONE, show_default=True, help="Organisation; * = all of them.")
_what = click.argument("what", type=click.Choice(list(SCOPES)))
_id = click.argument("id_")
_for = click.option("--for", "for_", metavar="TIME", help="Until so much later: 30m, 2h, 7d. Without: until undone.")

_Shape = TypeVar("_Shape")
_Answer = TypeVar("_Answer")


@click.group(cls=Group)
def block() -> None:
    """Refuse every call of a key, an address or a user."""


def _block_command(what: str) -> None:
    @block.command(what, help=f"Refuse every call of {'an' if what == 'ip' else 'a'} {what}.")
    @_id
    @_org
    @click.option("--reason", default=REASON, show_default=True, help="Shown to the caller.")
    @_for
    @json_option
    @click.pass_obj
    def command(settings: Settings, id_: str, org: str, reason: str, for_: str | None, as_json: bool) -> None:
        org_id, name = _resolve(settings, SCOPES[what], id_, org)
        name = _normal(what, name)
        made = _made(Block, org_id=org_id, scope=SCOPES[what], name=name, reason=reason, until=_until(for_))
        _do(lambda: access.put(settings, made))
        if as_json:
            print_json(made.model_dump(mode="json"))
        else:
            out.print(f"{what} {name} is blocked {_when(made.until)} ({_whose(org_id)})")
        if what != "ip":
            _tell_unseen(settings, what, name, org_id)


def _tell_unseen(settings: Settings, what: str, name: str, org: str) -> None:
    """Say when nobody ever called by this id: one letter less, and a leaked key goes on while its block looks well."""
    asked = {"scope": SCOPES[what], "org": org, "suffix": name}
    try:
        with reading(settings) as client:
            seen = any(row["name"] == name for row in client.query(load("known_callers"), asked))
    except UserError:
        return  # the block holds, and whether it is somebody's is not known now
    if not seen:
        err.print(f"no call of this {what} is stored: is the id whole? 'tollmeter report spend --by {what}' lists them")


for _name in SCOPES:
    _block_command(_name)


@block.command("list")
@json_option
@click.pass_obj
def list_(settings: Settings, as_json: bool) -> None:
    """List who is blocked."""
    now = datetime.now(UTC)
    found = [row for row in _do(lambda: access.blocks(settings)) if row.until is None or row.until > now]
    tell_unreadable(_do(lambda: unread(settings)))
    rows: list[dict[str, Any]] = [row.model_dump(mode="json") for row in found]
    if as_json:
        print_json(rows)
    else:
        print_table("blocked", rows, ["org_id", "scope", "name", "reason", "until"])


@click.command()
@_what
@_id
@_org
@click.pass_obj
def unblock(settings: Settings, what: str, id_: str, org: str) -> None:
    """Let a key, an address or a user call again; one that is not blocked is no error."""
    ends = _SHORT.match(id_)
    blocked = [row for row in _do(lambda: access.blocks(settings)) if row.scope == SCOPES[what]]
    if ends is not None:
        candidates = [(row.org_id, row.name) for row in blocked if row.name.endswith(id_[ends.end() :])]
        org, name = _only([pair for pair in candidates if org in (EVERYONE, pair[0])], what, id_, "blocked")
    else:
        name = _normal(what, id_)
    gone = [row for row in blocked if (row.org_id, comparable(row.name)) == (org, comparable(name))]
    for row in gone:
        _do(partial(access.take_away, settings, row))
    said = "may call again" if gone else "was not blocked"
    out.print(f"{what} {name} {said} ({_whose(org)})")
    for row in blocked:
        if row not in gone and _covers(row, name):
            out.print(f"it is blocked still: {what} {row.name} is ({_whose(row.org_id)})")


def _covers(row: Block, name: str) -> bool:
    around = width(row.name)
    same = comparable(row.name) == comparable(name)
    return same or (around is not None and network_of(comparable(name), around) == row.name)


def _normal(what: str, name: str) -> str:
    """Return an address or a network in the form that guards compare; a hashed address is what events call it."""
    if what != "ip" or HASHED.fullmatch(name):
        return name
    try:
        return address_or_network(name)
    except ValueError:
        raise UserError(
            f"{name!r} is no address and no network: write it without a port, like 203.0.113.9, 2001:db8::7, 10.0.0.0/8"
        ) from None


@click.group(cls=Group)
def ratelimit() -> None:
    """How often a key or an address may call, for each guarded process by itself."""


_rate_what = click.argument("what", type=click.Choice(["key", "ip"]))
_rate_id = click.argument("id_", default=EVERYONE, metavar="[ID]")


@ratelimit.command("set")
@_rate_what
@_rate_id
@_org
@click.option("--requests", type=int, required=True, help="So many calls ...")
@click.option("--per", required=True, metavar="TIME", help="... in this time: 1s, 1m, 1h.")
@click.option("--burst", type=int, default=1, show_default=True, help="How many of them may come at once.")
@_for
@json_option
@click.pass_obj
def rate_set(
    settings: Settings,
    what: str,
    id_: str,
    org: str,
    requests: int,
    per: str,
    burst: int,
    for_: str | None,
    as_json: bool,
) -> None:
    """Limit one key or address, or (without ID) each of them by itself."""
    name = id_ if id_ == EVERYONE else _normal(what, _resolve(settings, SCOPES[what], id_, org)[1])
    if what == "ip" and not access.can_be_rated(settings, name):
        raise UserError(access.not_rated(settings, name))
    made = _made(
        RateLimit,
        org_id=org,
        scope=SCOPES[what],
        name=name,
        requests=requests,
        burst=burst,
        window_s=_seconds("--per", per),
        until=_until(for_),
    )
    _do(lambda: access.put(settings, made))
    if as_json:
        print_json(made.model_dump(mode="json"))
    else:
        whom = f"each {what}" if name == EVERYONE else f"{what} {name}"
        text = f"{whom} may make {requests} calls in {per}, {burst} at once, through each process {_when(made.until)}"
        out.print(f"{text} ({_whose(org)})")


@ratelimit.command("list")
@json_option
@click.pass_obj
def rate_list(settings: Settings, as_json: bool) -> None:
    """List the rate limits in force."""
    now = datetime.now(UTC)
    found = [row for row in _do(lambda: access.rate_limits(settings)) if row.until is None or row.until > now]
    tell_unreadable(_do(lambda: unread(settings)))
    rows: list[dict[str, Any]] = [row.model_dump(mode="json") for row in found]
    if as_json:
        print_json(rows)
    else:
        print_table("rate limits", rows, ["org_id", "scope", "name", "requests", "window_s", "burst", "until"])


@ratelimit.command("delete")
@_rate_what
@_rate_id
@_org
@click.pass_obj
def rate_delete(settings: Settings, what: str, id_: str, org: str) -> None:
    """End a rate limit; an absent one is no error."""
    name = id_ if id_ == EVERYONE else _normal(what, id_)
    limits = [row for row in _do(lambda: access.rate_limits(settings)) if row.scope == SCOPES[what]]
    gone = [row for row in limits if (row.org_id, comparable(row.name)) == (org, name)]
    for row in gone:
        _do(partial(access.take_away, settings, row))
    said = f"the rate limit of {what} {name} is gone" if gone else f"{what} {name} had no rate limit"
    out.print(f"{said} ({_whose(org)})")


def _resolve(settings: Settings, scope: str, id_: str, org: str) -> tuple[str, str]:
    """Return organisation and full id; "…3f2a" stands for the one id seen in calls that ends so."""
    short = _SHORT.match(id_)
    if short is None:
        return org, id_
    ends = id_[short.end() :]
    if len(ends) < 4:
        raise UserError(f"{id_} is too short: give at least the last four characters")
    with reading(settings) as client:
        rows = client.query(load("known_callers"), {"scope": scope, "org": org, "suffix": ends})
    what = next(word for word, named in SCOPES.items() if named == scope)
    return _only([(row["org_id"], row["name"]) for row in rows], what, id_, "seen in calls")


def _only(found: list[tuple[str, str]], what: str, id_: str, where: str) -> tuple[str, str]:
    if not found:
        raise UserError(f"no {what} {where} ends so: {id_}; give it in full")
    if len(found) > 1:
        listed = ", ".join(f"{name} of {org}" for org, name in found[:5])
        more = ", ..." if len(found) > 5 else ""
        raise UserError(f"{id_} may be any of {len(found)}: {listed}{more}; give more of it, or --org")
    return found[0]


def _until(text: str | None) -> datetime | None:
    return None if text is None else datetime.now(UTC) + timedelta(seconds=_seconds("--for", text))


def _seconds(option: str, text: str) -> int:
    found = _DURATION.fullmatch(text.strip())
    if found is None or int(found[1]) == 0:
        raise UserError(f"{option} {text!r} is no time; write for example 30s, 10m, 2h or 7d")
    return int(found[1]) * _SECONDS[found[2]]


def _when(until: datetime | None) -> str:
    return "until further notice" if until is None else f"until {until:%Y-%m-%d %H:%M} UTC"


def _whose(org: str) -> str:
    return "all organisations" if org == EVERYONE else f"organisation {org}"


def _made(shape: type[_Shape], **fields: object) -> _Shape:
    try:
        return shape(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _do(action: Callable[[], _Answer]) -> _Answer:
    try:
        return action()
    except PolicyError as error:
        raise UserError(str(error)) from None
