"""How doors that speak plain JSON answer: about one call by its status, about many by a list of those not taken."""

from tollmeter.server.door import Answer, Outcome, Posted, Result
from tollmeter.server.ingest import listed
from tollmeter.server.json_answer import json_bytes
from tollmeter.server.problems import Headers, Problem

JSON: Headers = [(b"content-type", b"application/json")]


def answer(posted: Posted, outcome: Outcome) -> Answer:
    """Return 201, 200 or a problem for a single call; 202 for several, with what was not taken and why.

    Of several none of which could be taken the answer is a problem with the same list.
    """
    return _about_one(outcome) if outcome.single else about_many(posted, outcome)


def _about_one(outcome: Outcome) -> Answer:
    [result] = outcome.results
    if result.fate == "rejected":
        raise as_problem(result)
    stored = result.fate == "accepted"
    document: dict[str, object] = {
        "status": "stored" if stored else "duplicate",
        "event_id": result.event_id,
        "request_id": outcome.request_id,
    }
    if stored:
        document["durable"] = outcome.durable
    return Answer(201 if stored else 200, JSON, json_bytes(document))


def about_many(posted: Posted, outcome: Outcome) -> Answer:
    """Return 202 with the counts and the entries that were not taken. Raises `Problem` 400 if none was."""
    counts: dict[str, object] = {
        "accepted": outcome.count("accepted"),
        "duplicates": outcome.count("duplicate"),
        "rejected": outcome.count("rejected"),
    }
    if outcome.ignored:
        counts["ignored"] = dict(outcome.ignored)
    results = listed(outcome.results, posted.query)
    if outcome.results and counts["rejected"] == len(outcome.results):
        first = outcome.results[0]
        text = f"none of {len(outcome.results)} calls could be taken; the first: {first.detail}"
        raise Problem(400, "all_rejected", text, more={**counts, "results": results})
    if outcome.durable:
        counts["durable"] = outcome.durable
    return Answer(202, JSON, json_bytes({**counts, "results": results, "request_id": outcome.request_id}))


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
        "results": listed(outcome.results, posted.query),
    }
    return Problem(400, "partly_rejected", text + rejected[0].detail, more=more)
