"""The front's pure parts: how a request becomes a statement, what unpacks, what a reader may say."""

import gzip
import zlib
from typing import Any

import cramjam
import pytest

from tollmeter.embedded import clickhouse_go_hello as hello
from tollmeter.embedded.errors import FrontError, from_engine
from tollmeter.embedded.readonly import check_setting, check_statement, unsafe_functions
from tollmeter.embedded.statement import parse
from tollmeter.embedded.unpack import unpack

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


UNSAFE = unsafe_functions(["file", "url", "s3", "numbers", "remoteSecure"])


@pytest.mark.parametrize(
    "text",
    [
        "SELECT file('/x')",
        "SELECT `file`('/x')",
        "SELECT arrayMap(file, ['/x'])",
        "SELECT * FROM url('http://x')",
        "SELECT * FROM remoteSecure('x')",
        "SELECT * FROM REMOTESECURE('x')",
        "SELECT 'it''s' AS a, file('/x')",
        "SELECT 'a\\'' AS a, file('/x')",
        "SELECT {f:Identifier}",
        "SELECT aiGenerate('x')",
        "SELECT 1 INTO OUTFILE '/x'",
        "DESCRIBE TABLE url('x')",
        "KILL QUERY WHERE 1",
        "INSERT INTO t SELECT 1",
        "SELECTED",
    ],
)
def test_not_for_readers(text: str) -> None:
    with pytest.raises(FrontError) as refused:
        check_statement(text, UNSAFE)
    assert (refused.value.code, refused.value.status) == (164, 403)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1",
        "WITH 1 AS x SELECT x",
        "SELECT 'file(x) INTO OUTFILE'",
        "SELECT profile, air, ai_model FROM t",
        "SELECT * FROM numbers(3)",
        "DESCRIBE TABLE t",
        "EXPLAIN SELECT url FROM t",
    ],
)
def test_for_readers(text: str) -> None:
    check_statement(text, UNSAFE)


def test_settings_for_readers() -> None:
    check_setting("output_format_json_quote_64bit_integers")
    for name in ("readonly", "max_execution_time_leaf", "allow_ddl", "x final"):
        with pytest.raises(FrontError):
            check_setting(name)


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
