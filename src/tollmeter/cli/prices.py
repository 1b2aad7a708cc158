"""The price book on the command line: what a model costs, whether the compiled table is right, and exchange rates."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from tollmeter.admin.price_rows import plain_amount, rule_document, rule_row
from tollmeter.cli.groups import Group
from tollmeter.cli.options import INSTANT
from tollmeter.cli.output import Finding, UserError, json_option, out, print_json, print_table
from tollmeter.cli.prices_fill import fill
from tollmeter.cli.prices_fx import fx
from tollmeter.cli.progress import bar
from tollmeter.schemas.money import PICO_PER_USD
from tollmeter.settings import Settings
from tollmeter.streams.price.book.book import PriceBook, load
from tollmeter.streams.price.book.check import DIFFERENT, check, models
from tollmeter.streams.price.book.compare import Compared, compare, summary
from tollmeter.streams.price.book.coverage import DifferencesError
from tollmeter.streams.price.book.fx import FxError
from tollmeter.streams.price.book.lookup import lookup, nearest
from tollmeter.streams.price.book.overrides import OverridesError
from tollmeter.streams.price.book.public_map import MapError

SHOWN_DIFFERENCES = 20


@click.group(cls=Group)
def prices() -> None:
    """What models cost, at which time, and where the figures come from."""


@prices.command()
@click.argument("model")
@click.option("--provider", default="", help="Provider id, such as openai, anthropic, azure; default: the maker.")
@click.option("--at", type=INSTANT, default=None, help="Time of the call, such as 2026-11-22T10:00:00Z; default: now.")
@json_option
@click.pass_obj
def show(settings: Settings, model: str, provider: str, at: datetime | None, as_json: bool) -> None:
    """What calls to MODEL cost on a day: per tier, hours and input size."""
    book, at = open_book(settings), (at or datetime.now(UTC)).astimezone(UTC)
    found = lookup(book, model, provider, at)
    if not found:
        close = nearest(model)
        where = f" at {provider}" if provider else ""
        text = f"no price for {model}{where} on {at:%Y-%m-%d}: its calls are UNKNOWN_MODEL"
        if as_json:
            print_json({"model": model, "provider": provider, "known": False, "nearest": close, "rules": []})
        raise Finding(f"{text}; nearest names: {', '.join(close)}" if close else text)
    if as_json:
        rules = [rule_document(listed) for listed in found]
        document = {"model": model, "at": at.isoformat(), "price_book": book.id, "known": True, "rules": rules}
        print_json(document)
        return
    print_table(f"{model} on {at:%Y-%m-%d} UTC, USD per million tokens", [rule_row(listed) for listed in found])
    for listed in found:
        out.print(f"  {listed.band.rule_id}: {listed.band.source}", dim=True)
    if any(listed.partial for listed in found):
        out.print("priced as the model without its date: PARTIAL")
    out.print(f"price book {book.id}", dim=True)


@prices.command(name="check")
@click.option(
    "--rounds", type=click.IntRange(1, 10_000), default=3, show_default=True, help="Calls per model and tier."
)
@json_option
def check_command(rounds: int, as_json: bool) -> None:
    """Compare the compiled table with genai-prices' own calculation, to the last digit."""
    with bar("compare with genai-prices", len(models())) as progress:
        outcome = check(rounds, done=progress.advance)
    if as_json:
        print_json({"counts": dict(outcome.counts), "differences": outcome.differences})
    else:
        print_table(
            "compiled table against genai-prices", [{"result": k, "calls": n} for k, n in outcome.counts.items()]
        )
        for text in outcome.differences[:SHOWN_DIFFERENCES]:
            out.print(f"different: {text}")
    if outcome.counts[DIFFERENT]:
        raise Finding(f"{outcome.counts[DIFFERENT]} calls are priced differently")


@prices.command(name="compare")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--provider", "providers", multiple=True, help="Only these, by the map's word or ours; default: the large."
)
@json_option
@click.pass_obj
def compare_command(settings: Settings, file: Path, providers: tuple[str, ...], as_json: bool) -> None:
    """Compare the price book with a public price map in FILE (JSON or CSV, gzip allowed): every difference and why.

    Exit code 1 when a difference has no explanation.
    """
    book = open_book(settings)
    try:
        with bar("compare with the map", None) as progress:
            found = compare(book, file, providers, progress.advance)
    except MapError as error:
        raise UserError(str(error)) from None
    total = summary(found)
    if not total.names:
        raise UserError(
            f"{file}: no name of {', '.join(providers) or 'the large providers'} that is billed by the token"
        )
    different = [one for one in found if one.units]
    if as_json:
        print_json({**total._asdict(), "differences": [_difference(one) for one in different]})
    else:
        print_table("differences", [_short(one) for one in different])
        out.print(
            f"{total.names} names: {total.priced_pct:.1f} % priced by any source, {total.agreed_pct:.1f} % by two that "
            f"agree; {total.different} differ, {total.unexplained} without an explanation"
        )
    if total.unexplained:
        raise Finding(
            f"{total.unexplained} differences have no explanation: say in differences.yaml which source is right"
        )


def _difference(one: Compared) -> dict[str, Any]:
    return {
        "provider": one.provider,
        "name": one.name,
        "units": list(one.units),
        "ours_usd": {unit: plain_amount(one.ours[unit], PICO_PER_USD) for unit in one.units if unit in one.ours},
        "theirs_usd": {unit: plain_amount(one.theirs[unit], PICO_PER_USD) for unit in one.units},
        "priced_by": {"map": "map", "map alone": "map"}.get(one.verdict.kind, "book"),
        "rule_id": one.rule_id,
        "why": one.verdict.why or None,
    }


def _short(one: Compared) -> dict[str, Any]:
    unit = one.units[0]
    per = 1_000_000 if unit.endswith("_tokens") else 1
    return {
        "name": f"{one.provider} {one.name}",
        "unit": unit.removesuffix("_tokens"),
        "ours": plain_amount(one.ours[unit] * per, PICO_PER_USD) if unit in one.ours else None,
        "theirs": plain_amount(one.theirs[unit] * per, PICO_PER_USD),
        "why": one.verdict.why or "not known",
    }


prices.add_command(fx)
prices.add_command(fill)


def open_book(settings: Settings) -> PriceBook:
    """Build the price book; a wrong override or rate file is the user's to mend."""
    try:
        return load(settings)
    except (OverridesError, FxError, DifferencesError) as error:
        raise UserError(*str(error).splitlines()) from None


def expect_book(book: PriceBook, name: str) -> None:
    """Refuse to go on with another price book than the one that was named. "" = any."""
    if name and book.id != name:
        raise UserError(
            f"the price book here is {book.id}, not {name}: install the same version of tollmeter and set "
            "TOLLMETER_PRICES_FILE to the same file as PRICE has"
        )
