"""`stack.json` in the data folder says where a running stack is; it counts only while its supervisor holds the lock."""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pydantic import SecretStr

from tollmeter.settings import PREFIX, Settings

FILE = "stack.json"
_LOCK = "lock"
_LINE = ("kafka", "topic_prefix", "group_prefix", "clickhouse_database")


class AlreadyRunningError(Exception):
    """Another supervisor owns this data folder."""


@contextmanager
def owner(data_dir: Path) -> Iterator[None]:
    """Hold the data folder for this process. Raises `AlreadyRunningError` at once when another one has it."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (data_dir / _LOCK).open("a") as lock:
        if not _take(lock):
            document = read(data_dir)
            who = f" (pid {document['pid']})" if document else ""
            raise AlreadyRunningError(
                f"a stack already runs on {data_dir}{who}: see `tollmeter status`, `tollmeter down`"
            )
        (data_dir / FILE).unlink(missing_ok=True)  # of a supervisor that was killed
        try:
            yield
        finally:
            (data_dir / FILE).unlink(missing_ok=True)


def running(data_dir: Path) -> dict[str, Any] | None:
    """Return what the running supervisor of this folder wrote, None when none runs. A pid alone may be reused."""
    if not (data_dir / _LOCK).exists() or not _locked(data_dir / _LOCK):
        return None
    return read(data_dir)


def read(data_dir: Path) -> dict[str, Any] | None:
    """Return the content of `stack.json`, None when there is none."""
    try:
        document: dict[str, Any] = json.loads((data_dir / FILE).read_text())
    except (OSError, ValueError):
        return None
    return document


def overlay(settings: Settings, environment: Mapping[str, str], document: Mapping[str, Any]) -> Settings:
    """Return the settings pointed at a running stack, except for what the environment says itself.

    The stack's credentials never go to an address that the environment names.
    """
    update: dict[str, Any] = {}
    for name in (*_LINE, "clickhouse"):
        if not environment.get(PREFIX + name.upper()) and name in document:
            update[name] = document[name]
    if not any(environment.get(f"{PREFIX}CLICKHOUSE{rest}") for rest in ("", "_USER", "_PASSWORD")):
        update["clickhouse_user"] = document["clickhouse_user"]
        update["clickhouse_password"] = SecretStr(document["clickhouse_password"])
    return settings.model_copy(update=update)


def describe(settings: Settings) -> dict[str, Any]:
    """Return what `overlay` needs of a running stack's settings."""
    return {
        **{name: getattr(settings, name) for name in (*_LINE, "clickhouse", "clickhouse_user")},
        "clickhouse_password": settings.clickhouse_password.get_secret_value(),
    }


def write(data_dir: Path, document: dict[str, Any]) -> None:
    """Replace `stack.json`; only its owner may read it, as it holds the passwords."""
    write_private(data_dir / FILE, json.dumps(document, indent=1))


def write_private(file: Path, text: str) -> None:
    """Replace a file that only its owner may read, whole or not at all."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600, exist_ok=False)
    fresh.write_text(text)
    fresh.replace(file)


def _take(lock: IO[str]) -> bool:
    # `running` looks by taking a shared lock for an instant, which must not keep a starting supervisor out.
    for _ in range(10):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.02)
        else:
            return True
    return False


def _locked(file: Path) -> bool:
    with file.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
