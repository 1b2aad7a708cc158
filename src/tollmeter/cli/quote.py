"""What would be recorded of an answer, and what it costs: event, components, status and rule, without a stack."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from tollmeter.admin.quote import Priced, price_answer
from tollmeter.cli.options import INSTANT
from tollmeter.cli.output import Finding, UserError, json_option, out, print_json, print_table
from tollmeter.cli.prices import open_book
from tollmeter.producers.extract.bodies import from_text
from tollmeter.schemas.event import UsageEvent
from tollmeter.settings import Settings
from tollmeter.streams.price.book.book import PriceBook

MAX_BYTES = 64 << 20
_KNOWN_COST = ("PRICED", "PARTIAL", "OVERRIDE", "FREE")


@click.command()
@click.argument("file", required=False)
@click.option("--provider", default=None, help="Provider id; default: told by the host or the answer.")
@click.option("--model-sent", default=None, help="Model that was asked for; needed where the answer names none.")
@click.option("--model-used", default=None, help="Model that answered, where the answer does not say it exactly.")
@click.option("--deployment", default=None, help="Azure deployment, Bedrock profile or gateway alias.")
@click.option("--api-host", default=None, help="Host that was called, such as eu.api.openai.com.")
@click.option("--region", default=None, help="Region or zone that changes the price.")
@click.option("--operation", default=None, help="chat, embeddings, image, speech, transcription, rerank ...")
@click.option("--service-tier", default=None, help="Tier that was served; default: told by the answer.")
@click.option("--processing", default=None, type=click.Choice(["REALTIME", "BATCH"]), help="How it was processed.")
@click.option("--prompt-chars", default=None, type=click.IntRange(min=0), help="Characters sent: speech is billed so.")
@click.option(
    "--asked", default=None, metavar="JSON", help='Arguments of the call that answers do not repeat: {"quality": "hd"}.'
)
@click.option("--at", type=INSTANT, default=None, help="Time of the call, such as 2026-11-22T10:00:00Z; default: now.")
@click.option("--case", is_flag=True, help="FILE has input or stream, keywords, at and right: compare with right.")
@json_option
@click.pass_context
def quote(
    context: click.Context, /, file: str | None, at: datetime | None, case: bool, as_json: bool, **given: object
) -> None:
    """Show the events that the answer in FILE (- for stdin) would be recorded as, and their cost.

    FILE holds an answer as JSON, a JSON array or lines of chunks or of a batch's results, or the server-sent events of
    a stream. Exit code 1 with --case when something is not as its `right` says.
    """
    if file is None:
        raise UserError("give a FILE with an answer, or - for stdin")
    settings: Settings = context.obj
    keywords = {name: value for name, value in given.items() if value is not None}
    if "asked" in keywords:
        keywords["asked"] = _arguments(keywords["asked"])
    book = open_book(settings)
    answer = _read(file)
    if case:
        _compare(book, file, answer, keywords, at, as_json)
        return
    priced = price_answer(book, answer, keywords, at)
    if as_json:
        print_json({"events": [one.document() for one in priced]})
    else:
        show(priced)


def _arguments(given: object) -> dict[str, object]:
    try:
        asked = json.loads(str(given))
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise UserError('--asked: give the arguments of the call as a JSON object, such as {"quality": "hd"}')
    return asked


def _read(name: str) -> object:
    try:
        data = sys.stdin.buffer.read(MAX_BYTES + 1) if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise UserError(f"{name}: {error.strerror or type(error).__name__}") from None
    if not data.strip():
        raise UserError(f"{name}: nothing in it; give an answer as JSON or the text of a stream")
    if len(data) > MAX_BYTES:
        raise UserError(f"{name}: larger than {MAX_BYTES >> 20} MiB")
    answer = from_text(data)
    if answer == {} and data.strip() != b"{}":
        raise UserError(f"{name}: neither JSON nor the server-sent events of a stream")
    return answer


def show(priced: Sequence[Priced]) -> None:
    """Show events for people."""
    if not priced:
        out.print("no billable call: nothing would be recorded")
        return
    for one in priced:
        fields = one.event.model_dump(mode="json")
        rows = [
            {"field": name, "value": _shown(value)} for name, value in fields.items() if value not in ("", None, {}, 0)
        ]
        print_table("event", rows)
        costs = [{"part": name, "USD": _usd(nano)} for name, nano in one.components_nano.items() if nano]
        print_table("cost", [*costs, {"part": "total", "USD": _usd(one.cost_nano)}])
        beside = "" if one.cost_nano is None else " beside it"
        risk = f"; at most {_usd(one.at_risk_nano)} USD at risk{beside}" if one.at_risk_nano is not None else ""
        out.print(f"{one.price_status} by {one.rule_id or 'no rule'}{risk}")


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _usd(nano: int | None) -> str | None:
    return None if nano is None else f"{nano // 10**9}.{nano % 10**9:09d}"


def _compare(
    book: PriceBook, name: str, case: Any, keywords: dict[str, Any], at: datetime | None, as_json: bool
) -> None:
    given = (case.get("stream") or case.get("input")) if isinstance(case, dict) else None
    if given is None or not isinstance(case.get("right"), dict) or not isinstance(case.get("keywords", {}), dict):
        raise UserError(f"{name}: a case has `input` or `stream`, `right`, and perhaps `keywords` and `at`")
    try:
        moment = at or INSTANT.convert(case.get("at") or datetime.now(UTC), None, None)
        priced = price_answer(book, given, {**case.get("keywords", {}), **keywords}, moment)
    except (ValueError, click.BadParameter) as error:
        raise UserError(f"{name}: {error}") from None
    wrong = differences(priced, case["right"])
    if as_json:
        print_json({"events": [one.document() for one in priced], "differences": wrong})
    if wrong:
        raise Finding(*(f"{name}: {text}" for text in wrong))
    if not as_json:
        show(priced)
        out.print(f"{name}: as it should be")


def differences(priced: Sequence[Priced], right: Mapping[str, object]) -> list[str]:
    """Say which of the right values the events differ from.

    `cost_nano` is that of all events together; other names are fields of the first event. A status may name several
    ("PRICED or OVERRIDE"); `note` and other remarks are for people.
    """
    wrong = []
    for name, wanted in right.items():
        if name == "cost_nano":
            got: Any = sum(one.cost_nano or 0 for one in priced) if priced else None
        elif name == "price_status":
            got = priced[0].price_status if priced else None
            if _allows(str(wanted), str(got)):
                continue
        elif name in UsageEvent.model_fields and priced:
            got = getattr(priced[0].event, name)
        else:
            continue
        if isinstance(wanted, dict) and isinstance(got, dict):
            got = {key: got.get(key) for key in wanted}
        if got != wanted:
            wrong.append(f"{name} is {got!r}, should be {wanted!r}")
    return wrong


def _allows(wanted: str, got: str) -> bool:
    """A status as written, or one of several in a sentence; "not PRICED ..." forbids that one."""
    forbidden = f"not {got}" in wanted
    return (
        got == wanted
        or (got in _KNOWN_COST and got in wanted.replace(",", " ").split() and not forbidden)
        or (wanted.startswith("not ") and not forbidden)
    )
