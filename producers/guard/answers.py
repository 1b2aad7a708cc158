"""Which model answers to a name: an alias or a deployment says so only in its answers, and limits count by those."""

from typing import NamedTuple

from tollmeter.producers.guard.prices import Prices
from tollmeter.schemas.names import exact_model, plain_model, without_date

REMEMBERED = 10_000


class Version(NamedTuple):
    """The exact name under which a call will be counted. Unless `certain`, as far as is known before its answer."""

    name: str
    certain: bool

    def may_be(self, version: str, model: str) -> bool:
        """Say whether a call may be answered by a version; `model` is what the call is counted under.

        Versions are counted by the exact name of the answer. Until one has been heard a name with a date may be
        answered in another case or without its path, and one without a date by any version of its model.
        """
        if self.certain:
            return self.name == version
        own = _bare(self.name)
        if without_date(exact_model(own)):
            return own == _bare(version)
        return plain_model(version) in (model, plain_model(own))


def _bare(name: str) -> str:
    return name.strip().lower().rpartition("/")[2]


class Answers:
    """The last answer to each name. For any thread: a lost one is heard again with the next answer."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], tuple[str, str]] = {}

    def learn(self, prices: Prices, provider: str, host: str, sent: str, answered: str) -> None:
        """Take over which model has answered to a name."""
        if not answered.strip() or not sent.strip():
            return
        seller, _ = prices.identity(prices.called(provider, sent, host), sent)
        key = (seller, host, sent.strip().lower())
        if len(self._known) >= REMEMBERED and key not in self._known:
            self._known = {}
        self._known[key] = answered.strip(), prices.answered_as(seller, answered, sent)

    def of(self, provider: str, host: str, sent: str, model: str) -> tuple[Version, str]:
        """Return the version and the model that a call is counted under; `model` is what its name alone says.

        `provider` as the line knows it.
        """
        found = self._known.get((provider, host, sent.strip().lower())) if self._known else None
        return (Version(sent.strip(), False), model) if found is None else (Version(found[0], True), found[1])
