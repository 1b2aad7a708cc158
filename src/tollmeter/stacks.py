"""Which stacks run on this machine, and which one is meant: the one named, the one of this folder, or the only one.

A running stack has its addresses in `stack.json` in its data folder, which count while its supervisor holds the lock,
and a file in the user's state folder, by which it is found from anywhere. What is not clear is said, never guessed.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from tollmeter.settings import PREFIX, Settings

NAME = ".tollmeter"
FILE = "stack.json"
LOCK = "lock"
_LINE = ("kafka", "topic_prefix", "group_prefix", "clickhouse_database")
RATES = "fx_rates.csv"
"""Where a stack keeps exchange rates, unless TOLLMETER_FX_FILE says otherwise."""
_WAYS_OUT = (
    "start one with `tollmeter up`, or set TOLLMETER_DATA_DIR to a stack's data folder, "
    "or TOLLMETER_KAFKA and TOLLMETER_CLICKHOUSE to your own"
)


@dataclass(frozen=True, slots=True)
class Found:
    """The stack that is meant: `document` is what its supervisor wrote. None where none runs; `why` says so then."""

    folder: Path | None = None
    document: Mapping[str, Any] | None = None
    why: str = ""
    ambiguous: bool = False


def find(environment: Mapping[str, str], start: Path | None = None) -> Found:
    """Return the running stack that is meant in this folder and environment.

    TOLLMETER_DATA_DIR names one. Else addresses in the environment mean that none is. Else it is the one of the nearest
    folder above that has `.tollmeter`, also while that is stopped; else the only one of this user that runs.
    """
    if named := environment.get(f"{PREFIX}DATA_DIR"):
        return at(Path(named))
    if names_addresses(environment):
        return Found()
    above = nearest(start or Path.cwd())
    if above is not None:
        return at(above)
    folders = running_folders(environment)
    if len(folders) > 1:
        listed = ", ".join(map(str, folders))
        return Found(why=f"several stacks run ({listed}): set TOLLMETER_DATA_DIR to the one you mean", ambiguous=True)
    return at(folders[0]) if folders else Found(why=f"no stack runs: {_WAYS_OUT}")


def at(folder: Path) -> Found:
    """Return the stack of this data folder, whether it runs or not."""
    folder = folder.absolute()
    document = running(folder)
    return Found(folder, document, "" if document else f"no stack runs on {folder}: {_WAYS_OUT}")


def home(environment: Mapping[str, str], start: Path | None = None) -> Path:
    """Return the data folder that `tollmeter up` uses: the one named, the nearest above, or a new one here."""
    if named := environment.get(f"{PREFIX}DATA_DIR"):
        return Path(named)
    start = start or Path.cwd()
    return nearest(start) or start / NAME


def nearest(start: Path) -> Path | None:
    """Return the data folder in this folder or the nearest above; another user's never counts."""
    start = start.absolute()
    for folder in (start, *start.parents):
        if _is_ours(folder / NAME) and (folder / NAME / LOCK).exists():
            return folder / NAME
    return None


def names_addresses(environment: Mapping[str, str]) -> bool:
    """Tell whether the environment says where Kafka or ClickHouse are; port 0 says nothing."""
    found = (environment.get(f"{PREFIX}{name}", "") for name in ("KAFKA", "CLICKHOUSE"))
    return any(address and not address.rstrip("/").endswith(":0") for address in found)


def overlay(settings: Settings, environment: Mapping[str, str], document: Mapping[str, Any]) -> Settings:
    """Return the settings pointed at a running stack, except for what the environment says itself.

    The stack's credentials never go to an address that the environment names.
    """
    update: dict[str, Any] = {}
    for name in (*_LINE, "clickhouse", "fx_file"):
        if not environment.get(PREFIX + name.upper()) and name in document:
            update[name] = document[name]
    if not any(environment.get(f"{PREFIX}CLICKHOUSE{rest}") for rest in ("", "_USER", "_PASSWORD")):
        update["clickhouse_user"] = document["clickhouse_user"]
        update["clickhouse_password"] = SecretStr(document["clickhouse_password"])
    return settings.model_copy(update=update)


def describe(settings: Settings) -> dict[str, Any]:
    """Return what `overlay` needs of a running stack's settings."""
    return {
        **{name: getattr(settings, name) for name in (*_LINE, "clickhouse", "clickhouse_user", "fx_file")},
        "clickhouse_password": settings.clickhouse_password.get_secret_value(),
    }


def running(folder: Path) -> dict[str, Any] | None:
    """Return what the running supervisor of this folder wrote, None when none runs. A pid alone may be reused."""
    return read(folder) if _locked(folder / LOCK) else None


def read(folder: Path) -> dict[str, Any] | None:
    """Return the content of `stack.json`, None when there is none."""
    try:
        document: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and isinstance(document.get("kafka"), str) else None


def state_home(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return where a user's programs keep what must outlive them; None for a user without a home."""
    base = Path(environment.get("XDG_STATE_HOME") or "")
    if not base.is_absolute():  # a relative one is to be ignored, says the specification
        try:
            base = Path("~/.local/state").expanduser()
        except RuntimeError:
            return None
    return base / "tollmeter"


def register(folder: Path, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Note in the user's state folder that a stack runs here; return the note, None where that cannot be written."""
    state = state_home(environment)
    if state is None:
        return None
    notes = state / "stacks"
    note = notes / f"{hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]}.json"
    try:
        notes.mkdir(mode=0o700, parents=True, exist_ok=True)
        for other in notes.glob("*.json"):  # of supervisors that were killed
            if _noted(other) is None:
                other.unlink(missing_ok=True)
        write_private(note, json.dumps({"data_dir": str(folder.absolute())}))
    except OSError:
        return None
    return note


def running_folders(environment: Mapping[str, str]) -> list[Path]:
    """Return the data folders of this user's running stacks, in order of their names."""
    state = state_home(environment)
    if state is None:
        return []
    return sorted(folder for note in (state / "stacks").glob("*.json") if (folder := _noted(note)) is not None)


def _noted(note: Path) -> Path | None:
    """Return the folder that a note names while a stack runs there."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        folder = Path(json.loads(note.read_text(encoding="utf-8"))["data_dir"])
        return folder if _is_ours(note) and _is_ours(folder) and _locked(folder / LOCK) else None
    return None


def write_private(file: Path, text: str) -> None:
    """Replace a file that only its owner may read, whole or not at all."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600, exist_ok=False)
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)


def _is_ours(file: Path) -> bool:
    """Tell whether a file or folder belongs to this user: others must not lead our events to their broker."""
    try:
        return file.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _locked(lock: Path) -> bool:
    try:
        with lock.open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
