"""Statements, settings and parameters of somebody who has the reader's password and wants more than tables."""

import random
import re
from collections.abc import Callable

from tollmeter.embedded.reader_lists import words

PATH = "{path}"
"""Stands for a file outside of the engine's folder, or for one that should not come to be."""

_HARMLESS = """SELECT 1
SELECT a, sum(b) AS s FROM t WHERE c = 'x' GROUP BY a ORDER BY s DESC LIMIT 3
WITH x AS (SELECT 1 AS y) SELECT y FROM x
SELECT count() OVER (PARTITION BY a ORDER BY b) FROM t
SELECT * FROM t AS l JOIN u AS r ON l.a = r.a AND l.b = 'x'
SELECT a FROM t ARRAY JOIN [1, 2] AS x
SELECT CASE WHEN a = 1 THEN 'x' ELSE 'y' END, a::String, -1.5e3, a[1], t.1 FROM t
SELECT extract(DAY FROM now()), trim(BOTH ' ' FROM 'x'), arrayMap(x -> x + 1, [1])
SELECT * EXCEPT (a) REPLACE (1 AS b) APPLY(sum) FROM t
SELECT {p:String}, {q:Array(UInt8)} FROM numbers(3)
SELECT a IN (SELECT 1), a BETWEEN 1 AND 2, a LIKE '%x\\\\_' FROM t FORMAT JSON
SHOW TABLES
DESCRIBE TABLE t
EXISTS TABLE t
EXPLAIN SELECT 1""".splitlines()
_HOSTILE = """SELECT file('{path}')
SELECT * FROM file('{path}', 'LineAsString')
SELECT * FROM file('{path}', 'LineAsString', 'a String')
SELECT * FROM '{path}'
SELECT * FROM `{path}`
SELECT * FROM t, '{path}'
SELECT * FROM t JOIN '{path}' ON 1
SELECT * FROM default.`{path}`
SELECT x IN `{path}` FROM t
SELECT arrayMap(file, ['{path}'])
SELECT arrayMap(x -> file(x), ['{path}'])
SELECT * APPLY(file) FROM (SELECT '{path}' AS p)
SELECT * APPLY file FROM (SELECT '{path}' AS p)
SELECT 'x' INTO OUTFILE '{path}'
SELECT 'x' INTO OUTFILE '{path}' TRUNCATE FORMAT CSV
SELECT 'x' INTO OUTFILE '{path}' APPEND
INSERT INTO FUNCTION file('{path}', 'CSV') SELECT 1
INSERT INTO t FROM INFILE '{path}' FORMAT CSV
CREATE TABLE z (a String) ENGINE = File(CSV, '{path}')
CREATE VIEW z AS SELECT * FROM file('{path}', 'LineAsString')
CREATE FUNCTION z AS () -> file('{path}')
DESCRIBE file('{path}')
DESCRIBE TABLE `{path}`
DESCRIBE '{path}'
EXISTS TABLE `{path}`
EXISTS `{path}`
SHOW CREATE TABLE `{path}`
SHOW COLUMNS FROM `{path}`
SELECT * FROM s3('file://{path}')
SELECT * FROM url('file://{path}', 'LineAsString', 'a String')
SELECT * FROM executable('{path}', 'TSV', 'a String')
SELECT * FROM sqlite('{path}', 't')
SELECT * FROM filesystem('{path}')
SELECT * FROM icebergLocal('{path}')
SELECT * FROM merge('default', '.*')
SELECT * FROM view(SELECT * FROM '{path}')
SELECT * FROM python(os)
SELECT catboostEvaluate('{path}', 1)
SELECT dictGet('{path}', 'a', 1)
SELECT getServerSetting('users_to_ignore_early_memory_limit_check')
SELECT * FROM system.tables
SELECT * FROM system.users
SELECT * FROM system.processes
SELECT 1 FORMAT Protobuf SETTINGS format_schema = '{path}', output_format_schema = '{path}'
SELECT 1 SETTINGS output_format_schema = '{path}'
SELECT 1 PARALLEL WITH SELECT file('{path}')
EXPLAIN SELECT file('{path}')
EXPLAIN TABLE OVERRIDE mysql('x', 'y', 'z', 'u', 'p')
BACKUP TABLE t TO File('{path}')
RESTORE TABLE t FROM File('{path}')
SYSTEM RELOAD CONFIG
ATTACH TABLE z FROM '{path}' (a String) ENGINE = MergeTree ORDER BY a
SET output_format_schema = '{path}'""".splitlines()

_ZONES = """SELECT toTimeZone(now(), '{path}')
SELECT toDateTime('2020-01-01 00:00:00', 'file:{path}')
SELECT now() AS a, CAST(a AS DateTime('file:{path}'))""".splitlines()
"""The engine opens what the name of a time zone leads to, and shows nothing of it: confinement alone prevents it."""
_BLANKS = (
    " ",
    "\n",
    "\t",
    "  ",
    "/**/",
    "/* ' */",
    '/* " ` */',
    "-- '\n",
    "# `\n",
    "#! x\n",
    "/* /* */",
    "\u00a0",
    "\r\n",
)
_NAMES = (
    "'",
    "x'",
    '"',
    "`",
    "\\",
    ")",
    "FROM",
    "INTO OUTFILE",
    "--",
    "/*",
    "$$",
    "a b",
    "file(",
    "é",
    "\n",
    "\0",
    ";",
)
_KEYWORDS = (
    "AS",
    "FROM",
    "limit",
    "select",
    "array",
    "order",
    "FINAL",
    "where",
    "with",
    "union",
    "format",
    "settings",
    "on",
)
_STRINGS = ("'", "''", "\\'", "\\\\", "$a$", "`", '"', "/*", "--", "\\x27", "\n", "é", "x", "\u2019")
SETTINGS = sorted(
    words(
        """output_format_schema format_schema format_schema_path format_template_resultset format_template_row
        format_schema_source user_files_path format_avro_schema_registry_url
        custom_settings_prefixes session_timezone dialect readonly allow_ddl max_execution_time
        max_threads max_memory_usage final max_result_rows output_format_json_quote_64bit_integers
        allow_introspection_functions filesystem_cache_name temporary_files_codec
        default_table_engine schema_inference_use_cache_for_file engine_file_truncate_on_insert
        profile additional_table_filters log_comment format_binary_max_string_size limit offset"""
    )
)
_VALUES = (
    PATH,
    "0",
    "1",
    "../../../../../../etc/passwd",
    "file:" + PATH,
    "99999999999999999999",
    "UTC",
    "'",
    "kusto",
    "",
)
FORMATS = (
    "",
    "CSV",
    "JSON",
    "Protobuf",
    "CapnProto",
    "Template",
    "Null",
    "PrettyCompact",
    "ArrowStream",
    "'",
    "é",
    "A B",
)


class Hostile:
    """Draws from a seed."""

    def __init__(self, seed: int, *, confined: bool) -> None:
        self._hostile = _HOSTILE + (_ZONES if confined else [])
        self._random = random.Random(seed)
        self._changes: tuple[Callable[[list[str]], list[str]], ...] = (
            self._blank,
            self._quote,
            self._alias,
            self._splice,
            self._drop,
            self._double,
            self._swap,
            self._keyword,
            self._string,
            self._wrap,
            self._case,
        )

    def statement(self) -> str:
        """Return a statement: one of the templates with up to six changes, some of which make no sense."""
        draw = self._random
        parts = _split(draw.choice(self._hostile if draw.random() < 0.6 else _HARMLESS))
        for _ in range(draw.randrange(7)):
            parts = draw.choice(self._changes)(parts) or ["SELECT"]
        return "".join(parts)

    def settings(self) -> dict[str, str]:
        """Return settings and parameters of the address, seldom any."""
        draw = self._random
        found = {draw.choice(SETTINGS): draw.choice(_VALUES) for _ in range(draw.choice((0, 0, 0, 1, 2)))}
        if draw.random() < 0.1:
            found["param_p"] = draw.choice((*_VALUES, *_NAMES))
        if draw.random() < 0.1:
            found["database"] = draw.choice(("system", "default", PATH, "information_schema", "`", "é"))
        if draw.random() < 0.3:
            found["default_format"] = draw.choice(FORMATS)
        return found

    def _place(self, parts: list[str]) -> int:
        return self._random.randrange(len(parts))

    def _blank(self, parts: list[str]) -> list[str]:
        place = self._place(parts)
        return [*parts[:place], self._random.choice(_BLANKS), *parts[place:]]

    def _quote(self, parts: list[str]) -> list[str]:
        """Put a word in quotes, some of its letters as escapes."""
        words = [place for place, part in enumerate(parts) if part.isidentifier()]
        if not words:
            return parts
        place, draw = self._random.choice(words), self._random
        text = "".join(f"\\x{ord(letter):02x}" if draw.random() < 0.3 else letter for letter in parts[place])
        mark = draw.choice("`\"'\u201c")
        return [*parts[:place], mark + text + ("\u201d" if mark == "\u201c" else mark), *parts[place + 1 :]]

    def _alias(self, parts: list[str]) -> list[str]:
        place, mark = self._place(parts), self._random.choice('`"')
        return [*parts[:place], " AS ", mark, self._random.choice(_NAMES), mark, " ", *parts[place:]]

    def _splice(self, parts: list[str]) -> list[str]:
        other = _split(self._random.choice(_HOSTILE))
        glue = self._random.choice((" UNION ALL ", ", ", " ", ";", " EXCEPT ", " AND ", " INTO OUTFILE ", "\0"))
        return [*parts[: self._place(parts) + 1], glue, *other[self._random.randrange(len(other)) :]]

    def _drop(self, parts: list[str]) -> list[str]:
        place = self._place(parts)
        return parts[:place] + parts[place + 1 :]

    def _double(self, parts: list[str]) -> list[str]:
        place = self._place(parts)
        return [*parts[:place], parts[place], *parts[place:]]

    def _swap(self, parts: list[str]) -> list[str]:
        one, two = self._place(parts), self._place(parts)
        parts = list(parts)
        parts[one], parts[two] = parts[two], parts[one]
        return parts

    def _keyword(self, parts: list[str]) -> list[str]:
        place = self._place(parts)
        return [*parts[:place], " ", self._random.choice(_KEYWORDS), " ", *parts[place:]]

    def _string(self, parts: list[str]) -> list[str]:
        """Put in a string of odd pieces, closed or not, or a heredoc."""
        draw, place = self._random, self._place(parts)
        inner = "".join(draw.choice(_STRINGS) for _ in range(draw.randrange(4)))
        begin, end = draw.choice((("'", "'"), ("$a$", "$a$"), ("$$", "$$"), ("'", ""), ("\u2018", "\u2019"), ("", "")))
        return [*parts[:place], begin, inner, end, draw.choice((" ", ", ", " AS x ")), *parts[place:]]

    def _wrap(self, parts: list[str]) -> list[str]:
        before, after = self._random.choice(
            (
                ("SELECT * FROM (", ")"),
                ("SELECT 1 WHERE 1 IN (", ")"),
                ("WITH w AS (", ") SELECT * FROM w"),
                ("SELECT * FROM view(", ")"),
                ("SELECT * FROM view((SELECT 1) UNION ALL ", ")"),
                ("EXPLAIN AST ", ""),
                ("DESCRIBE (", ")"),
                ("(", ")"),
                ("SELECT (", ") AS x, 'y'"),
                ("", " FORMAT TSV"),
                ("", ";"),
                ("FROM t SELECT ", ""),
            )
        )
        return [before, *parts, after]

    def _case(self, parts: list[str]) -> list[str]:
        place = self._place(parts)
        return [*parts[:place], parts[place].swapcase(), *parts[place + 1 :]]


def _split(text: str) -> list[str]:
    """Return words, blanks, signs and whole strings."""
    return re.findall(r"'[^']*'|`[^`]*`|\w+|\s+|.", text)
