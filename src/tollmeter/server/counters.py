"""What the server has done since it started, as plain numbers; Prometheus and the JSON of `/metrics` read them."""

from collections import Counter


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

    def fate(self, name: str) -> int:
        """Return the events of all doors that ended so."""
        return sum(count for (_, fate), count in self.events.items() if fate == name)
