"""`tollmeter backup|restore`: ledger, checkpoints, alerts, rules and keys into a folder, and back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tollmeter.cli.output import UserError, json_option, out, print_json
from tollmeter.schemas.money import nano_to_text
from tollmeter.settings import Settings

Document = dict[str, Any]
folder_argument = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))


@click.command()
@folder_argument
@json_option
@click.pass_obj
def backup(settings: Settings, folder: Path, as_json: bool) -> None:
    """Back up ledger, checkpoints, alerts, rules and keys into FOLDER while the line runs.

    The logs themselves are not in it: what Kafka keeps is what brings a restored ledger up to date. Prompts, passwords
    and keys of the server are not in it either; addresses and names are: only you may read it.
    """
    from tollmeter.admin.backup import backup as work

    _tell(_done(lambda: work(settings, folder)), f"backed up into {folder}", as_json)


@click.command()
@folder_argument
@json_option
@click.pass_obj
def restore(settings: Settings, folder: Path, as_json: bool) -> None:
    """Put the backup in FOLDER back into the line of the settings; may be repeated.

    Then run `tollmeter verify --repair`: it brings in what the log holds beyond the backup, and computes totals again.
    """
    from tollmeter.admin.backup import restore as work

    _tell(_done(lambda: work(settings, folder)), "restored; now run 'tollmeter verify --repair'", as_json)


def _done(work: Callable[[], Document]) -> Document:
    from tollmeter.admin.backup import BackupError
    from tollmeter.sinks.clickhouse.client import Rejected, Unavailable
    from tollmeter.sinks.clickhouse.migrate import SchemaError

    try:
        return work()
    except (BackupError, SchemaError, Rejected, Unavailable) as error:
        raise UserError(str(error)) from None


def _tell(document: Document, text: str, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    ledger = document["ledger"]
    out.print(f"{ledger['calls']:,} calls, {nano_to_text(int(ledger['cost_nano']))} USD, as of {document['at']}")
    out.print(text)
