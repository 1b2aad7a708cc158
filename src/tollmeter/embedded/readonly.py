"""What a read-only user may run: one statement that reads tables, judged on the text as ClickHouse's parser prints it.

`SET readonly=1` alone lets through the scalar function `file()`, `INTO OUTFILE`, `DESCRIBE` of a table function,
`KILL QUERY` and several statements in one text; hence this check in front of it.
"""

import re
from collections.abc import Iterable

from tollmeter.embedded.errors import refused

_STATEMENT = re.compile(r"(WITH|SELECT|SHOW|DESCRIBE TABLE|EXISTS|EXPLAIN)\b")
_STRING = re.compile(r"'(?:[^'\\]|\\.|'')*'", re.DOTALL)
_CALL = re.compile(r"(\w+)[`\"]?\s*\(")
# `file` is a scalar and a table function, and may be passed by name (arrayMap(file, ...)): the bare word is refused.
# An Identifier parameter is put in after this check.
_WORD = re.compile(r"\b(?:(?i:file|eval|executable|INTO\s+OUTFILE)|(?:ai|AI)[A-Z]\w*)\b|:\s*Identifier\s*\}")
_SAFE_TABLE_FUNCTIONS = frozenset(
    {
        "numbers",
        "numbers_mt",
        "zeros",
        "zeros_mt",
        "values",
        "null",
        "view",
        "generateseries",
        "generate_series",
        "primes",
        "format",
    }
)
# What Grafana and the stock clients send. Anything else is refused, `SETTINGS` in the statement by readonly=1 itself.
_SETTING = re.compile(
    r"final|max_execution_time|max_threads|max_block_size|max_rows_to_read|max_result_rows|result_overflow_mode|"
    r"max_memory_usage|session_timezone|date_time_(in|out)put_format|output_format_\w+|"
    r"cancel_http_readonly_queries_on_client_close|use_uncompressed_cache|prefer_column_name_to_alias"
)


def unsafe_functions(table_functions: Iterable[str]) -> frozenset[str]:
    """Return the lower-case names of all table functions of this engine except the harmless ones."""
    return frozenset(name.lower() for name in table_functions) - _SAFE_TABLE_FUNCTIONS


def check_statement(formatted: str, unsafe: frozenset[str]) -> None:
    """Raise `FrontError` unless the statement only reads. `formatted` is `formatQuerySingleLine` of the text.

    That function refuses several statements, drops comments and undoes quoted or escaped identifiers.
    """
    bare = _STRING.sub("''", formatted)
    if not _STATEMENT.match(bare):
        raise refused("statement is not allowed for a read-only user.")
    called = {name.lower() for name in _CALL.findall(bare)}
    if _WORD.search(bare) or called & unsafe:
        raise refused("access to files, URLs or other servers is not allowed for a read-only user.")


def check_setting(name: str) -> None:
    """Raise `FrontError` unless a read-only user may send this setting."""
    if not _SETTING.fullmatch(name):
        raise refused(f"Cannot modify '{name}' setting in readonly mode.")
