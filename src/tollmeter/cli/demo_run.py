"""What `tollmeter demo` does: start a stack, play traffic, wait for the ledger and the alerts, verify, stop."""

import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tollmeter.admin.replay.told import Found, Telling
from tollmeter.admin.verify.alerts import Raised, percentile, read_alerts
from tollmeter.admin.verify.position import LogUnreadableError, position
from tollmeter.admin.verify.verdict import Verdict
from tollmeter.broker.layout import ProvisionError
from tollmeter.broker.policies import PolicyError, set_policy
from tollmeter.cli import demo_report
from tollmeter.cli.generate import paced
from tollmeter.cli.ledger import reading
from tollmeter.cli.output import UserError, err, print_json
from tollmeter.cli.progress import bar
from tollmeter.cli.stack import detached, serves
from tollmeter.cli.verify import run as run_verify
from tollmeter.embedded import control, state
from tollmeter.embedded.jars import EmbeddedError
from tollmeter.embedded.stack import SERVER, STAGES, Stack
from tollmeter.embedded.state import AlreadyRunningError
from tollmeter.producers.imports.imports import Import, import_events
from tollmeter.producers.imports.publish import Acknowledged, NotSentError, publish, publish_timed
from tollmeter.producers.imports.readers import UnreadableError
from tollmeter.schemas.policy import Policy
from tollmeter.settings import Settings
from tollmeter.stacks import overlay
from tollmeter.streams.notify.incidents import ANOMALIES
from tollmeter.traffic import sample
from tollmeter.traffic.company import Company, company, org_names
from tollmeter.traffic.stream import Wire

SEED = 1
PAST_S = 1_800
LIVE_RATE = 1_000
LIVE_EVENTS = 10_000
BLOCK = 50
POISON = 0.0003
WAIT_S = 90.0
POLL_S = 0.1
STILL_S = 2.0
NOW = "/dashboard/now"
"""The page that a newcomer looks at."""

USER_DAILY_MICRO = 8_000_000
ORG_MONTHLY_MICRO = 60_000_000
TRACE_MONTHLY_MICRO = 5_000_000


@dataclass
class Run:
    """What a demo did: how fast the half hour sent at once came into the ledger, the alerts, the verdict."""

    events_per_second: float = 0.0
    alerts: list[Raised] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)

    def incidents(self) -> list[Found]:
        """Return what notify makes of the alerts about what is unlike a key itself: each key once."""
        telling = Telling()
        telling.take(event for event, _ in self.alerts if event["data"]["kind"] in ANOMALIES)
        return telling.found()

    def document(self) -> dict[str, Any]:
        delay = percentile([delay for _, delay in self.alerts], 0.95)
        return {
            "records": self.verdict.records,
            "ledger": self.verdict.ledger,
            "resends": self.verdict.resends,
            "rejected": self.verdict.rejected,
            "cost_nano": self.verdict.cost_nano,
            "alerts": len(self.alerts),
            "incidents": [
                {"org_id": org, "scope": scope, "name": name, "kinds": list(one.kinds), "alerts": one.alerts}
                for one in self.incidents()
                for org, scope, name in (one.scope,)
            ],
            "alert_delay_p95_s": None if delay is None else round(delay, 3),
            "events_per_second": round(self.events_per_second),
        }


def play(settings: Settings, events: int, trace: str | None, *, keep: bool, as_json: bool) -> int:
    """Show everything once; return 1 when something differs. Raises `UserError` for what the user can mend."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = settings.model_copy(update={"kafka": "127.0.0.1:0", "clickhouse": "http://127.0.0.1:0"})
    try:
        with _kept(settings) if keep else _passing(settings, pages=serves() and not as_json) as (line, pages):
            if pages:
                _note(f"watch it in the browser: {pages}{NOW}")
            run = _trace(line, trace) if trace else _generated(line, events)
            run.verdict = run_verify(line, WAIT_S)
            run.alerts = _alerts(line)
            if not as_json:
                demo_report.show(line, run.alerts, run.incidents(), run.verdict)
    except (EmbeddedError, ProvisionError, AlreadyRunningError, PolicyError) as error:
        raise UserError(str(error)) from None
    except (NotSentError, UnreadableError, LogUnreadableError) as error:
        raise UserError(str(error)) from None
    document = run.document()
    if as_json:
        print_json(document)
    else:
        demo_report.sums(document, run.verdict)
        demo_report.pages(f"{pages}{NOW}" if pages else "", keep=keep)
    return 1 if run.verdict.differences else 0


@contextmanager
def _passing(settings: Settings, *, pages: bool) -> Iterator[tuple[Settings, str]]:
    """A stack in a folder of the demo alone, and the address of its server; both are gone afterwards."""
    folder = _folder(settings.data_dir)
    workers = (*STAGES, SERVER) if pages else STAGES
    try:
        with Stack(folder, workers=workers, settings=settings, note=_note) as stack:
            yield stack.settings, stack.health(SERVER) or ""
            _note("stopping the stack")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _kept(settings: Settings) -> Iterator[tuple[Settings, str]]:
    """A stack as `up --detach` starts it, which stays; what fails in between stops it, and keeps its data."""
    folder = _folder(settings.data_dir).absolute()
    running = detached(folder, {"kafka_port": 0, "clickhouse_port": 0})
    try:
        yield overlay(settings, {}, running), running.get("server") or ""
    except BaseException:
        control.down(folder)
        _note(f"stopped; its data is kept in {folder}")
        raise
    _note(f"it goes on: tollmeter status --data {folder}; stop it with tollmeter down --data {folder}")


def _folder(data_dir: Path) -> Path:
    state.prepare(data_dir)
    return Path(tempfile.mkdtemp(prefix="demo-", dir=data_dir))


def _generated(settings: Settings, events: int) -> Run:
    """Half an hour of the company in bulk, then the leaks live."""
    ours = company(SEED)
    _policies(settings, _of_company(ours))
    live = min(LIVE_EVENTS, events // 5)
    start_us = time.time_ns() // 1_000 - PAST_S * 1_000_000
    past = Wire(ours, events - live, start_us, PAST_S * 1_000_000, poison_share=POISON)
    run = Run()

    async def send(advance: Acknowledged) -> int:
        return await publish(settings, (values for _, values in past.blocks()), acknowledged=advance)

    run.events_per_second = _load(settings, "half an hour, at once", past.events, send)
    span_us = live * 1_000_000 // LIVE_RATE
    now = Wire(ours, live, time.time_ns() // 1_000, span_us, "both", poison_share=POISON, block=BLOCK)
    with bar(f"live, {LIVE_RATE:,} events/s, leaking", live) as progress:
        asyncio.run(publish_timed(settings, paced(now), acknowledged=progress.advance))
        progress.finish()
    return run


def _trace(settings: Settings, path: str) -> Run:
    """The events of a file, moved to now."""
    _policies(settings, [Policy(org_id=org, monthly_limit_micro=TRACE_MONTHLY_MICRO) for org in org_names(8)])
    now = datetime.now(UTC)
    job = Import(path, seed=SEED, shift_to=now, traces=sample)
    run = Run()

    async def send(advance: Acknowledged) -> int:
        return (await import_events(settings, job, now, acknowledged=advance)).sent

    run.events_per_second = _load(settings, "trace, moved to now", None, send)
    return run


def _load(
    settings: Settings, text: str, total: int | None, send: Callable[[Acknowledged], Coroutine[object, object, int]]
) -> float:
    """Send, wait until all of it is in the ledger, and return the events a second. `send` returns how many it sent."""
    begun = grown = time.monotonic()
    with bar(text, total) as progress:
        sent = asyncio.run(send(progress.advance))
        progress.finish()
    with bar("in the ledger", total or sent) as progress, reading(settings) as client:
        last = -1
        while time.monotonic() < begun + WAIT_S:
            count = int(client.query("SELECT count() AS rows FROM usage_events")[0]["rows"])
            progress.reach(count)
            if count > last:
                last, grown = count, time.monotonic()
            # With resends in the input fewer rows may come than were sent: ask the log when nothing comes any more.
            if count >= (total or sent) or (time.monotonic() > grown + STILL_S and _stored(settings)):
                break
            time.sleep(POLL_S)
        progress.finish()
    return last / (grown - begun)


def _stored(settings: Settings) -> bool:
    at = asyncio.run(position(settings, POLL_S))
    return not at.waiting("price") and not at.waiting("ledger")


def _of_company(ours: Company) -> list[Policy]:
    heavy = next(ours.callers[leak.caller] for leak in ours.leaks if leak.kind == "over_budget")
    leaking = next(ours.callers[leak.caller] for leak in ours.leaks if leak.kind == "spend_burst" and leak.past)
    return [
        Policy(org_id=heavy.org, scope="user", name=heavy.user, daily_limit_micro=USER_DAILY_MICRO),
        Policy(org_id=leaking.org, monthly_limit_micro=ORG_MONTHLY_MICRO),
    ]


def _policies(settings: Settings, policies: list[Policy]) -> None:
    for policy in policies:
        set_policy(settings, policy)


def _alerts(settings: Settings) -> list[Raised]:
    """All alerts, when WATCH has dealt with everything."""

    async def read() -> list[Raised]:
        at = await position(settings, WAIT_S, ("watch",))
        return await read_alerts(settings, len(at.priced_end))

    return asyncio.run(read())


def _note(text: str) -> None:
    err.print(text)
    sys.stderr.flush()
