"""What a child process of a stack is told: exactly the settings of the stack, and the passwords of its front."""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from tollmeter.settings import NOT_SETTINGS, PREFIX, Settings
from tollmeter.stacks import write_private

# One core each at most, and no arena per thread: idle memory counts more here than the last percent.
FRUGAL = {
    "MALLOC_ARENA_MAX": "2",
    # polars gives memory back after 0.5 s, and the next batch takes it again: a sixth of LEDGER's time
    "_RJEM_MALLOC_CONF": "dirty_decay_ms:5000,muzzy_decay_ms:5000",
    "POLARS_MAX_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}


def settings_environment(settings: Settings) -> dict[str, str]:
    """Return the variables from which a child process builds the same settings."""
    values = {}
    for name, default in Settings().model_dump().items():
        value = getattr(settings, name)
        if value != default or name in ("kafka", "clickhouse", "clickhouse_user"):
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            values[f"{PREFIX}{name.upper()}"] = text
    return values


def bare_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment without our settings: a child gets exactly those of the stack."""
    return {name: value for name, value in environment.items() if not name.startswith(PREFIX) or name in NOT_SETTINGS}


def passwords(data_dir: Path) -> dict[str, str]:
    """Write the front's users once and return their passwords.

    Both have one although the front listens on loopback alone: other users of the machine and pages in a browser reach
    loopback, too.
    """
    file = data_dir / "users.json"
    if not file.exists():
        users = {
            "default": {"password": secrets.token_urlsafe(18)},
            "reader": {"password": secrets.token_urlsafe(18), "readonly": True},
        }
        write_private(file, json.dumps(users, indent=1))
    return {name: fields["password"] for name, fields in json.loads(file.read_text()).items()}
