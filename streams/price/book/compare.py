"""Compares the price book, with our rules in front, to a public price map: name by name, with the reason.

A difference without a reason is a finding: one of the two is wrong, and calls of that name are PARTIAL until
`differences.yaml` says which.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tollmeter.streams.price.book.book import PriceBook
from tollmeter.streams.price.book.coverage import PROVIDER_OF, Verdict, differs
from tollmeter.streams.price.book.plans import Planner
from tollmeter.streams.price.book.public_map import Listed, read_map
from tollmeter.streams.rules.pricing.model_names import Names

BY_TOKEN = ("chat", "embedding", "responses", "completion")
LARGE = (
    "anthropic",
    "aws",
    "azure",
    "cohere",
    "deepseek",
    "google",
    "groq",
    "mistral",
    "openai",
    "perplexity",
    "together",
    "x-ai",
)
"""Providers that are compared unless others are named; the public map has them under fifteen words and more."""


class Compared(NamedTuple):
    """One name of the map. `ours` and `theirs` are USD per million tokens or per unit."""

    provider: str
    name: str
    verdict: Verdict
    units: tuple[str, ...]
    """Units that the two price differently."""
    ours: dict[str, int]
    theirs: dict[str, int]
    """Pico-USD per unit."""
    rule_id: str

    @property
    def unexplained(self) -> bool:
        return bool(self.units) and not self.verdict.why


class Summary(NamedTuple):
    """How many names of a map are priced, by whom, and what is left to explain."""

    names: int
    priced: int
    """By any source."""
    agreed: int
    """By two sources that agree."""
    different: int
    unexplained: int

    @property
    def priced_pct(self) -> float:
        return 100 * self.priced / self.names if self.names else 0.0

    @property
    def agreed_pct(self) -> float:
        return 100 * self.agreed / self.names if self.names else 0.0


def compare(
    book: PriceBook, path: Path, providers: Sequence[str] = (), done: Callable[[int], None] = lambda _: None
) -> list[Compared]:
    """Compare every name of the map that is billed by the token. Raises `MapError`. `done(1)` follows each name.

    Without `providers` those of `LARGE` are compared; a provider may be named by the map's word or ours.
    """
    wanted = {PROVIDER_OF.get(name, name) for name in providers} or set(LARGE)
    found = []
    for line in _standard(read_map(path)):
        provider = PROVIDER_OF.get(line.seller, line.seller)
        if provider in wanted:
            found.append(_compare(book.planner, provider, line))
        done(1)
    return found


def summary(found: Sequence[Compared]) -> Summary:
    """Count what was compared."""
    return Summary(
        len(found),
        sum(one.verdict.kind != "nobody" for one in found),
        sum(one.verdict.kind == "agree" for one in found),
        sum(bool(one.units) for one in found),
        sum(one.unexplained for one in found),
    )


def _standard(lines: Sequence[Listed]) -> list[Listed]:
    named = {(line.seller, line.name): line for line in reversed(lines) if not line.context and line.above_input < 0}
    return [line for line in reversed(named.values()) if line.mode in BY_TOKEN]


def _compare(planner: Planner, provider: str, line: Listed) -> Compared:
    operation = "embeddings" if line.mode == "embedding" else "chat"
    host = "aiplatform.googleapis.com" if line.seller.startswith("vertex_ai") else ""
    meaning = planner.meaning(Names(provider, line.name, line.name, "", host, "", operation, "", ""))
    verdict = planner.verdict(meaning._replace(listed=(line,)))
    bands = planner.standard_bands(meaning)
    units = tuple(differs(bands, line)) if bands else ()
    last = bands[-1] if bands else None
    return Compared(
        provider,
        line.name,
        verdict,
        units,
        dict(last.prices) if last else {},
        dict(line.band(provider).prices),
        last.rule_id if last else "",
    )
