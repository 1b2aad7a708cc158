"""The secret of a set-up, under which keys are hashed and cookies signed: a setting, or a private file.

It is in neither Kafka nor ClickHouse. Whoever loses it makes new keys.
"""

import os
import secrets
from pathlib import Path

from tollmeter.settings import Settings

FILE = "secret"
LEAST_BYTES = 16


class SecretError(Exception):
    """There is no secret that can be used; the text says what to do."""


def ensure(data_dir: Path) -> None:
    """Make the file of a data folder, once; an existing one stays. Raises `OSError`."""
    file = data_dir / FILE
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(handle, "w", encoding="ascii") as out:
        out.write(secrets.token_hex(32))


def secret_of(settings: Settings) -> bytes:
    """Return the secret: TOLLMETER_SECRET, else that of the data folder. Raises `SecretError`."""
    value = settings.secret.get_secret_value().encode()
    if not value:
        value = _of_file(settings.data_dir / FILE)
    if len(value) < LEAST_BYTES:
        raise SecretError(
            f"the secret is too short: at least {LEAST_BYTES} characters, as `openssl rand -hex 32` gives"
        )
    return value


def _of_file(file: Path) -> bytes:
    try:
        with file.open("rb") as handle:
            if os.fstat(handle.fileno()).st_mode & 0o077:
                raise SecretError(f"{file} can be read by other users: chmod 600 {file}, and rotate the server's keys")
            return handle.read().strip()
    except OSError as error:
        raise SecretError(
            f"no secret to hash keys with ({file}: {error.strerror}): set TOLLMETER_SECRET to the one of the servers, "
            "or use the data folder of a stack that `tollmeter up` has made"
        ) from None
