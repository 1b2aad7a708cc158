"""The page Health: how far behind each part is, what was set aside, how old prices are; each part says so for itself.

What does not answer is not known, never fine. The page needs neither Kafka nor ClickHouse.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.admin.reports.rows import Row
from tollmeter.server.asking import parts_of
from tollmeter.server.pages.line import line_of
from tollmeter.server.pages.session import Session
from tollmeter.server.pages.site import BEHIND_S, KEYS, LATE_S, age, page, reader
from tollmeter.server.parts import Parts
from tollmeter.server.problems import Problem

if TYPE_CHECKING:
    from tollmeter.admin.line_health import LineHealth, PublishedBook

PATH = "/dashboard/health"
Kind = Literal["fresh", "late", "behind", "unknown"]
ORDER: tuple[Kind, ...] = ("behind", "unknown", "late", "fresh")
"""The worst first."""
_LEDGER_S = 3.0
_NOT_KNOWN = "not known"


class Check(NamedTuple):
    """One line of the page: what it is about, how it stands, and what to do or to know."""

    name: str
    kind: Kind
    words: str
    more: str = ""


async def health(request: Request) -> Response:
    """Show how the line is; `?part=live` is the table alone, for what keeps it up to date."""
    session = await reader(request, KEYS)
    if isinstance(session, Response):
        return session
    parts, line = parts_of(request), line_of(request)
    asked = line.health.get(), line.published.get(), _ledger(parts, session)
    log, published, ledger = await asyncio.gather(*asked, return_exceptions=True)
    now = datetime.now(UTC)
    checks = [
        *of_log(None if isinstance(log, BaseException) else log, _reason(log)),
        *of_ledger(ledger if isinstance(ledger, dict) else None, now, parts.line.verify_every_s),
        *of_server(parts),
        *of_prices(None if isinstance(published, BaseException) else published, _reason(published), parts, now),
    ]
    worst = min((one.kind for one in checks), key=ORDER.index)
    name = "health_live.html" if request.query_params.get("part") == "live" else "health.html"
    return page(request, name, session, checks=checks, worst=worst)


def of_log(found: "LineHealth | None", reason: str) -> list[Check]:
    """Say how far the stages are behind, and what lies with the dead letters."""
    if found is None:
        return [Check(name, "unknown", _NOT_KNOWN, reason) for name in ("PRICE", "LEDGER", "WATCH", "Dead letters")]
    checks = []
    for stage, (records, oldest_s) in found.behind.items():
        words = "nothing waits" if not records else f"{records:,} records wait"
        if records:
            words += "" if oldest_s is None else f", the oldest for {oldest_s:.0f} s"
        kind: Kind = "fresh" if not records else "unknown" if oldest_s is None else _kind(oldest_s)
        more = "" if kind == "fresh" else f"is `tollmeter worker {stage}` running, and what does its log say?"
        checks.append(Check(stage.upper(), kind, words, more))
    letters = found.letters
    if letters.states is None or letters.reasons is None:
        return [*checks, Check("Dead letters", "late", f"{letters.records:,} records", "tollmeter dlq list")]
    waiting = sum(letters.states.values()) - letters.states.get("retried", 0)
    told = ", ".join(f"{count:,} {reason}" for reason, count in sorted(letters.reasons.items()))
    words = f"{waiting:,} not mended" if waiting else "none" if not told else "all tried again"
    return [
        *checks,
        Check("Dead letters", "late" if waiting else "fresh", words, told and f"{told}; tollmeter dlq list"),
    ]


def of_ledger(found: dict[str, Any] | None, now: datetime, every_s: float = 3_600.0) -> list[Check]:
    """Say how new the ledger is, what is missing, and what the line says of itself."""
    if found is None:
        away = "ClickHouse does not answer: calls are kept in Kafka meanwhile, and limits hold"
        return [Check(name, "unknown", _NOT_KNOWN, away) for name in ("Newest call", "Gaps", "Verify")]
    at, lost, differ = found["as_of"], found["gaps"], found["alerts"]
    newest = age(None if at is None else max(0.0, (now - at).total_seconds()))
    calls = Check("Newest call", "fresh", newest["words"], "of the organisation in the ledger; nobody may have called")
    gaps = Check("Gaps", "behind" if lost else "fresh", f"{lost:,}", "tollmeter verify" if lost else "")
    return [calls, gaps, _verified(found["runs"], differ, now, every_s)]


def _verified(runs: dict[str, datetime], differ: Sequence[Row], now: datetime, every_s: float) -> Check:
    """Say when the line last checked itself against its log, and what it found."""
    ran, clean = runs.get("verify"), runs.get("verify_clean")
    words = "" if ran is None else age(max(0.0, (now - ran).total_seconds()))["words"]
    when = f"last run {words}" if ran else "it has not run yet"
    if differ:
        text = ", ".join(sorted({one["kind"] for one in differ})) + ": tollmeter verify, and the runbook"
        return Check("Verify", "behind", f"{len(differ)} open", f"{text}; {when}")
    if ran is None:
        todo = "tollmeter verify --alert" if not every_s else "LEDGER runs it by itself (TOLLMETER_VERIFY_EVERY_S)"
        return Check("Verify", "late", "has not run yet", todo)
    if clean is None or clean < ran:
        return Check(
            "Verify", "late", f"differences, {words}", "its alerts are closed: tollmeter verify says what is left"
        )
    overdue = every_s > 0 and (now - ran).total_seconds() > 3 * every_s
    todo = "is `tollmeter worker ledger` running, and what does its log say of verify?" if overdue else ""
    return Check("Verify", "late" if overdue else "fresh", f"no difference, {words}", todo)


def of_server(parts: Parts) -> list[Check]:
    """Say whether this server can write, what it keeps on disk, and which ids came with two contents."""
    writer, counters = parts.writer, parts.counters
    kind: Kind = "behind" if writer.refuses else "late" if writer.problem or writer.spooled else "fresh"
    words = "refuses calls" if writer.refuses else f"{writer.spooled:,} events wait on disk"
    spool = Check("Spool of this server", kind, words, writer.refuses or writer.problem)
    clashes = sum(count for (_, code), count in counters.rejected.items() if code == "conflict")
    more = "the same id with other content, refused since this server started" if clashes else ""
    conflicts = Check("Conflicts", "late" if clashes else "fresh", f"{clashes:,}", more)
    keys = parts.registry.problem
    registry = Check("Keys of the registry", "late" if keys else "fresh", "as they were" if keys else "heard of", keys)
    return [spool, conflicts, registry]


def of_prices(found: "PublishedBook | None", reason: str, parts: Parts, now: datetime) -> list[Check]:
    """Say how old the price book and the rates of exchange are, as PRICE has published them."""
    if found is None:
        return [Check("Price book", "unknown", _NOT_KNOWN, reason or "PRICE has published none yet: is it running?")]
    days = (now - found.at).days
    book = Check("Price book", "late" if days > 30 else "fresh", found.id, f"published {found.at:%Y-%m-%d %H:%M UTC}")
    return [book, *(_rate(name, day, now.date(), parts.line.fx_max_age_days) for name, day in found.rates.items())]


def _rate(name: str, day: date | None, today: date, most_days: int) -> Check:
    if day is not None and (today - day).days <= most_days:
        return Check(f"{name} for USD", "fresh", f"of {day}")
    said = "no rate" if day is None else f"of {day}, {(today - day).days} days old"
    return Check(f"{name} for USD", "behind", said, f"amounts in {name} are not known: tollmeter prices fx update")


def _kind(seconds: float) -> Kind:
    return "fresh" if seconds < LATE_S else "late" if seconds < BEHIND_S else "behind"


def _reason(found: object) -> str:
    """Return why there is no answer. Raises what is no answer of the line but a mistake of ours."""
    from tollmeter.admin.verify.position import LogUnreadableError

    if isinstance(found, TimeoutError):
        return "Kafka does not answer in time"
    if isinstance(found, LogUnreadableError):
        return str(found)
    if isinstance(found, BaseException):
        raise found
    return ""


async def _ledger(parts: Parts, session: Session) -> dict[str, Any] | None:
    """Return what the ledger says of itself; None while it does not answer. Alerts are those that this reader sees."""
    ledger, orgs = parts.ledger, session.orgs(parts.line.org)
    try:
        async with asyncio.timeout(_LEDGER_S):
            [newest] = await ledger.ask_sometimes(5.0, "freshness", orgs=orgs, days=2)
            [gaps] = await ledger.ask_sometimes(5.0, "gap_count")
            alerts = await ledger.ask_sometimes(5.0, "line_alerts", orgs=[*orgs, ""] if orgs else [])
            runs = {row["name"]: row["at"] for row in await ledger.ask_sometimes(5.0, "verify_runs")}
    except (Problem, TimeoutError):
        return None
    return {"as_of": newest["as_of"], "gaps": gaps["gaps"], "alerts": alerts, "runs": runs}


ROUTES = [Route(PATH, health)]
