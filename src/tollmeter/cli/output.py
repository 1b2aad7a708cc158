"""How commands speak: tables and text on stdout for people, one JSON document for machines, the rest on stderr.

Text is printed as it is: nothing is markup, no line is broken, and control characters from outside are spelled out.
"""

import logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence

import click

from tollmeter.cli.tables import fold, layout
from tollmeter.schemas.escapes import json_text, one_line

# Without a handler Python prints a library's warnings beside our one line; workers add handlers of their own.
logging.getLogger("aiokafka").addHandler(logging.NullHandler())

LONGEST_LINE = 20_000
"""Characters of a line; a value in a table is cut long before."""


class Lines:
    """One of the two streams, line by line."""

    def __init__(self, *, error: bool) -> None:
        self._error = error

    @property
    def is_terminal(self) -> bool:
        return (sys.stderr if self._error else sys.stdout).isatty()

    @property
    def width(self) -> int | None:
        """Columns of the terminal; None where there is none: nothing is made to fit a file or a pipe."""
        return shutil.get_terminal_size().columns if self.is_terminal else None

    def print(self, text: str = "", *, dim: bool = False, bold: bool = False) -> None:
        """Print one line."""
        shown = one_line(text, LONGEST_LINE)
        if (dim or bold) and self.is_terminal and not os.environ.get("NO_COLOR"):
            shown = click.style(shown, dim=dim or None, bold=bold or None)
        click.echo(shown, err=self._error)


out = Lines(error=False)
err = Lines(error=True)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")


class _Said(click.ClickException):
    """Ends a command with lines on stderr, one for each mistake; an end of line within one is spelled out."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class UserError(_Said):
    """What the user can mend: a line that says what was wrong and what to do, several for a file; exit code 2."""

    exit_code = 2


class Finding(_Said):
    """The command worked and found something that needs attention; exit code 1."""

    exit_code = 1


def print_json(document: object) -> None:
    """Print exactly one JSON document on stdout."""
    click.echo(json_text(document))


def print_table(
    title: str, rows: Sequence[Mapping[str, object]], columns: Sequence[str] = (), *, spare: Sequence[str] = ()
) -> None:
    """Print rows as a table; an empty result says so.

    Where the terminal is too narrow, first the `spare` columns are left out, the last of them first, then each row
    becomes a block of lines.
    """
    if not rows:
        out.print(f"{title}: nothing yet")
        return
    width = out.width
    table = layout(list(columns or rows[0]), rows, spare, width)
    for line in fold(one_line(title), width or len(title)):
        out.print(line, bold=True)
    for number, line in enumerate(table.lines):
        out.print(line, bold=number == 0 and table.headed)
    if table.left_out and width:
        left = f"too narrow for {', '.join(table.left_out)}: a wider window or --json shows them"
        for line in fold(left, width):
            out.print(line, dim=True)
