"""A producer whose events survive a kill of its process from the moment that `record` has returned, and before.

For a server that answers others: `begun` before a call goes out, `record` before its caller has the whole answer.
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tollmeter.producers.client.client import EXIT_TIMEOUT_S, SPOOL_BYTES, Mode, UsageProducer
from tollmeter.producers.client.ids import Ids
from tollmeter.producers.client.write_ahead import Document, WriteAhead, forget, left_behind
from tollmeter.schemas.event import UsageEvent
from tollmeter.schemas.secrets import without_secrets
from tollmeter.settings import Settings

QUEUE = 50_000
log = logging.getLogger("tollmeter.producer")


class DurableProducer(UsageProducer):
    """Takes what a `UsageProducer` does. Without a folder on disk, and in other modes, it is one and no more."""

    def __init__(
        self,
        brokers: str | None = None,
        *,
        service: str | None = None,
        mode: Mode = "kafka",
        spool_dir: str | Path | None = None,
        settings: Settings | None = None,
        **defaults: object,
    ) -> None:
        super().__init__(
            brokers,
            service=service,
            mode=mode,
            queue_size=QUEUE,
            spool_dir=spool_dir,
            spool_bytes=SPOOL_BYTES,
            settings=settings,
            **defaults,
        )
        self._further_ids = Ids()
        settings, _ = self._route.lookup.now()
        self._targets = self._route.lookup.targets(settings)
        folder = self._route.folder
        self._ahead = WriteAhead(folder, self._targets[0]) if folder is not None and self.mode == "kafka" else None

    def begun(self, event_id: str, events: Sequence[UsageEvent | Document]) -> None:
        """A call goes out, or has come so far: its events if its end is never told (by `record` or `nothing`)."""
        if self._ahead is not None:
            self._ahead.begun(
                event_id,
                [
                    self._document(None, event) if isinstance(event, dict) else self._document(event, {})
                    for event in events
                ],
            )

    def nothing(self, event_id: str) -> None:
        """A call that was begun is over and is no event."""
        if self._ahead is not None:
            self._ahead.nothing(event_id)

    def record(self, event: UsageEvent | Sequence[UsageEvent] | None = None, /, **fields: object) -> str:
        if self._ahead is None or isinstance(event, Sequence):
            return super().record(event, **fields)
        if event is None:
            fields.setdefault("event_id", self._further_ids.next()[0])
            fields.setdefault("occurred_at", datetime.now(UTC))
        document = self._document(event, fields)
        taken = super().record(event, **fields)
        self._ahead.done(str(document["event_id"]), [document])
        return taken

    def _document(self, event: UsageEvent | None, fields: dict[str, object]) -> Document:
        """Return an event as another process can record it: with this one's defaults, in what JSON holds."""
        known: Document = {} if event is None else event.model_dump(mode="json", exclude_unset=True)
        given = {name: value for name, value in {**known, **fields}.items() if value not in ("", None)}
        known = {name: value for name, value in {**self._defaults, **given}.items() if value is not None}
        clean = without_secrets(known, self._pepper or None)  # the file holds no more than the topic will
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in clean.items()}

    def recover(self) -> int:
        """Record what processes that were killed on this machine left behind; return how many events that is."""
        found = 0
        if self._ahead is not None and self._route.folder is not None:
            for path, file, left in left_behind(self._route.folder, self._targets):
                for document in left.events:
                    self.record(**document)
                forget(path, file)
                found += len(left.events)
                if left.events:
                    text = (
                        "a process was killed: %d of its events are recorded, %d of them estimates of calls cut short"
                    )
                    log.warning(text, len(left.events), left.cut_short)
        return found

    def sweep(self) -> None:
        """Shorten the write-ahead file by what is in Kafka or on the spool. Call it now and then."""
        if self._ahead is not None and self._settled():
            self._ahead.settled()

    def _settled(self) -> bool:
        if self.flush(0.0):
            return True
        counts = self.counters
        return counts.dropped == 0 and counts.acknowledged + counts.invalid + counts.on_disk >= counts.accepted

    def close(self, timeout: float = EXIT_TIMEOUT_S) -> None:
        super().close(timeout)
        if self._ahead is not None:
            self._ahead.close(settled=self._settled())
