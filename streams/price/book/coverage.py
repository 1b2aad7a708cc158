"""What a second source says of exactly a name: it fills what the book lacks, and tells where the two differ.

The map knows today's rates alone, so nothing priced by it is ever better than PARTIAL.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tollmeter.streams.price.book.public_map import AS_OF, Listed, load_shipped
from tollmeter.streams.rules.pricing.price_one import DAY_US, band_at
from tollmeter.streams.rules.pricing.rates import (
    CACHE_READ,
    CACHE_WRITE,
    CACHE_WRITE_1H,
    INPUT,
    OUTPUT,
    Band,
    day_number,
)
from tollmeter.yaml_files import YamlError, read_yaml

SETTLED = Path(__file__).with_name("differences.yaml")

SELLERS: Mapping[str, tuple[str, ...]] = {
    "aws": ("bedrock_converse", "bedrock", "bedrock_mantle"),
    "azure": ("azure", "azure_ai", "azure_text"),
    "cohere": ("cohere_chat", "cohere"),
    "fireworks": ("fireworks_ai", "fireworks_ai-embedding-models"),
    "google": (
        "gemini",
        "vertex_ai",
        *(
            f"vertex_ai-{kind}"
            for kind in (
                "language-models",
                "anthropic_models",
                "embedding-models",
                "mistral_models",
                "llama_models",
                "openai_models",
                "deepseek_models",
                "qwen_models",
                "ai21_models",
                "minimax_models",
                "moonshot_models",
                "zai_models",
                "text-models",
                "image-models",
                "video-models",
                "vision-models",
                "chat-models",
                "code-text-models",
                "code-chat-models",
            )
        ),
    ),
    "mistral": ("mistral", "codestral", "text-completion-codestral"),
    "moonshotai": ("moonshot",),
    "openai": ("openai", "text-completion-openai"),
    "together": ("together_ai",),
    "x-ai": ("xai",),
}
"""The map's words for who sells, by the book's provider id; the first is asked first. Others have the same name."""
PROVIDER_OF = {seller: provider for provider, sellers in SELLERS.items() for seller in sellers}
_ROUNDED_PICO = 500
"""The map rounds some rates to a thousandth of a dollar per million tokens."""
_COMPARED = (INPUT, OUTPUT)
_CACHE = (CACHE_READ, CACHE_WRITE, CACHE_WRITE_1H)


class DifferencesError(ValueError):
    """The file of settled differences is wrong; one line per mistake."""


class Settled(BaseModel):
    """Of two sources that differ on names like this one, which is right, and how we know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: Annotated[str, Field(min_length=1)]
    name: Annotated[str, Field(min_length=1)]
    trust: Literal["book", "map", "neither"]
    """`neither`: nobody knows which is right; the book's rate stays and is PARTIAL."""
    why: Annotated[str, Field(min_length=10)]
    source: Annotated[str, Field(min_length=3)]


class Document(BaseModel):
    """The file of settled differences."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    differences: tuple[Settled, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What two sources say of a name together, and why the one or the other holds."""

    kind: Literal["agree", "book alone", "map alone", "book", "map", "disputed", "nobody"]
    why: str = ""


class Coverage:
    """The shipped map, by seller and name."""

    def __init__(self, lines: Sequence[Listed] | None = None, settled: Iterable[Settled] | None = None) -> None:
        self._lines = load_shipped() if lines is None else lines
        self._settled = tuple(load_settled() if settled is None else settled)

    @property
    def digest(self) -> bytes:
        """Return a hash of all that this adds to a price."""
        return hashlib.sha256(repr((self._lines, self._settled)).encode()).digest()

    def standard(self) -> list[Listed]:
        """Return every line of the map at standard rates."""
        return [line for line in self._lines if not line.context]

    @cached_property
    def _index(self) -> dict[tuple[str, str], list[Listed]]:
        index: dict[tuple[str, str], list[Listed]] = {}
        for line in self._lines:
            for form in short_forms(line.name, PROVIDER_OF.get(line.seller, line.seller)):
                index.setdefault((line.seller, form), []).append(line)
        return index

    def lines(
        self, provider: str, forms: Iterable[str], region: str, *, host: str = "", in_book: bool = False
    ) -> list[Listed]:
        """Return what the map says of a name: of its region if it names one, of the first seller that has it.

        Google sells by two lists: without a host of Vertex AI, what the book knows is compared with the other one.
        """
        sellers = SELLERS.get(provider, (provider,))
        if provider == "google" and "aiplatform" in host:
            sellers = (*sellers[1:], sellers[0])
        elif provider == "google" and in_book:
            sellers = sellers[:1]
        plain = list(dict.fromkeys(form for name in forms for form in short_forms(name, provider)))
        tried = [*(f"{region}/{form}" for form in plain if region), *plain]
        return next((found for form in tried for seller in sellers if (found := self._index.get((seller, form)))), [])

    def settled(self, provider: str, forms: Iterable[str]) -> Settled | None:
        """Return the row for this name; the last that fits wins."""
        plain = [form for name in forms for form in short_forms(name, provider)]
        rows = (row for row in reversed(self._settled) if fnmatchcase(provider, row.provider))
        return next((row for row in rows if any(fnmatchcase(form, row.name) for form in plain)), None)


def load_settled(path: Path = SETTLED) -> tuple[Settled, ...]:
    """Read the settled differences. Raises `DifferencesError`."""
    try:
        file = read_yaml(path)
        return Document.model_validate(file.body).differences
    except YamlError as error:
        raise DifferencesError(str(error)) from None
    except ValidationError as error:
        raise DifferencesError("\n".join(file.problems(error))) from None


def short_forms(name: str, provider: str) -> list[str]:
    """Return a name in lower case, with and without the seller's word in front."""
    plain = name.strip().lower()
    first, _, rest = plain.partition("/")
    return [plain, rest] if rest and PROVIDER_OF.get(first, first) == provider else [plain]


def bands_of(lines: Iterable[Listed], provider: str, tiers: Sequence[str]) -> tuple[Band, ...]:
    """Return the bands of a name under these tiers; at the standard rates where the map does not list them."""
    listed, context = list(lines), "+".join(tiers)
    own = [line for line in listed if line.context == context]
    return tuple(line.band(provider) for line in own or [line for line in listed if not line.context])


def differs(bands: Sequence[Band], line: Listed) -> list[str]:
    """Return the units that the map prices otherwise than the bands in force in the week before it was made.

    A price that only some hours or days have is the same price: the map knows none of them.
    """
    stated = line.band("").prices
    ours = list(_in_force(bands))
    return [
        unit
        for unit in (*_COMPARED, *_CACHE)
        if unit in stated and ours and not any(_same(band, unit, stated[unit]) for band in ours)
    ]


def disputed(band: Band, line: Listed) -> Band:
    """Return a band of which nobody knows whether it or the map is right, with the most that the dearer one charges."""
    stated = line.band("").prices
    units = [unit for unit in (*_COMPARED, *_CACHE) if band.prices.get(unit) and unit in stated]
    most = max((-(-band.at_most_pct * stated[unit] // band.prices[unit]) for unit in units), default=0)
    return replace(band, partial=True, at_most_pct=max(most, band.at_most_pct))


def lacks_cache(bands: Sequence[Band], units: Sequence[str]) -> bool:
    """Say whether all that differs is a cache price that the bands do not state: calls that use it are PARTIAL."""
    return all(unit in _CACHE and not any(unit in band.prices for band in _in_force(bands)) for unit in units)


def _in_force(bands: Sequence[Band]) -> Iterable[Band]:
    seconds = {band.from_second for band in bands}
    for back in range(7):
        midnight = day_number(AS_OF - timedelta(days=back)) * DAY_US
        for second in seconds:
            band = band_at(bands, midnight + second * 1_000_000, (1_000, 0, 0, 0, 1, 0))
            if band is not None:
                yield band


def _same(band: Band, unit: str, price: int) -> bool:
    own = band.prices.get(unit)
    return own is not None and abs(own - price) <= max(max(own, price) // 1_000, min(_ROUNDED_PICO, price // 50))
