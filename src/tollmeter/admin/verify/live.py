"""WATCH's totals beside the ledger, a partition as of its checkpoint; where rows were corrected since, the next one."""

import asyncio
import time

from tollmeter.admin.verify import windows
from tollmeter.admin.verify.position import POLL_S, ledger_reaches
from tollmeter.admin.verify.windows import Progress, WindowCheck
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse


async def check_windows(settings: Settings, client: ClickHouse, wait_s: float, windows_s: float) -> WindowCheck:
    """Compare the totals where LEDGER is beyond the checkpoint they belong to.

    Where rows were corrected behind a checkpoint it is done again at the next one; what still waits then is counted as
    waiting, for nobody can say what should stand there.
    """
    since_s, deadline = max(0, int(time.time() - windows_s)), time.monotonic() + wait_s
    checked: dict[int, tuple[Progress, WindowCheck]] = {}
    while True:
        progress = await asyncio.to_thread(windows.progress, client)
        due = {number: at for number, at in progress.items() if _due(at, checked)}
        wanted = {number: at.applied + 1 for number, at in due.items()}
        left_s = max(0.0, deadline - time.monotonic())
        done = await ledger_reaches(settings, wanted, left_s) if wanted else {}
        for number, at in due.items():
            if done[number] >= wanted[number]:
                found = await asyncio.to_thread(windows.check, client, at, settings.horizon_s, since_s)
                checked[number] = at, found
        if time.monotonic() >= deadline or not any(found.ahead for _, found in checked.values()):
            return sum((found for _, found in checked.values()), WindowCheck())
        await asyncio.sleep(POLL_S)


def _due(at: Progress, checked: dict[int, tuple[Progress, WindowCheck]]) -> bool:
    before, found = checked.get(at.partition, (None, WindowCheck()))
    return before is None or (found.ahead > 0 and at.applied > before.applied)
