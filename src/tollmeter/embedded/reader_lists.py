"""What a read-only user may name: functions, table functions, system tables, types, formats, databases."""

import json
import re
from importlib import resources

from tollmeter.embedded.errors import refused


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


TABLE_FUNCTIONS = frozenset(
    {"numbers", "numbers_mt", "zeros", "zeros_mt", "values", "null", "view", "generateseries", "generate_series"}
)
SYSTEM_TABLES = frozenset({"one", "numbers", "numbers_mt", "zeros", "columns", "functions", "settings", "time_zones"})
"""The tables of `system` that tell nothing of files, other users or their queries."""
SCHEMA_TABLES = frozenset({"tables", "columns", "schemata", "views"})
SYSTEM = frozenset({"system", "information_schema"})
TYPES = words(
    """aggregatefunction array bool date date32 datetime datetime32 datetime64 decimal decimal128 decimal256 decimal32
    decimal64 dynamic enum enum16 enum8 fixedstring json lowcardinality map nested nullable simpleaggregatefunction time
    time64 tuple variant char varchar numeric"""
)
# Words of the grammar that stand before a parenthesis.
BEFORE_PARENTHESIS = words(
    """ALL AND ANY ANTI AS ASOF BETWEEN BY CASE CUBE DESC DESCRIBE DISTINCT DIV ELSE EXCEPT EXISTS EXPLAIN FILTER FROM
    GLOBAL HAVING ILIKE IN INNER INTERSECT INTERVAL IS JOIN LIKE LIMIT MOD NOT OFFSET ON OR OUTER OVER PLAN PIPELINE
    PREWHERE QUALIFY REGEXP RETURN ROLLUP SELECT SEMI SETS SYNTAX AST TABLE THEN TO TREE UNION USING VALUES WHEN WHERE
    WITH STEP INTERPOLATE ESTIMATE COLUMNS APPLY REPLACE"""
)
COMBINATORS = re.compile(
    r"(simplestate|ordefault|distinct|resample|foreach|argmax|argmin|ornull|merge|state|array|null|map|if)$"
)
OUTPUT_FORMATS = re.compile(
    r"(json|csv|tsv|tabseparated|tskv|pretty|rowbinary|raw|xml|values|vertical|markdown|md|native|arrow|arrowstream|"
    r"parquet|orc|avro|msgpack|bsoneachrow|null|rawblob|lineasstring|ndjson|npy|sqlinsert)"
    r"(l|lines|compact|columns|columnswithmetadata|strings|objecteachrow|eachrow|withprogress|raw|withnames|andtypes|"
    r"space|noescapes|monoblock)*",
    re.IGNORECASE | re.ASCII,
)
PATH_LIKE = re.compile(r"[/\\:*?{}~]|^\.|\.\.|(?i:(?:system|information_schema)\.)")


def _functions() -> frozenset[str]:
    text = (resources.files(__package__) / "reader_functions.json").read_text(encoding="utf-8")
    return frozenset(name for names in json.loads(text).values() for name in names)


FUNCTIONS = _functions()
"""The lower-case names of the functions that a reader may call."""

_LONGEST_NAME = 200
"""Combinators are taken off one by one: a name of thousands would keep the interpreter for minutes."""


def is_function(name: str) -> bool:
    """Tell whether a reader may call a function: one of the list, or an aggregate of it with combinators."""
    name = name.lower() if len(name) < _LONGEST_NAME else ""
    while name not in FUNCTIONS:
        shorter = COMBINATORS.sub("", name)
        if shorter == name:
            return False
        name = shorter
    return True


def check_format(name: str) -> None:
    """Raise `FrontError` unless a reader may have answers in this format: none that reads a schema or a template."""
    if not OUTPUT_FORMATS.fullmatch(name):
        raise refused(f"the format {name[:40]!r} is not allowed for a read-only user.")


def check_database(name: str) -> None:
    """Raise `FrontError` unless a reader may use this database."""
    if name.lower() in SYSTEM or PATH_LIKE.search(name) or not name.isprintable():
        raise refused(f"the database {name[:40]!r} is not allowed for a read-only user.")
