"""The last price book on disk: a service that starts while the broker is away still knows what a call may cost."""

import logging
import os
from contextlib import suppress
from pathlib import Path

from tollmeter.producers.client.client import state_folder
from tollmeter.producers.client.spool import target_name
from tollmeter.schemas.topics import PRICES
from tollmeter.settings import Settings

log = logging.getLogger("tollmeter.guard")


class PriceCache:
    """One file per line (brokers and topic), replaced whole. A disk that fails costs the copy, nothing else."""

    def __init__(self, settings: Settings) -> None:
        folder = Path(settings.spool_dir or state_folder() or os.devnull)  # without a home nothing is kept
        self._path = folder / f"{target_name(settings.kafka, settings.topic(PRICES))}.prices.json"

    def save(self, book: bytes) -> None:
        """Keep a book in place of the one before."""
        own = self._path.with_suffix(f".{os.getpid()}.part")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            own.write_bytes(book)
            own.replace(self._path)
        except OSError as error:
            log.info("the price book is not kept on disk: %s", error)
            with suppress(OSError):
                own.unlink(missing_ok=True)

    def load(self) -> bytes | None:
        """Return the book that was kept, if any."""
        try:
            return self._path.read_bytes()
        except OSError:
            return None
