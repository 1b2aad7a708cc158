"""How doors that speak plain JSON answer: about one call by its status, about many by a list of those not taken."""

import msgspec

from tollmeter.server.door import Answer, Durable, Outcome, Posted, Result
from tollmeter.server.ingest import Entry, listed
from tollmeter.server.json_answer import json_bytes
from tollmeter.server.problems import Headers, Problem

JSON: Headers = [(b"content-type", b"application/json")]
_OF_TAKEN = ("durable", "request_id")


class Stored(msgspec.Struct, tag_field="status", tag="stored"):
    """One call was taken; `durable` says where it is."""

    event_id: str
    request_id: str
    durable: Durable


class Repeated(msgspec.Struct, tag_field="status", tag="duplicate"):
    """One call was taken before."""

    event_id: str
    request_id: str


class Many(msgspec.Struct, kw_only=True):
    """Several calls, some of which were taken; `results` has those that were not, or all with `?results=all`."""

    accepted: int
    duplicates: int
    rejected: int
    ignored: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    durable: Durable | msgspec.UnsetType = msgspec.UNSET
    results: list[Entry]
    request_id: str


ANSWERS = {200: Repeated, 201: Stored, 202: Many}


def answer(posted: Posted, outcome: Outcome) -> Answer:
    """Return 201, 200 or a problem for a single call; 202 for several, with what was not taken and why.

    Of several none of which could be taken the answer is a problem with the same list.
    """
    return _about_one(outcome) if outcome.single else about_many(posted, outcome)


def _about_one(outcome: Outcome) -> Answer:
    [result] = outcome.results
    if result.fate == "rejected":
        raise as_problem(result)
    if result.fate == "accepted":
        return Answer(201, JSON, json_bytes(Stored(result.event_id, outcome.request_id, outcome.durable)))
    return Answer(200, JSON, json_bytes(Repeated(result.event_id, outcome.request_id)))


def about_many(posted: Posted, outcome: Outcome) -> Answer:
    """Return 202 with the counts and the entries that were not taken. Raises `Problem` 400 if none was."""
    many = Many(
        accepted=outcome.count("accepted"),
        duplicates=outcome.count("duplicate"),
        rejected=outcome.count("rejected"),
        ignored=dict(outcome.ignored) or msgspec.UNSET,
        durable=outcome.durable or msgspec.UNSET,
        results=listed(outcome.results, posted.query),
        request_id=outcome.request_id,
    )
    if outcome.results and many.rejected == len(outcome.results):
        first = outcome.results[0]
        text = f"none of {len(outcome.results)} calls could be taken; the first: {first.detail}"
        told = msgspec.to_builtins(many)
        raise Problem(400, "all_rejected", text, more={name: told[name] for name in told if name not in _OF_TAKEN})
    return Answer(202, JSON, json_bytes(many))


def as_problem(result: Result) -> Problem:
    """Return the problem that a rejected call is."""
    more = {"event_id": result.event_id} if result.event_id else {}
    where = f"{result.place}: " if result.place else ""
    return Problem(result.status, result.code, where + result.detail, more=more)


def partly(posted: Posted, outcome: Outcome) -> Problem:
    """Return the problem for senders that look at the status alone: some calls were taken, some were not."""
    rejected = [result for result in outcome.results if result.fate == "rejected"]
    text = f"{len(rejected)} of {len(outcome.results)} calls were not taken, the others were; the first: "
    more: dict[str, object] = {
        "accepted": outcome.count("accepted"),
        "duplicates": outcome.count("duplicate"),
        "rejected": len(rejected),
        "results": msgspec.to_builtins(listed(outcome.results, posted.query)),
    }
    return Problem(400, "partly_rejected", text + rejected[0].detail, more=more)
