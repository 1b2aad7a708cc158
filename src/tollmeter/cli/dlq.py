"""Dead letters: list them, look at one, send them through the line again. Secrets are masked wherever text is shown."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tollmeter.cli.dlq_pass import pass_, passed
from tollmeter.cli.groups import Group
from tollmeter.cli.options import INSTANT, SPAN, Number
from tollmeter.cli.output import UserError, json_option, out, print_json, print_table
from tollmeter.schemas import codec, topics
from tollmeter.schemas.dead_letter import MAX_ATTEMPTS, QUARANTINED, source_place
from tollmeter.schemas.secrets import mask_secrets
from tollmeter.settings import Settings

if TYPE_CHECKING:
    from tollmeter.admin.dead_letters import Case

SHOWN_BYTES = 4_096
Result = TypeVar("Result")
Command = TypeVar("Command", bound=Callable[..., Any])


def filters(command: Command) -> Command:
    """Add the options that choose letters."""
    for option in (
        click.option("--until", type=INSTANT, help="Letters before this time, ISO 8601."),
        click.option("--since", type=SPAN, help="Letters of this time: 30m, 48h, 7d [default: all]."),
        click.option("--partition", "partitions", type=click.IntRange(0), multiple=True, help="Source partition."),
        click.option("--stage", "stages", type=click.Choice(["price", "ledger"]), multiple=True),
        click.option("--reason", "reasons", multiple=True, help="For example bad_avro; may be given several times."),
    ):
        command = option(command)
    return command


@click.group(cls=Group)
def dlq() -> None:
    """Dead letters: records that could not be read, were impossible, or were refused."""


@dlq.command("list")
@filters
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Show so many, newest first.")
@json_option
@click.pass_obj
def list_letters(settings: Settings, /, limit: int, as_json: bool, **chosen: Any) -> None:
    """Dead letters, newest first; each record once, however often it was tried."""
    cases = _choose(_cases(settings), **chosen)
    rows = [{**case.row(), "detail": mask_secrets(case.letter.detail)} for case in cases[:limit]]
    if as_json:
        print_json(rows)
        return
    print_table("Dead letters", rows)
    counts = Counter((case.letter.reason, case.state) for case in cases)
    if len(cases) > len(rows) or len(counts) > 1:
        summary = [{"reason": reason, "state": state, "letters": n} for (reason, state), n in counts.most_common()]
        print_table(f"All {len(cases)}", summary)


@dlq.command()
@click.argument("letter")
@json_option
@click.pass_obj
def show(settings: Settings, letter: str, as_json: bool) -> None:
    """One dead letter with its content. LETTER is its id: PARTITION/OFFSET of the source record."""
    from tollmeter.admin.dead_letters import read_value

    case = _find(settings, letter, _cases(settings))
    value = _reach(settings, read_value(settings, case))
    document = {
        **case.row(),
        "detail": mask_secrets(case.letter.detail),
        "first": str(case.letter.first),
        "value": readable(value, decode=case.letter.reason != QUARANTINED),
    }
    if as_json:
        print_json(document)
        return
    for name, text in document.items():
        out.print(f"{name:9} {text}")


@dlq.command()
@click.argument("letters", nargs=-1)
@filters
@click.option("--all", "everything", is_flag=True, help="Every letter that may be tried again.")
@click.option(
    "--rate",
    type=Number(0, min_open=True),
    default=100.0,
    show_default=True,
    help="At most so many a second.",
)
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent; send nothing.")
@json_option
@click.pass_obj
def retry(
    settings: Settings,
    /,
    letters: Sequence[str],
    everything: bool,
    rate: float,
    limit: int | None,
    dry_run: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Send the original bytes through the line again. Events keep their ids: sent twice they count once."""
    if not letters and not everything and not any(chosen.values()):
        raise UserError("say which letters: ids, --reason, --stage, --partition, --since, --until, or --all")
    from tollmeter.admin.dead_letters import retry as send_again

    cases = _cases(settings)
    wanted = [_find(settings, letter, cases) for letter in letters] or _choose(cases, **chosen)
    skipped = Counter(case.state for case in wanted if case.state != "waiting")
    # oldest first: as they came
    waiting = [case for case in reversed(wanted) if case.state == "waiting"][:limit]
    sent = None if dry_run else _reach(settings, send_again(settings, waiting, rate))
    done = {
        "selected": len(wanted),
        "retried": sent.retried if sent else 0,
        "lost": sent.lost if sent else 0,
        "would_retry": len(waiting),
        "dry_run": dry_run,
        "skipped": dict(skipped),
    }
    if as_json:
        print_json(done)
        return
    verb = f"would send {len(waiting)}" if sent is None else f"sent {sent.retried}"
    out.print(f"{verb} of {len(wanted)} letters to {settings.topic(topics.EVENTS)}")
    if sent and sent.lost:
        out.print(f"{sent.lost} are not kept any more in {settings.topic(topics.EVENTS)}")
    for state, count in skipped.items():
        out.print(f"left out {count}: {_WHY[state]}")


dlq.add_command(pass_)
dlq.add_command(passed)

_WHY = {
    "retried": "sent again already, and not refused since",
    "exhausted": f"refused {MAX_ATTEMPTS} times",
    "cut": "the value was too large to be kept whole; the record itself is in usage.events for seven days",
    "withheld": "the value was a secret and was not kept",
    "foreign": "no event of a service",
}


def _cases(settings: Settings) -> "list[Case]":
    from tollmeter.admin.dead_letters import read_cases

    return _reach(settings, read_cases(settings))


def _choose(
    cases: "Sequence[Case]", since: float | None, until: datetime | None, **chosen: Sequence[Any]
) -> "list[Case]":
    from tollmeter.admin.dead_letters import select

    start = None if since is None else datetime.now(UTC) - timedelta(seconds=since)
    return select(cases, since=start, until=until, **chosen)


def _find(settings: Settings, letter: str, cases: "Sequence[Case]") -> "Case":
    try:
        place = source_place(letter if letter.count("/") > 1 else f"{settings.topic(topics.EVENTS)}/{letter}")
    except ValueError:
        raise UserError(
            f"{letter!r} is no id of a letter: write PARTITION/OFFSET, as 'tollmeter dlq list' does"
        ) from None
    for case in cases:
        if place in (case.letter.place, case.letter.first):
            return case
    raise UserError(f"no dead letter {letter}: 'tollmeter dlq list' shows them")


def readable(value: bytes | None, *, decode: bool = True) -> str:
    """Return content for people: the event's fields when it is Avro, text when it is text, else escaped; no secrets."""
    if not value:
        return ""
    if decode and (body := codec.body_of(value)) is not None:
        try:
            return mask_secrets(json.dumps(codec.decode_body(body)))
        except ValueError:
            pass
    # one character for each byte, so that a secret between odd bytes is still one
    text = mask_secrets(value.decode("utf-8") if _is_text(value) else value.decode("latin-1"))
    shown = text if _is_text(value) else text.encode("unicode_escape").decode()
    return shown if len(shown) <= SHOWN_BYTES else f"{shown[:SHOWN_BYTES]} ... ({len(value)} bytes)"


def _is_text(value: bytes) -> bool:
    try:
        return value.decode("utf-8").isprintable()
    except UnicodeDecodeError:
        return False


def _reach(settings: Settings, work: Coroutine[object, object, Result]) -> Result:
    from aiokafka.errors import KafkaError

    from tollmeter.admin.verify.position import LogUnreadableError
    from tollmeter.broker.layout import ProvisionError

    try:
        return asyncio.run(work)
    except (LogUnreadableError, ProvisionError) as problem:
        raise UserError(str(problem)) from None
    except (KafkaError, OSError) as error:
        raise UserError(f"Kafka at {settings.kafka} does not answer ({type(error).__name__})") from None
