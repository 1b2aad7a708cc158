"""This machine: versions, the data folder and its rights, disk, what waits on it, and how old rates and backups are."""

import shutil
import stat
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tollmeter import __version__
from tollmeter.admin import backup
from tollmeter.doctor.check import Check, judged
from tollmeter.embedded import control
from tollmeter.schemas.codec import FINGERPRINT, VERSION
from tollmeter.settings import Settings
from tollmeter.streams.price.book.book import load
from tollmeter.streams.price.book.fx import FxError
from tollmeter.streams.price.book.fx_history import load_rates, stale_lines
from tollmeter.streams.price.book.overrides import OverridesError

LEAST_FREE, LEAST_SHARE = 128 << 20, 0.15
BACKUP_DAYS = 7
PINNED = ("faust-streaming", "aiokafka", "polars", "clickhouse-connect", "genai-prices")


def machine(settings: Settings, data_dir: Path | None) -> Iterator[Check]:
    """Look at this machine; `data_dir` is the folder of the embedded stack, None where there is none."""
    yield _versions()
    yield Check("event schema", "ok", f"Avro version {VERSION}, fingerprint {FINGERPRINT.hex()}")
    yield _price_book(settings)
    yield _rates(settings)
    if data_dir is not None:
        yield _rights(data_dir)
        yield disk("disk of the data folder", shutil.disk_usage(data_dir).free, shutil.disk_usage(data_dir).total)
    yield _spool(settings, data_dir)
    yield _backup(settings)


def _versions() -> Check:
    python = ".".join(map(str, sys.version_info[:3]))
    found = f"tollmeter {__version__}, Python {python}, " + ", ".join(f"{name} {version(name)}" for name in PINNED)
    old = sys.version_info < (3, 11)
    return judged("versions", found, old, "use Python 3.11 to 3.13")


def _price_book(settings: Settings) -> Check:
    try:
        return Check("price book", "ok", load(settings).id)
    except (OverridesError, FxError, OSError) as error:
        return Check("price book", "wrong", str(error)[:300], "mend the file of TOLLMETER_PRICES_FILE")


def _rates(settings: Settings) -> Check:
    try:
        stale = stale_lines(load_rates(settings.fx_file), datetime.now(UTC).date(), settings.fx_max_age_days)
    except FxError as error:
        return Check("exchange rates", "wrong", str(error)[:300], "mend the file of TOLLMETER_FX_FILE")
    do = "tollmeter prices fx update --from ecb, --from cbr"
    return judged("exchange rates", "; ".join(stale) or "young enough", bool(stale), do, "warning")


def _rights(data_dir: Path) -> Check:
    """Nobody else may read what lies there."""
    files = [
        data_dir,
        *(data_dir / name for name in ("users.json", "stack.json", "secret", "kafka", "clickhouse", "logs")),
    ]
    open_ = [str(file) for file in files if file.exists() and stat.S_IMODE(file.stat().st_mode) & 0o077]
    found = f"others may look into {', '.join(open_)}" if open_ else f"{data_dir} is its owner's alone"
    return judged("rights of the data folder", found, bool(open_), f"chmod -R go= {data_dir}")


def disk(name: str, free: int, total: int) -> Check:
    found = f"{free / 1e9:,.1f} GB free of {total / 1e9:,.1f} GB"
    if free < LEAST_FREE:
        return Check(name, "wrong", found, "make room: nothing is stored any more; or shorten TOLLMETER_RETENTION_*")
    low = free < LEAST_SHARE * total
    return judged(name, found, low, "make room, or shorten TOLLMETER_RETENTION_*", "warning")


def _spool(settings: Settings, data_dir: Path | None) -> Check:
    folder, here, elsewhere = control.waiting_events(settings, data_dir or settings.data_dir)
    found = f"{here:,} events wait for this line, {elsewhere:,} for others" + (f" in {folder}" if folder else "")
    do = "start what they wait for, or delete the files when nobody is to be charged for them"
    return judged("events waiting on disk", found, bool(here or elsewhere), do, "warning")


def _backup(settings: Settings) -> Check:
    known = backup.last(settings)
    do = "tollmeter backup FOLDER"
    if known is None:
        return Check("backup", "warning", "none that this data folder knows of", do)
    folder, at = known
    days = (datetime.now(UTC) - at).days
    if not (folder / backup.MANIFEST).is_file():
        return Check("backup", "wrong", f"the last one, of {at:%Y-%m-%d}, is no longer in {folder}", do)
    return judged("backup", f"{folder}, {days} days old", days > BACKUP_DAYS, do, "warning")
