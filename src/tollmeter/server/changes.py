"""Changes by the functions of the commands, beside the loop; what cannot be done is a problem document.

A change is answered when it is on the log and was read back; the server that made it knows it then, others a moment
later.
"""

from collections.abc import Callable
from typing import TypeVar

from starlette.requests import Request

from tollmeter.admin.registry import UnknownEntryError
from tollmeter.admin.secret import SecretError
from tollmeter.broker.policies import PolicyError
from tollmeter.broker.registry import RegistryError
from tollmeter.server.asking import parts_of
from tollmeter.server.problems import Problem
from tollmeter.settings import Settings
from tollmeter.streams.notify.commands import JournalError

_Value = TypeVar("_Value")


async def change(request: Request, work: Callable[[Settings], _Value], *, changes: bool = True) -> _Value:
    """Return what the work gives. Raises `Problem` 404 for an unknown entry, 409 for what cannot be, 503."""
    parts = parts_of(request)
    try:
        done = await parts.ledger.run(lambda: work(parts.line))
    except UnknownEntryError as error:
        raise Problem(404, "unknown", str(error)) from None
    except (RegistryError, PolicyError, JournalError, SecretError) as error:
        if parts.writer.problem:
            text = "Kafka does not answer now: try again"
            raise Problem(503, "broker_away", text, headers={"retry-after": "5"}) from None
        raise Problem(409, "refused", str(error)) from None
    if changes:
        await parts.registry.catch_up()
    return done
