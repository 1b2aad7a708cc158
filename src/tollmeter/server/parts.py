"""What one server is made of, made once and handed to everything that answers requests."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tollmeter.producers.client.client import state_folder
from tollmeter.server.auth import Directories, Directory, Doorman, SettingsKeys
from tollmeter.server.counters import Counters
from tollmeter.server.events import EventMaker
from tollmeter.server.ingest import Ingest
from tollmeter.server.known import Registry
from tollmeter.server.ledger import Ledger
from tollmeter.server.limits import Limiter, Rate
from tollmeter.server.people import People
from tollmeter.server.proxy.service import ProxyService
from tollmeter.server.remembered import Remembered
from tollmeter.server.settings import ServerSettings
from tollmeter.server.writer import Writer
from tollmeter.settings import Settings


@dataclass(frozen=True, slots=True)
class Limits:
    """The rates by who asks: people and their pages, `/ingest`, and the doors for machines."""

    admin: Limiter
    ingest: Limiter
    machine: Limiter


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a server. An answer finds them at `request.app.state.parts`."""

    line: Settings
    settings: ServerSettings
    directory: Directory
    doorman: Doorman
    limits: Limits
    writer: Writer
    ingest: Ingest
    counters: Counters
    registry: Registry
    ledger: Ledger
    people: People
    proxy: ProxyService
    started_at: float = field(default_factory=time.time)


def build(line: Settings, settings: ServerSettings, directories: Sequence[Directory] = ()) -> Parts:
    """Make the parts. The keys of the environment come first, then those of the registry."""
    registry = Registry(line)
    directory = Directories([SettingsKeys(settings, line.org), registry, *directories])
    chosen = line.spool_dir or state_folder()
    writer = Writer(line, Path(chosen) if chosen else None)
    counters = Counters()
    pepper = line.pepper.get_secret_value()
    ingest = Ingest(EventMaker(directory, pepper), Remembered(), writer, counters)
    rates = (
        Rate("admin", settings.rate_limit_rpm, settings.rate_limit_burst),
        Rate("ingest", settings.ingest_rpm, settings.ingest_burst),
        Rate("machine", settings.machine_rpm, settings.machine_burst),
    )
    limits = Limits(*(Limiter(rate.shared(settings.server_processes), time.monotonic) for rate in rates))
    doorman = Doorman(settings, line.org, directory)
    proxy = ProxyService(line, settings, directory, limits.machine, os.environ, counters)
    known = (registry, Ledger(line), People(settings), proxy)
    return Parts(line, settings, directory, doorman, limits, writer, ingest, counters, *known)
