"""The caller's address of every row in its one form: only distinct texts that may have another are looked at."""

import polars as pl

from tollmeter.schemas.addresses import caller_form

_MAYBE_OTHER = r"[^0-9a-f.]"
"""IPv4 without a port, and a hash, have one spelling."""


def normal_addresses(column: pl.Series) -> pl.Series:
    """Return a column of addresses in their one form; texts that are none only lose blanks around them."""
    suspects = column.filter(column.str.contains(_MAYBE_OTHER))
    if suspects.is_empty():
        return column
    forms = {text: form for text in suspects.unique().to_list() if (form := caller_form(text)) != text}
    return column.replace(forms) if forms else column
