"""What the server has done since it started, as plain numbers; Prometheus and the JSON of `/metrics` read them."""

import threading
from collections import Counter
from collections.abc import Mapping

from tollmeter.server.columns import Used


class Counters:
    """Counts by door, fate, code and status; never by key, address or user."""

    def __init__(self) -> None:
        self.events: Counter[tuple[str, str]] = Counter()
        """By door and fate (accepted, duplicate, rejected)."""
        self.rejected: Counter[tuple[str, str]] = Counter()
        """By door and code."""
        self.ignored: Counter[tuple[str, str]] = Counter()
        """Entries that are meant to be no call, by door and reason."""
        self.problems: Counter[tuple[int, str]] = Counter()
        """Refused requests, by status and code."""
        self.answers: Counter[int] = Counter()
        """Requests by status."""
        self.durable: Counter[str] = Counter()
        """Events by where they were when they were acknowledged: kafka, spool."""
        self.identity_ignored = 0
        """Events whose organisation, user or group was not believed, since their key may not set them."""
        self.bad_auth = 0
        self.tokens: Counter[str] = Counter()
        """Tokens of stored calls by the type of OpenTelemetry: input, output; of calls whose usage is known."""
        self.metered = 0
        """Stored calls whose usage is known."""
        self._lock = threading.Lock()
        self.took_ms = self.timed = 0
        """How long stored calls took, those that say so, and how many those are."""

    def used(self, fields: Mapping[str, object]) -> None:
        """Add what a stored call used. For any thread: what the proxy holds back is stored by another one."""
        given, made = fields.get("input_tokens", 0), fields.get("output_tokens", 0)
        known = fields.get("usage_source") != "NONE" and ("input_tokens" in fields or "output_tokens" in fields)
        took_ms = fields.get("latency_ms")
        with self._lock:
            if known and type(given) is int and type(made) is int:
                self.metered += 1
                self.tokens["input"] += given
                self.tokens["output"] += made
            if type(took_ms) is int:
                self.timed += 1
                self.took_ms += took_ms

    def used_all(self, used: Used) -> None:
        """Add what several stored calls used."""
        with self._lock:
            self.metered += used.metered
            self.tokens.update(input=used.input, output=used.output)
            self.timed += used.timed
            self.took_ms += used.took_ms

    def fate(self, name: str) -> int:
        """Return the events of all doors that ended so."""
        return sum(count for (_, fate), count in self.events.items() if fate == name)
