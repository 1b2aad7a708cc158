"""A check that runs by itself, in a process of its own: memory and time of a worker are not for reading the log again.

Whoever holds the first partition of usage.priced runs it; two at once, in a rebalance, raise the same alerts.
"""

import asyncio
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from time import time

from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import Rejected, Unavailable, connect
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.engine import metrics

log = logging.getLogger("tollmeter")

FIRST_SHARE = 6
"""The first check comes this much sooner than the interval: workers may not live a whole one."""
LEAST_SINCE_S = 3 * 3_600
ON_THE_WAY_S = 2.0
"""So long it waits before it asks whether a command has anything to do: rows may be on their way into the ledger."""


def verify_command(every_s: float) -> list[str]:
    """Return the command: what has arrived over some intervals, so that one that failed is made up for."""
    since_s = max(LEAST_SINCE_S, int(3 * every_s))
    arguments = (
        "verify",
        "--since",
        f"{since_s}s",
        "--windows",
        "1d",
        "--wait",
        "60s",
        "--first-wins",
        "--alert",
        "--json",
    )
    return [sys.executable, "-m", "tollmeter", *arguments]


def fill_command() -> list[str]:
    """Return the command that fills in amounts whose exchange rates came late."""
    return [sys.executable, "-m", "tollmeter", "prices", "fx", "fill", "--json"]


def price_command(price_book: str = "") -> list[str]:
    """Return the command that prices calls of models that had no price; with a book, that one alone."""
    only = ["--book", price_book] if price_book else []
    return [sys.executable, "-m", "tollmeter", "prices", "fill", *only, "--json"]


def refill_command() -> list[str]:
    """Return the command that fills tables again from all that the logs keep."""
    return [sys.executable, "-m", "tollmeter", "verify", "--wait", "60s", "--repair", "--alert", "--json"]


def bills_command() -> list[str]:
    """Return the command that holds recent bills against the ledger."""
    return [sys.executable, "-m", "tollmeter", "reconcile", "--recent", "--alert", "--json"]


class SelfCheck:
    """Starts a command every so many seconds, one at a time, and says how it ended. 0 seconds: only on demand."""

    def __init__(
        self,
        command: Sequence[str],
        every_s: float,
        tell: Callable[[bytes, float], None] | None = None,
        needed: Callable[[], bool] | None = None,
    ) -> None:
        """`needed`: asked in a thread before a process is started, which costs more than the question."""
        self._command, self._every_s, self._tell, self._needed = command, every_s, tell or tell_differences, needed
        self._due_at = -1.0
        self._demanded: Sequence[str] = ()
        self._running: asyncio.Task[None] | None = None

    def demand(self, command: Sequence[str]) -> None:
        """Run this command as soon as none is running."""
        self._demanded = command

    def step(self, now: float, *, ours: bool) -> None:
        """Start the command if it is due and ours to run; `now` is monotonic."""
        if self._running is not None and not self._running.done():
            return
        if self._demanded:
            command, self._demanded = self._demanded, ()
            self._running = asyncio.create_task(self._run(command))
            return
        if self._every_s <= 0:
            return
        if self._due_at < 0:
            self._due_at = now + self._every_s / FIRST_SHARE
        if now >= self._due_at and ours:
            self._due_at = now + self._every_s
            self._running = asyncio.create_task(self._run(self._command))

    async def _run(self, command: Sequence[str]) -> None:
        if self._needed is not None:
            await asyncio.sleep(ON_THE_WAY_S)
            if not await asyncio.to_thread(self._needed):
                return
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:  # no memory, no more processes: the next hour may have them
            log.error("%s cannot be started: %s", _name(self._command), error)
            return
        document, text = await process.communicate()
        if process.returncode in (0, 1):
            self._tell(document, time())
        else:
            last = text.decode("utf-8", "replace").strip().rpartition("\n")[2][-300:]
            log.error("%s ended with exit code %s: %s", _name(self._command), process.returncode, last)


def own_checks(settings: Settings) -> tuple[SelfCheck, SelfCheck, SelfCheck, SelfCheck]:
    """Return what runs by itself: verify, amounts whose rates came late, calls whose prices came late, bills."""
    every_s = settings.verify_every_s
    return (
        SelfCheck(verify_command(every_s), every_s),
        SelfCheck(fill_command(), every_s, tell_filled),
        SelfCheck(price_command(), every_s, tell_priced, partial(price_missing, settings)),
        SelfCheck(bills_command(), every_s, tell_compared),
    )


def price_missing(settings: Settings) -> bool:
    """Tell whether a stored call has no price because nobody knew its model; True where that cannot be asked."""
    try:
        client = connect(settings)
        try:
            return bool(client.query(load("unpriced_any")))
        finally:
            client.close()
    except (Unavailable, Rejected):
        return True


def _name(command: Sequence[str]) -> str:
    return " ".join(word for word in command[3:] if word.isalpha())[:40] or "a check"


def tell_filled(document: bytes, _now_s: float) -> None:
    """Say how many calls got amounts whose exchange rates came late."""
    _tell_count(document, "prices fx fill", "%d calls have amounts whose exchange rates came late")


def tell_priced(document: bytes, _now_s: float) -> None:
    """Say how many calls of models that had no price have one now."""
    _tell_count(document, "prices fill", "%d calls of models that had no price have one now")


def tell_compared(document: bytes, _now_s: float) -> None:
    """Say which bills differ from the ledger."""
    try:
        found = [(one["provider"], one["month"], int(one["gaps"])) for one in json.loads(document)["compared"]]
    except (ValueError, KeyError, TypeError):
        log.error("reconcile said nothing that can be read")
        return
    for provider, month, gaps in found:
        if gaps:
            log.warning("the bill of %s for %s differs on %d closed days", provider, month, gaps)


def _tell_count(document: bytes, command: str, text: str) -> None:
    try:
        filled = int(json.loads(document)["filled"])
    except (ValueError, KeyError, TypeError):
        log.error("%s said nothing that can be read", command)
        return
    if filled:
        log.info(text, filled)


def tell_differences(document: bytes, now_s: float) -> None:
    """Say what a check found, in the log and as metrics."""
    try:
        found = json.loads(document)["differences"]
    except (ValueError, KeyError, TypeError):
        log.error("verify said nothing that can be read")
        return
    amounts = Counter[str]()
    for difference in found:
        amounts[difference["name"]] += difference["amount"]
    metrics.LEDGER_MISSING.set(amounts["missing_in_ledger"])
    metrics.LEDGER_DUPLICATE.set(amounts["id_with_several_times"])
    if found:
        log.error("verify: %s", ", ".join(f"{name} {amount}" for name, amount in sorted(amounts.items())))
    else:
        metrics.VERIFY_SUCCESS.set(now_s)
        log.info("verify: no differences")
