"""What a page may change: for whoever signed in as admin, through a form of ours; a reason where it cannot be done."""

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeVar

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from tollmeter.admin.registry import UnknownEntryError
from tollmeter.admin.secret import SecretError
from tollmeter.broker.policies import PolicyError
from tollmeter.broker.registry import RegistryError
from tollmeter.server.pages.session import Session, posted, session_of
from tollmeter.server.pages.site import HEADERS
from tollmeter.server.problems import Problem
from tollmeter.streams.notify.commands import JournalError

_Value = TypeVar("_Value")


async def admin_form(request: Request) -> tuple[Session, dict[str, str]]:
    """Return who asks for a change, and the fields of his form. Raises `Problem` 401 or 403."""
    session = await session_of(request)
    if session.role != "admin":
        raise Problem(403, "wrong_role", "whoever only reads changes nothing: sign in with an admin key")
    return session, await posted(request)


def by_whom(session: Session, fields: Mapping[str, str]) -> str:
    """Return who does it: the name that the form gives, beside the key that lets him."""
    key, name = session.key_id or "dashboard", fields.get("by", "").strip()[:100]
    return f"{name} (key {key})" if name and session.key_id else name or key


def choice(fields: Mapping[str, str], name: str, choices: Mapping[str, str], otherwise: str) -> str:
    """Return what was chosen in a form. Raises `Problem` 400 for anything else."""
    value = fields.get(name, otherwise)
    if value not in choices:
        raise Problem(400, name, f"{name}: choose from {', '.join(one or 'none' for one in choices)}")
    return value


async def done(work: Callable[[], _Value]) -> _Value:
    """Do it in a thread, since it waits for the log. Raises `Problem` with the reason why it was not done."""
    try:
        return await asyncio.to_thread(work)
    except UnknownEntryError as error:
        raise Problem(404, "unknown", str(error)) from None
    except (PolicyError, RegistryError, JournalError, SecretError) as error:
        raise Problem(409, "not_done", str(error)) from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise Problem(400, "bad_field", f"{first['loc'][0] if first['loc'] else 'form'}: {first['msg']}") from None


def back(path: str) -> Response:
    """Lead back to the page, so that loading it again changes nothing."""
    return RedirectResponse(path, 303, HEADERS)
