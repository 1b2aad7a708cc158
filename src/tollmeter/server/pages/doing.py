"""What a page may change: for whoever signed in as admin, through a form of ours; a reason where it cannot be done."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from tollmeter.broker.policies import PolicyError
from tollmeter.broker.registry import RegistryError
from tollmeter.server.pages.session import Session, posted, session_of
from tollmeter.server.pages.site import HEADERS
from tollmeter.server.problems import Problem
from tollmeter.streams.notify.commands import JournalError

_Value = TypeVar("_Value")


async def admin_form(request: Request) -> tuple[Session, dict[str, str]]:
    """Return who asks for a change, and the fields of his form. Raises `Problem` 401 or 403."""
    session = session_of(request)
    if session.role != "admin":
        raise Problem(403, "wrong_role", "a reader changes nothing: sign in with an admin key")
    return session, await posted(request)


async def done(work: Callable[[], _Value]) -> _Value:
    """Do it in a thread, since it waits for the log. Raises `Problem` with the reason why it was not done."""
    try:
        return await asyncio.to_thread(work)
    except (PolicyError, RegistryError, JournalError) as error:
        raise Problem(409, "not_done", str(error)) from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise Problem(400, "bad_field", f"{first['loc'][0] if first['loc'] else 'form'}: {first['msg']}") from None


def back(path: str) -> Response:
    """Lead back to the page, so that loading it again changes nothing."""
    return RedirectResponse(path, 303, HEADERS)
