"""A public price map as a second source: today's names and rates, without a history; below the price book.

`read_map` takes the map as its project publishes it (JSON, or CSV with the same field names, gzip allowed);
`public_map.csv` beside this file is the part of it that has rates, in our own units.
"""

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from tollmeter.schemas.money import PICO_PER_USD
from tollmeter.streams.price.book.compile import LATTICE, leaves_of
from tollmeter.streams.rules.pricing.rates import SINGLE, Band

SHIPPED = Path(__file__).with_name("public_map.csv")
AS_OF = date(2026, 11, 29)
"""The day whose rates the shipped table states."""
SOURCE = f"public price map of {AS_OF:%Y-%m} (litellm 1.110.2, MIT)"
MAX_BYTES = 64 << 20

_TOKENS = {
    "input_cost_per_token": "input_tokens",
    "output_cost_per_token": "output_tokens",
    "cache_read_input_token_cost": "cache_read_tokens",
    "cache_creation_input_token_cost": "cache_write_tokens",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h_tokens",
    "input_cost_per_audio_token": "input_audio_tokens",
    "output_cost_per_audio_token": "output_audio_tokens",
    "output_cost_per_reasoning_token": "output_reasoning_tokens",
    "input_cost_per_character": "input_characters",
}
_BY_MODE = {
    ("image_generation", "output_cost_per_image"): "images",
    ("image_generation", "input_cost_per_image"): "images",
    ("image_edit", "output_cost_per_image"): "images",
    ("image_edit", "input_cost_per_image"): "images",
    ("audio_transcription", "input_cost_per_second"): "audio_seconds",
    ("rerank", "input_cost_per_query"): "rerank_searches",
    ("search", "input_cost_per_query"): "requests",
}
_TIERS = {
    ("", -1): ("input_cost_per_token", "output_cost_per_token"),
    ("", 200_000): ("input_cost_per_token_above_200k_tokens", "output_cost_per_token_above_200k_tokens"),
    ("batch", -1): ("input_cost_per_token_batches", "output_cost_per_token_batches"),
    ("priority", -1): ("input_cost_per_token_priority", "output_cost_per_token_priority"),
    ("flex", -1): ("input_cost_per_token_flex", "output_cost_per_token_flex"),
}
UNITS = (*_TOKENS.values(), "audio_seconds", "images", "rerank_searches", "requests")
COLUMNS = ("seller", "name", "mode", "context", "above_input", *UNITS)


class MapError(ValueError):
    """The map cannot be read; the text names the file, the line or name, and what is wrong."""


class Listed(NamedTuple):
    """One rate line of the map: USD per token (or other unit), exact."""

    seller: str
    """The map's own word for who sells it: bedrock_converse, azure_ai ..."""
    name: str
    mode: str
    context: str
    above_input: int
    usd: Mapping[str, Decimal]

    def band(self, provider: str) -> Band:
        """Return the line as a band, always PARTIAL: one source alone."""
        pico = {unit: Fraction(price) * PICO_PER_USD for unit, price in sorted(self.usd.items())}
        prices = {unit: round(price) for unit, price in pico.items()}  # half to even
        return Band(
            provider=provider,
            model=self.name.lower(),
            context=self.context,
            prices=prices,
            leaves=leaves_of(frozenset(prices)),
            source=SOURCE,
            above_input=self.above_input,
            exact=all(price.denominator == 1 for price in pico.values()),
            layer=SINGLE,
            partial=True,
        )


def load_shipped() -> list[Listed]:
    """Return the lines of the shipped table."""
    with SHIPPED.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return [
            Listed(
                row["seller"],
                row["name"],
                row["mode"],
                row["context"],
                int(row["above_input"] or -1),
                {unit: Decimal(row[unit]) for unit in UNITS if row[unit]},
            )
            for row in rows
        ]


def read_map(path: Path) -> list[Listed]:
    """Return the lines of a published map that state a rate. Raises `MapError`."""
    found: list[Listed] = []
    for where, entry in _entries(path):
        try:
            found += _lines(entry)
        except (InvalidOperation, TypeError, ValueError) as error:
            raise MapError(f"{path}: {where}: {error}") from None
    if not found:
        raise MapError(
            f"{path}: no name with a rate; expected JSON like model_prices_and_context_window.json, or CSV with the "
            "columns name, provider, mode, input_cost_per_token ..."
        )
    return found


def store_shipped(lines: Iterable[Listed], target: Path = SHIPPED) -> None:
    """Write the shipped table: what `python -m tollmeter.streams.price.book.public_map FILE` does."""
    text = io.StringIO(newline="")
    text.write(f"# Names and rates in force on {AS_OF}, USD per token or unit; facts of a {SOURCE},\n")
    text.write("# Copyright (c) 2023 Berri AI, used under the MIT licence. No history: today's rates only.\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        above = "" if line.above_input < 0 else line.above_input
        rates = [_plain(line.usd[unit]) if unit in line.usd else "" for unit in UNITS]
        writer.writerow([line.seller, line.name, line.mode, line.context, above, *rates])
    target.write_text(text.getvalue(), encoding="utf-8")


def _entries(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            body = file.read(MAX_BYTES + 1)
    except (OSError, EOFError) as error:
        raise MapError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(body) > MAX_BYTES:
        raise MapError(f"{path}: larger than {MAX_BYTES >> 20} MB")
    try:
        text = body.decode("utf-8-sig")
        if text.lstrip().startswith("{"):
            document = json.loads(text, parse_float=Decimal, parse_int=Decimal)
            for name, entry in document.items():
                if isinstance(entry, dict):
                    yield name, {**entry, "name": name, "provider": entry.get("litellm_provider", "")}
        else:
            for number, row in enumerate(csv.DictReader(io.StringIO(text, newline=""), strict=True), start=2):
                yield f"line {number}", row
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error, RecursionError) as error:
        raise MapError(f"{path}: is neither JSON nor CSV: {error}") from None


def _lines(entry: Mapping[str, object]) -> Iterator[Listed]:
    name, seller, mode = (str(entry.get(key) or "") for key in ("name", "provider", "mode"))
    base = {unit: price for field, unit in _TOKENS.items() if (price := _price(entry, field))}
    base |= {unit: price for (m, field), unit in _BY_MODE.items() if m == mode and (price := _price(entry, field))}
    if not name or not base:
        return
    for (context, above), fields in _TIERS.items():
        pairs = zip(_TIERS["", -1], fields, strict=True)
        own = {_TOKENS[standard]: price for standard, field in pairs if (price := _price(entry, field))}
        if own or (context, above) == ("", -1):
            yield Listed(seller, name, mode, context, above, _with_wholes({**base, **own}))


def _with_wholes(usd: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """Leave out a part whose whole has no price: output audio without output tokens."""
    return {
        unit: price
        for unit, price in usd.items()
        if all(other in usd for other in LATTICE if LATTICE[other].dimensions < LATTICE[unit].dimensions)
    }


def _price(entry: Mapping[str, object], field: str) -> Decimal | None:
    value = entry.get(field)
    if value is None or value == "" or isinstance(value, bool):
        return None
    price = Decimal(str(value))
    if not price.is_finite() or not 0 <= price <= 1_000_000:
        raise ValueError(f"{field} is {value}, no price")
    return price or None  # 0 stands for "not billed here", never for free


def _plain(price: Decimal) -> str:
    text = f"{price:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


if __name__ == "__main__":
    import sys

    store_shipped(read_map(Path(sys.argv[1])))
