"""How commands speak: tables and text on stdout for people, one JSON document for machines, the rest on stderr."""

import json
import logging
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Without a handler Python prints a library's warnings beside our one line; workers add handlers of their own.
logging.getLogger("aiokafka").addHandler(logging.NullHandler())

out = Console(highlight=False)
if not out.is_terminal:
    out.width = 200  # into a file or a pipe: ids stay in one piece
err = Console(stderr=True, highlight=False)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")


class UserError(click.ClickException):
    """What the user can mend: shown as one line that says what was wrong and what to do; exit code 2."""

    exit_code = 2


class Finding(click.ClickException):
    """The command worked and found something that needs attention; exit code 1."""

    exit_code = 1


def print_json(document: Any) -> None:
    """Print exactly one JSON document on stdout."""
    click.echo(json.dumps(document, ensure_ascii=False, default=str))


def print_table(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Print rows as a table; numbers to the right; an empty result says so."""
    if not rows:
        out.print(f"{title}: nothing yet", markup=False)
        return
    names = list(columns or rows[0])
    table = Table(title=Text(title), title_justify="left")
    for name in names:
        numeric = all(isinstance(row.get(name), int | float | Decimal) or row.get(name) is None for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        # Text, not markup: names come from outside and may hold square brackets
        table.add_row(*(Text("—" if row.get(name) is None else str(row[name])) for name in names))
    out.print(table)
