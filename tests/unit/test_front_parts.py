"""The front's pure parts: how a request becomes a statement, what unpacks, what a reader may say."""

import gzip
import zlib
from importlib import resources
from typing import Any

import cramjam
import pytest

from tollmeter.embedded import clickhouse_go_hello as hello
from tollmeter.embedded.engine import stores
from tollmeter.embedded.errors import FrontError, from_engine
from tollmeter.embedded.reader_names import forbidden_relations
from tollmeter.embedded.reader_settings import LIMITS, check_setting, reader_settings
from tollmeter.embedded.readonly import judge
from tollmeter.embedded.statement import parse
from tollmeter.embedded.unpack import unpack
from tollmeter.sinks.clickhouse.queries import load

PARSED = {
    "query in the URL": ({"query": "SELECT 1"}, b"", ("SELECT 1", "", b"")),
    "query in the body": ({}, b" SELECT 1\n", ("SELECT 1", "", b"")),
    "query in both": ({"query": "SELECT"}, b"1", ("SELECT\n1", "", b"")),
    "data in the body": ({"query": "INSERT INTO t FORMAT CSV"}, b"1\n", ("INSERT INTO t", "CSV", b"1\n")),
    "values in the body": ({"query": "insert into t values"}, b"(1)", ("insert into t", "Values", b"(1)")),
    "both in the body": (
        {},
        b"INSERT INTO t (a) FORMAT Native\n\x01\xff",
        ("INSERT INTO t (a)", "Native", b"\x01\xff"),
    ),
    "carriage return": ({}, b"INSERT INTO t FORMAT CSV\r\n1\r\n", ("INSERT INTO t", "CSV", b"1\r\n")),
    "no data": ({"query": "INSERT INTO t FORMAT CSV"}, b"", ("INSERT INTO t", "CSV", b"")),
    "settings before the format": (
        {},
        b"INSERT INTO t SETTINGS a = 'x FORMAT y' FORMAT CSV\n1",
        ("INSERT INTO t SETTINGS a = 'x FORMAT y'", "CSV", b"1"),
    ),
    "a column named values": ({}, b"INSERT INTO t (`values`) FORMAT CSV\n1", ("INSERT INTO t (`values`)", "CSV", b"1")),
    "FORMAT inside a value": (
        {},
        b"INSERT INTO t VALUES ('a FORMAT b c')",
        ("INSERT INTO t VALUES ('a FORMAT b c')", "", b""),
    ),
    "insert from a query": ({}, b"INSERT INTO t SELECT 1 FORMAT CSV", ("INSERT INTO t SELECT 1 FORMAT CSV", "", b"")),
    "select with a format": ({}, b"SELECT 1 FORMAT CSV", ("SELECT 1 FORMAT CSV", "", b"")),
}


@pytest.mark.parametrize("case", PARSED)
def test_parse(case: str) -> None:
    url, body, expected = PARSED[case]
    found = parse(url, {}, body)
    assert (found.query, found.insert_format, found.data) == expected


def test_parameters_and_settings_are_told_apart() -> None:
    url = {"query": "SELECT 1", "param_a": "1", "max_threads": "2", "user": "x", "password": "y", "database": "d"}
    found = parse(url, {"X-ClickHouse-Format": "CSV"}, b"")
    assert (dict(found.params), dict(found.settings)) == ({"a": "1"}, {"max_threads": "2"})
    assert (found.database, found.format) == ("d", "CSV")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "lz4", "zstd", "br"])
def test_unpack(encoding: str) -> None:
    body = b"INSERT" * 5_000
    pack: dict[str, Any] = {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "lz4": cramjam.lz4.compress,
        "zstd": cramjam.zstd.compress,
        "br": cramjam.brotli.compress,
    }
    packed = bytes(pack[encoding](body))
    assert unpack(encoding, packed) == body
    assert unpack(encoding, packed, limit=len(body)) == body
    for wrong in (packed[: len(packed) // 2], b"garbage" * 9):
        with pytest.raises(FrontError) as refused:
            unpack(encoding, wrong)
        assert refused.value.status == 400
    with pytest.raises(FrontError):
        unpack(encoding, packed, limit=len(body) - 1)


FORBIDDEN = frozenset({"file", "sleep", "outside"})

NOT_FOR_READERS = [
    # a setting without a value is one of 1, and its name may look like a clause
    "SELECT *  settings from",
    "SELECT * FROM system settings where .processes",
    "SELECT a IN (SELECT 1), a LIKE '%x'  settings FROM  FORMAT JSON",
    "SELECT * FROM (SELECT FINAL  settings SELECT )",
    "SHOW COLUMNS  settings FROM",
    "SELECT 1 settings from, readonly = 0",
    "SELECT file('/x')",
    "SELECT `file`('/x')",
    "SELECT `f\\x69le`('/x')",
    "SELECT file/**/('/x')",
    "SELECT arrayMap(file, ['/x'])",
    "SELECT * APPLY(file) FROM t",
    "SELECT * APPLY executable FROM t",
    "SELECT 1 AS `'`, file('/x') AS `x'`",
    "SELECT 1 AS \"'\", file('/x') AS \"x'\"",
    "SELECT 'x' AS `'` INTO OUTFILE '/x'",
    "SELECT 'it''s' AS a, file('/x')",
    "SELECT 'a\\'' AS a, file('/x')",
    "SELECT $a$'$a$ AS a, file('/x'), '$a$'",
    "SELECT 1 /* ' */, file('/x') /* ' */",
    "SELECT 1 # '\n, file('/x') # '",
    "SELECT * FROM url('http://x')",
    "SELECT * FROM remoteSecure('x')",
    "SELECT * FROM a, REMOTESECURE('x')",
    "SELECT * FROM merge('system', '.*')",
    "SELECT * FROM format(Protobuf, 'x')",
    "SELECT * FROM python(x)",
    "SELECT * FROM input('a String')",
    "SELECT * FROM viewExplain('EXPLAIN', '', (SELECT 1))",
    "SELECT formatRow('Protobuf', 1)",
    "SELECT groupFormat('Template', x) FROM t",
    "SELECT dictGet('d', 'a', 1)",
    "SELECT joinGet('j', 'a', 1)",
    "SELECT {f:Identifier}",
    "SELECT { f : identifier }",
    "SELECT aiGenerate('x')",
    "SELECT sleep(3)",
    "SELECT * FROM '/x'",
    "SELECT * FROM `/x`",
    "SELECT * FROM default.`/x`",
    "SELECT * FROM t JOIN '/x' ON 1",
    "SELECT * FROM t, '/x'",
    "SELECT * FROM limit, '/x'",
    "SELECT * FROM t AS limit FINAL, '/x'",
    "SELECT * FROM t select FINAL, '/x'",
    "SELECT * FROM t fetch FINAL, '/x'",
    "SELECT * FROM t JOIN u ON limit = 1, '/x'",
    "SELECT * FROM t JOIN u ON a * limit = 1, '/x'",
    "SELECT * FROM t AS array JOIN '/x'",
    "SELECT * FROM array JOIN '/x'",
    "SELECT * FROM view((SELECT 1) UNION ALL FROM '/x' SELECT *)",
    "SELECT trim(BOTH ' ' FROM (SELECT * FROM '/x'))",
    "SELECT x IN `/x` FROM t",
    "SELECT x IN (`/x`) FROM t",
    "SELECT * FROM outside",
    "SELECT * FROM db.`outside`",
    "SELECT * FROM system.tables",
    "SELECT * FROM `system` . `users`",
    'SELECT * FROM "system.users"',
    "SELECT * FROM information_schema.key_column_usage",
    "SELECT 1 SETTINGS max_threads = 1",
    "SELECT 1 SETTINGS final",
    "SELECT FROM SETTINGS format_schema",
    "SELECT 1 WHERE select SETTINGS a.b",
    "SELECT 1 WHERE select SETTINGS format_schema == '/x'",
    "SELECT * FROM (SELECT, '/x')",
    "SELECT * FROM (SELECT t, '/x' AS y FINAL)",
    "SELECT * FROM ((SELECT t, '\\x2fx'))",
    "SELECT * SETTINGS final",
    "SELECT 1 /* /* */ */ // '\n, file('/x')",
    "SELECT 1 FORMAT Protobuf",
    "SELECT 1 FORMAT `Template`",
    "SELECT 1 FORMAT CapnProto",
    "SELECT 1 PARALLEL WITH DROP TABLE t",
    "WITH x AS (SELECT 1) INSERT INTO t SELECT 1",
    "DESCRIBE TABLE url('x')",
    "DESCRIBE file('/x')",
    "DESCRIBE `/x`",
    "DESCRIBE '/x'",
    "EXISTS TABLE `/x`",
    "EXISTS '/x'",
    "EXISTS DATABASE system",
    "SHOW TABLES FROM system",
    "SHOW COLUMNS FROM users FROM system",
    "SHOW CREATE USER x",
    "SHOW CREATE DATABASE x",
    "SHOW GRANTS",
    "SHOW PROCESSLIST",
    "EXPLAIN AST INSERT INTO t VALUES (1)",
    "EXPLAIN SYNTAX DROP TABLE t",
    "EXPLAIN AST (SET final = 1)",
    "EXPLAIN SELECT file('/x')",
    "SELECT * FROM (EXPLAIN AST DROP TABLE t)",
    "KILL QUERY WHERE 1",
    "INSERT INTO t SELECT 1",
    "SYSTEM SHUTDOWN",
    "SELECTED",
    "file",
    "(((",
]


@pytest.mark.parametrize("text", NOT_FOR_READERS)
def test_not_for_readers(text: str) -> None:
    with pytest.raises(FrontError) as refused:
        judge(text, FORBIDDEN)
    assert (refused.value.code, refused.value.status) == (164, 403)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-- nothing",
        "SELECT 1; SELECT 2",
        "SELECT 'x",
        "SELECT `x",
        "SELECT /* x",
        "SELECT b'2'",
        "SELECT 1 /* /* */",
        "SELECT $a$x$b$",
        "SELECT \u201cx\u201d",
        "SELECT\u00a01",
        "SELECT 1\0, 2",
        "SELECT `a\\nb`",
        "SELECT `a\\xff`",
        "SELECT 1)",
        "SELECT " + "1," * 40_000,
    ],
)
def test_no_statement(text: str) -> None:
    with pytest.raises(FrontError) as refused:
        judge(text, FORBIDDEN)
    assert (refused.value.code, refused.value.status) == (62, 400)


LONG = {
    "a name of combinators": "SELECT count" + "if" * 30_000 + "(1)",
    "comments in comments": "/*" * 30_000,
    "comments": "/**/" * 16_000 + "x",
    "quotes": "SELECT " + "'" * 60_001,
    "parentheses": "SELECT " + "(" * 60_000,
    "heredocs": "SELECT " + "$a$" + "$b" * 30_000,
    "formats": "SELECT '" + "FORMAT a SETTINGS " * 3_000,
    "settings": "SELECT " + "settings " * 7_000,
    "lists": "SELECT * FROM t" + ", u" * 20_000 + ", '/x'",
}


@pytest.mark.parametrize("case", LONG)
def test_a_long_statement_takes_no_time_that_grows_faster(case: str) -> None:
    """Each of them kept an expression busy for minutes, or would; the interpreter serves nobody meanwhile."""
    with pytest.raises(FrontError):
        judge(LONG[case], FORBIDDEN)
    assert not stores(LONG[case])


def test_names_of_parameters_are_words() -> None:
    for name in ("param_", "param_a b", "param_\u0436", "param_a'"):
        with pytest.raises(FrontError, match="parameter"):
            parse({"query": "SELECT 1", name: "1"}, {}, b"")


FOR_READERS = {
    "SELECT 1;": "SELECT 1",
    "WITH 1 AS x SELECT x": "WITH 1 AS x SELECT x",
    "SELECT 'file(x) INTO OUTFILE'": "SELECT 'file(x) INTO OUTFILE'",
    "SELECT profile, air, ai_model, url FROM t": "SELECT profile, air, ai_model, url FROM t",
    "SELECT /* file( */ 1 -- file(": "SELECT 1",
    "SELECT x'41', b'0101'": None,
    "SELECT settings FROM t WHERE settings = 1": None,
    "SELECT DISTINCT settings FROM t ORDER BY settings LIMIT 1": None,
    "SELECT 1 /* /* ' */ */ // '\n, 2": "SELECT 1 , 2",
    "SELECT {from:Int64}, 'x', {until:Int64}": None,
    "SELECT $x$it's$x$": "SELECT 'it\\'s'",
    'SELECT a AS "b`c" FROM t': "SELECT a AS `b\\`c` FROM t",
    "SELECT `f\\x6fo`(1)": None,
    'SELECT cost AS "USD / h" FROM t GROUP BY x ORDER BY x, "USD / h"': None,
    "SELECT 'a', extract(DAY FROM now()), trim(BOTH ' ' FROM 'x'), 'y' FROM t, u WHERE a IN ('x', 'y')": None,
    "SELECT * FROM (SELECT (1), 'a') AS t, numbers(3)": None,
    "SELECT sumIf(a, b), quantileExactIf(0.9)(a, b), uniqExactMerge(c) FROM t FINAL": None,
    "SELECT max(x) OVER (PARTITION BY y ORDER BY z ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t": None,
    "SELECT a FROM t ARRAY JOIN [1, 2] AS x, ['a'] AS y WHERE 'x' = y": None,
    "SELECT x::Decimal(18, 9), CAST(y AS Nullable(String)) FROM t": None,
    "SELECT {a:Array(UInt8)}, {b:DateTime64(6, 'UTC')}": None,
    "SELECT name, value FROM system.settings WHERE name IN ('a', 'b')": None,
    "SELECT 1 UNION ALL (SELECT 2) FORMAT JSONCompactEachRow": None,
    "SHOW TABLES": None,
    "SHOW FULL COLUMNS FROM t": None,
    "SHOW CREATE TABLE db.t": None,
    "DESCRIBE TABLE t": None,
    "DESC db.t FORMAT JSON": None,
    "DESCRIBE (SELECT 1)": None,
    "EXISTS TABLE t": None,
    "EXPLAIN SELECT url FROM t": None,
    "EXPLAIN PIPELINE graph = 1, compact = 0 SELECT 1": None,
    "FROM t SELECT 1": None,
}


@pytest.mark.parametrize("text", FOR_READERS)
def test_for_readers(text: str) -> None:
    if (expected := FOR_READERS[text]) is None and "x6f" in text:
        with pytest.raises(FrontError, match="'foo'"):
            judge(text, FORBIDDEN)
        return
    written = judge(text, FORBIDDEN)
    assert expected in (written, None)
    assert judge(written, FORBIDDEN) == written


def test_a_view_is_as_forbidden_as_what_it_reads() -> None:
    relations = [
        ("d", "plain", "ReplacingMergeTree", ""),
        ("d", "good", "View", "SELECT * FROM d.plain"),
        ("d", "probe", "View", "SELECT file('/x')"),
        ("d", "over", "View", "SELECT * FROM d.probe"),
        ("d", "Files", "File", ""),
        ("d", "all", "MaterializedView", "SELECT * FROM d.`Files`"),
    ]
    assert forbidden_relations(relations, FORBIDDEN) == {"probe", "over", "files", "all"}


def test_every_question_and_view_of_ours_is_for_readers() -> None:
    folder = resources.files("tollmeter.sinks.clickhouse")
    asked = [path.name[:-4] for path in (folder / "queries").iterdir() if not path.name.startswith("_")]
    for name in asked:
        text = load(name)
        if not any(f"\n{word} " in text for word in ("INSERT", "DELETE", "SETTINGS")):
            judge(text, FORBIDDEN)
    assert len(asked) > 20


def test_settings_for_readers() -> None:
    check_setting("output_format_json_quote_64bit_integers", "1")
    check_setting("session_timezone", "America/Argentina/Buenos_Aires")
    for name, value in [
        ("readonly", "0"),
        ("max_execution_time_leaf", "1"),
        ("allow_ddl", "1"),
        ("x final", "1"),
        ("output_format_schema", "/x"),
        ("format_schema", "/x"),
        ("format_template_row", "/x"),
        ("session_timezone", "../../x"),
        ("session_timezone", "/x"),
        ("session_timezone", "file:/x"),
        ("max_block_size", "0"),
        ("max_block_size", "9999999"),
        ("final", "2"),
        ("max_result_rows", "1e9"),
        ("max_result_rows", "\u0661"),
    ]:
        with pytest.raises(FrontError):
            check_setting(name, value)


def test_limits_of_readers_stay() -> None:
    assert reader_settings({"max_threads": "64", "final": "1"}, {})["max_threads"] == LIMITS["max_threads"]
    assert reader_settings({"max_execution_time": "0"}, {"max_execution_time": "5"})["max_execution_time"] == "5"


def test_errors_keep_the_engines_code() -> None:
    known = from_engine(RuntimeError("Query failed: Code: 60. DB::Exception: Table x does not exist. (UNKNOWN_TABLE)"))
    assert known is not None
    assert (known.code, known.status, str(known)[:9]) == (60, 404, "Code: 60.")
    assert from_engine(ValueError("a bug")) is None


def test_hello_is_one_row_at_the_clients_revision() -> None:
    expected = (
        b"\x01\x00\x02\xff\xff\xff\xff\x00\x04\x01"
        b"\x0ddisplayName()\x06String\x00\x09tollmeter"
        b"\x09version()\x06String\x00\x0426.9"
        b"\x0arevision()\x06UInt32\x00\x00\x00\x00\x00"
        b"\x0atimezone()\x06String\x00\x03UTC"
    )
    assert hello.block("26.9", "UTC") == expected
    assert hello.QUERY.match("SELECT displayName(), version(), revision(), timezone()")
