"""Rows as CSV that a spreadsheet only reads: a cell that it would take for a formula begins with an apostrophe."""

import csv
import io
from collections.abc import Mapping, Sequence
from decimal import Decimal

from tollmeter.schemas.escapes import csv_cell


def csv_text(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str:
    """Return a head and a line for each row. Unknown is an empty cell; numbers stay numbers, negative ones too."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_cell(row.get(name)) for name in columns] for row in rows])
    return out.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{Decimal(str(value)):f}"
    if isinstance(value, int | Decimal):
        return f"{value:f}" if isinstance(value, Decimal) else str(value)
    return csv_cell(str(value))
