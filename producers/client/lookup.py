"""Where a producer finds its line: an address that was given, or the running stack, looked for at each connection.

A stack that starts later, or comes back at other ports, is found by services that run already.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from tollmeter import stacks
from tollmeter.producers.client.spool import target_name
from tollmeter.schemas import topics
from tollmeter.settings import PREFIX, Settings


class Lookup:
    """Knows the settings of now. A service keeps to the stack that it found first: another one is another line."""

    def __init__(
        self, settings: Settings | None = None, brokers: str | None = None, environment: Mapping[str, str] = os.environ
    ) -> None:
        """Raises `SettingsError` when the TOLLMETER_* variables are wrong."""
        self._base = settings or Settings.from_environment(environment)
        if brokers is not None:
            self._base = self._base.model_copy(update={"kafka": brokers})
        self._fixed = settings is not None or brokers is not None or names_kafka(environment)
        self._environment = {
            name: value for name, value in environment.items() if name.startswith((PREFIX, "XDG_", "HOME"))
        }
        self._start = _folder()
        self._folder: Path | None = None
        self._last = self._base

    def __repr__(self) -> str:
        return repr(self._last.kafka if self._fixed or self._folder else "the running stack")

    def now(self) -> tuple[Settings, str]:
        """Return the settings, and why there is no line at present ("" while there is one)."""
        if self._fixed:
            return self._base, ""
        found = stacks.at(self._folder) if self._folder else stacks.find(self._environment, self._start)
        if found.document is None:
            return self._last, found.why
        self._folder = found.folder
        self._last = stacks.overlay(self._base, self._environment, found.document)
        return self._last, ""

    def targets(self, settings: Settings) -> list[str]:
        """Return the names of the spool files whose events belong to whatever cluster these settings lead to.

        The first is that of the files made now, while no cluster is known; the others are of before.
        """
        topic = settings.topic(topics.EVENTS)
        address = target_name(settings.kafka, topic)
        if self._fixed:
            return [address]
        named = self._environment.get(f"{PREFIX}DATA_DIR")
        place = Path(named).absolute() if named else self._start
        return [target_name(f"stack of {place}", topic), address]


def names_kafka(environment: Mapping[str, str]) -> bool:
    """Tell whether the environment itself says where Kafka is."""
    return stacks.names_addresses({f"{PREFIX}KAFKA": environment.get(f"{PREFIX}KAFKA", "")})


def _folder() -> Path:
    try:
        return Path.cwd()
    except OSError:  # it was removed under us
        return Path("/")
