"""Bills from providers' usage and cost interfaces: every page, patiently; the key goes to its provider alone."""

import json
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from http.client import HTTPException
from typing import Any, NamedTuple

from tollmeter.admin.bills.pages import Document, midnight
from tollmeter.streams.rules.bills.lines import BillError

TRIES = 6
FIRST_S, LONGEST_S = 1.0, 60.0
TIMEOUT_S = 60.0
MOST_PAGES, MOST_BYTES = 1_000, 64 << 20
Query = list[tuple[str, str]]


class Report(NamedTuple):
    """One report of a provider: its path, and what is asked besides the span."""

    path: str
    query: Query


@dataclass(frozen=True)
class Source:
    """How a provider is asked: where, with which key, in which words."""

    address: str
    key_variable: str
    reports: tuple[Report, ...]
    header: Callable[[str], Mapping[str, str]]
    span: Callable[[date, date], Query]


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _unix(since: date, until: date) -> Query:
    return [(name, str(int(midnight(day).timestamp()))) for name, day in (("start_time", since), ("end_time", until))]


def _iso(since: date, until: date) -> Query:
    return [("starting_at", f"{since}T00:00:00Z"), ("ending_at", f"{until}T00:00:00Z")]


def _daily(*groups: str) -> Query:
    return [("bucket_width", "1d"), ("limit", "31"), *(("group_by[]", by) for by in groups)]


SOURCES = {
    "openai": Source(
        "https://api.openai.com",
        "OPENAI_ADMIN_KEY",
        (
            Report(
                "/v1/organization/usage/completions",
                _daily("project_id", "api_key_id", "model"),
            ),
            Report(
                "/v1/organization/costs",
                _daily("project_id", "api_key_id", "line_item"),
            ),
        ),
        _bearer,
        _unix,
    ),
    "anthropic": Source(
        "https://api.anthropic.com",
        "ANTHROPIC_ADMIN_KEY",
        (
            Report(
                "/v1/organizations/usage_report/messages",
                _daily("workspace_id", "api_key_id", "model"),
            ),
            Report(
                "/v1/organizations/cost_report",
                _daily("workspace_id", "description"),
            ),
        ),
        lambda key: {"x-api-key": key, "anthropic-version": "2023-06-01"},
        _iso,
    ),
    "openrouter": Source(
        "https://openrouter.ai",
        "OPENROUTER_MANAGEMENT_KEY",
        (Report("/api/v1/activity", []),),
        _bearer,
        lambda since, until: [],
    ),
}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A key is for its provider alone: whoever sends us elsewhere is told no."""

    def redirect_request(self, *_: object) -> None:
        return None


def fetch(
    source: Source, key: str, since: date, until: date, address: str = "", sleep: Callable[[float], None] = time.sleep
) -> Iterator[list[Document]]:
    """Yield the pages of each report of [since, until), whole days of UTC. Raises `BillError`."""
    for report in source.reports:
        yield _pages(source, report, key, [*source.span(since, until), *report.query], address, sleep)


def _pages(
    source: Source, report: Report, key: str, query: Query, address: str, sleep: Callable[[float], None]
) -> list[Document]:
    where = (address or source.address).rstrip("/") + report.path
    pages: list[Document] = []
    token = ""
    while len(pages) < MOST_PAGES:
        asked = [*query, *([("page", token)] if token else [])]
        page = _ask(f"{where}?{urllib.parse.urlencode(asked)}" if asked else where, where, source.header(key), sleep)
        pages.append((f"{where}, page {len(pages) + 1}", page))
        if not (isinstance(page, dict) and page.get("has_more")):
            return pages
        following = page.get("next_page")
        if not following or str(following) == token:
            raise BillError(f"{where}: page {len(pages)} says that more follow and does not say where")
        token = str(following)
    raise BillError(f"{where}: more than {MOST_PAGES} pages: ask for a shorter span")


def _ask(url: str, where: str, headers: Mapping[str, str], sleep: Callable[[float], None]) -> object:
    """Return the JSON of an answer; 429, 5xx and a lost connection are tried again. Raises `BillError`."""
    opener = urllib.request.build_opener(_NoRedirect)
    wait, why = FIRST_S, ""
    for number in range(TRIES):
        try:
            with opener.open(urllib.request.Request(url, headers=dict(headers)), timeout=TIMEOUT_S) as answer:  # noqa: S310
                return _json(where, answer.read(MOST_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                why = f"{error.code} {_reason(error.read(10_000))}".strip()
            if error.code != 429 and error.code < 500:
                raise BillError(f"{where} answers {why}{_hint(error.code)}") from None
            stated = error.headers.get("Retry-After", "")
            wait = min(float(stated), LONGEST_S) if stated.isdecimal() else wait
        except (OSError, HTTPException) as error:
            why = f"nothing: {getattr(error, 'reason', None) or error or type(error).__name__}"
        if number + 1 < TRIES:
            sleep(wait * random.uniform(1.0, 1.25))
            wait = min(wait * 2, LONGEST_S)
    raise BillError(f"{where} answers {why}, {TRIES} times: try again later")


def _json(where: str, body: bytes) -> object:
    if len(body) >= MOST_BYTES:
        raise BillError(f"{where}: a page of more than {MOST_BYTES >> 20} MB")
    try:
        found: object = json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise BillError(f"{where}: an answer that is no JSON, or breaks off") from None
    return found


def _reason(body: bytes) -> str:
    """Return what an error answer says, in one short line."""
    try:
        document: Any = json.loads(body)
        error = document["error"]
        text = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return " ".join(str(text).split())[:200]


def _hint(code: int) -> str:
    if code in (401, 403):
        return ": an admin (or management) key is needed, not one for calls"
    return ": redirects are not followed" if 300 <= code < 400 else ""
