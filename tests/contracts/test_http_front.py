"""The ClickHouse HTTP front serves stock clients as a server does, and a reader reads tables and nothing else."""

import asyncio
import gzip
import json
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import clickhouse_connect
import cramjam
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from tollmeter.embedded.front import MAX_BODY
from tollmeter.embedded.stack import Stack
from tollmeter.embedded.unpack import MAX_UNPACKED
from tollmeter.settings import Settings

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def passwords(stack: Stack) -> dict[str, str]:
    users = json.loads((stack.data_dir / "users.json").read_text())
    return {name: fields["password"] for name, fields in users.items()}


@pytest.fixture
def table(stack: Stack, passwords: dict[str, str]) -> Iterator[str]:
    name = f"t{os.urandom(6).hex()}"
    columns = "id UInt64, name LowCardinality(String), at DateTime64(6, 'UTC'), amount Nullable(Int64)"
    text = (
        f"CREATE TABLE {name} ({columns}) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window=9"
    )
    ask(stack, passwords, text)
    yield name
    ask(stack, passwords, f"DROP TABLE {name}")


def ask(
    stack: Stack, passwords: dict[str, str], body: str | bytes, user: str = "default", **more: Any
) -> tuple[int, str, dict[str, str]]:
    """POST (or GET) and return status, text and headers, whatever the status is."""
    raw = body.encode() if isinstance(body, str) else body
    headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": passwords.get(user, ""), **more.pop("headers", {})}
    url = f"{stack.settings.clickhouse}{more.pop('path', '/')}?{urlencode(more.pop('params', {}))}"
    method = more.pop("method", "POST")
    assert not more
    request = urllib.request.Request(url, raw if method == "POST" else None, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), dict(error.headers)


def connect_arguments(stack: Stack, passwords: dict[str, str], user: str = "default") -> dict[str, Any]:
    port = int(stack.settings.clickhouse.rpartition(":")[2])
    return {"host": "127.0.0.1", "port": port, "username": user, "password": passwords[user]}


ROWS: list[list[Any]] = [
    [1, "a", datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), 10],
    [2, "b'\\\n", datetime(2026, 1, 2, 3, 4, 6, 0, UTC), None],
]


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_clickhouse_connect_sync(stack: Stack, passwords: dict[str, str], table: str, compress: Any) -> None:
    client = clickhouse_connect.get_client(**connect_arguments(stack, passwords), compress=compress)
    try:
        client.insert(table, ROWS, column_names=["id", "name", "at", "amount"])
        result = client.query(
            f"SELECT * FROM {table} WHERE id >= {{least:UInt64}} ORDER BY id", parameters={"least": 1}
        )
        naive = [[number, name, at.replace(tzinfo=None), amount] for number, name, at, amount in ROWS]
        assert [[*row[:2], row[2].replace(tzinfo=None), row[3]] for row in result.result_rows] == naive
        assert client.command(f"SELECT count() FROM {table}") == 2
        assert client.query_arrow(f"SELECT sum(amount) AS s FROM {table}").to_pylist() == [{"s": 10}]
        with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
            client.query("SELECT * FROM no_such_table")
    finally:
        client.close()


def test_clickhouse_connect_async(stack: Stack, passwords: dict[str, str], table: str) -> None:
    async def work() -> list[Any]:
        client = await clickhouse_connect.get_async_client(**connect_arguments(stack, passwords))
        try:
            await client.insert(table, ROWS, column_names=["id", "name", "at", "amount"])
            counts = [client.query(f"SELECT count() FROM {table}") for _ in range(5)]
            return [answer.result_rows[0][0] for answer in await asyncio.gather(*counts)]
        finally:
            await client.close()

    assert asyncio.run(work()) == [2] * 5


def arrow_block(first: int, rows: int) -> bytes:
    data = pa.table(
        {
            "id": pa.array(range(first, first + rows), pa.uint64()),
            "name": pa.array(["x"] * rows).dictionary_encode(),
            "at": pa.array([ROWS[0][2]] * rows, pa.timestamp("us", "UTC")),
            "amount": pa.array([7] * rows, pa.int64()),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, data.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(data, max_chunksize=1_000)
    return sink.getvalue().to_pybytes()


def test_arrow_blocks_and_their_token(stack: Stack, passwords: dict[str, str], table: str) -> None:
    client = clickhouse_connect.get_client(**connect_arguments(stack, passwords))
    try:
        settings = {"insert_deduplication_token": "first", "insert_deduplicate": "1", "async_insert": "0"}
        for _ in range(2):
            client.raw_insert(table, insert_block=arrow_block(0, 5_000), fmt="ArrowStream", settings=settings)
        summary = client.raw_insert(table, insert_block=arrow_block(5_000, 500), fmt="ArrowStream")
        assert summary.written_rows == 500
        assert client.command(f"SELECT count() FROM {table}") == 5_500
    finally:
        client.close()


def test_curl(stack: Stack, passwords: dict[str, str], table: str) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    start = [curl, "-sS", "-u", f"default:{passwords['default']}"]
    url = f"{stack.settings.clickhouse}/"

    def run(*more: str) -> str:
        return subprocess.run([*start, *more], capture_output=True, text=True, check=True).stdout

    assert run(f"{url}?query=SELECT%201") == "1\n"
    insert = f"INSERT INTO {table} (id, name) FORMAT CSV\n1,a\n2,b\n"
    assert run(url, "--data-binary", insert) == ""
    assert run(f"{url}?query={quote(f'INSERT INTO {table} (id, name) VALUES')}", "-d", "(3, 'FORMAT x')") == ""
    assert run(url, "--data-binary", f"INSERT INTO {table} (id, name) VALUES (4, 'a FORMAT b')") == ""
    assert run(url, "-H", "Transfer-Encoding: chunked", "-d", f"SELECT count() FROM {table}") == "4\n"
    assert run(url, "-F", "query=SELECT {x:UInt8} + 1", "-F", "param_x=4") == "5\n"
    assert run(url, "-H", "X-ClickHouse-Format: JSONEachRow", "-d", "SELECT 1 AS a") == '{"a":1}\n'
    assert run(f"{stack.settings.clickhouse}/ping") == "Ok.\n"
    headers = run("-I", f"{url}?query=SELECT%201")
    assert "200" in headers.splitlines()[0]


@pytest.mark.node
def test_npm_client(stack: Stack, passwords: dict[str, str], table: str) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node.js and npm are not installed")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "tollmeter", "node-client-1")
    if not (base / "node_modules" / "@clickhouse" / "client").is_dir():
        base.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--no-audit", "--no-fund", "--silent", "@clickhouse/client@1.23.0"]
        subprocess.run(command, cwd=base, check=True)
    script = base / f"check-{os.getpid()}.mjs"
    script.write_text(NODE_SCRIPT)
    environment = {**os.environ, "URL": stack.settings.clickhouse, "PASSWORD": passwords["default"], "TABLE": table}
    try:
        done = subprocess.run([node, script], cwd=base, env=environment, capture_output=True, text=True, check=False)
    finally:
        script.unlink()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"ping": True, "rows": [{"n": "2", "m": "1.5"}], "error": "60", "gzip": 2000}


NODE_SCRIPT = """
import { createClient } from '@clickhouse/client'
const { URL: url, PASSWORD: password, TABLE: table } = process.env
const client = createClient({ url, username: 'default', password, compression: { request: true, response: true } })
const ping = (await client.ping()).success
await client.insert({ table, values: [{ id: 1, name: 'a' }, { id: 2, name: 'b' }], format: 'JSONEachRow' })
const answer = await client.query({
  query: `SELECT toString(count()) AS n, toString({x: Float64}) AS m FROM ${table}`,
  query_params: { x: 1.5 }, format: 'JSONEachRow',
})
const rows = await answer.json()
let error = ''
try { await client.query({ query: 'SELECT * FROM no_such_table' }) } catch (e) { error = e.code }
const many = await (await client.query({ query: 'SELECT number FROM numbers(2000)', format: 'JSONEachRow' })).json()
await client.close()
console.log(JSON.stringify({ ping, rows, error, gzip: many.length }))
"""


REFUSED_TO_READERS = {
    "scalar file": "SELECT file('/etc/passwd')",
    "file by name": "SELECT arrayMap(file, ['/etc/passwd'])",
    "file in backticks": "SELECT `file`('/etc/passwd')",
    "file in double quotes": "SELECT \"file\"('/etc/passwd')",
    "escaped identifier": "SELECT `f\\x69le`('/etc/passwd')",
    "escaped in double quotes": "SELECT \"f\\x69le\"('/etc/passwd')",
    "upper case": "SELECT FILE('/etc/passwd')",
    "comment between": "SELECT file/**/('/etc/passwd')",
    "table function file": "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "table function url": "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
    "table function s3": "SELECT * FROM s3('http://127.0.0.1:1/b/k', 'LineAsString')",
    "table function remote": "SELECT * FROM remote('127.0.0.1:1', system.one)",
    "table function executable": "SELECT * FROM executable('x.sh', 'TSV', 'a String')",
    "in a subquery": "SELECT * FROM (SELECT * FROM file('/etc/passwd', 'LineAsString'))",
    "in a common table expression": "WITH a AS (SELECT file('/etc/passwd') AS x) SELECT x FROM a",
    "describe file": "DESCRIBE file('/etc/passwd')",
    "describe table url": "DESCRIBE TABLE url('http://127.0.0.1:1/x.csv')",
    "kill": "KILL QUERY WHERE 1",
    "two statements": "SELECT 1; SELECT 2",
    "two statements with a write": "SELECT 1; DROP TABLE {table}",
    "settings on the statement": "SELECT 1 SETTINGS readonly = 0",
    "time limit lifted on the statement": "SELECT 1 SETTINGS max_execution_time = 0",
    "set": "SET readonly = 0",
    "use": "USE system",
    "insert": "INSERT INTO {table} (id) VALUES (1)",
    "insert with data": "INSERT INTO {table} (id) FORMAT CSV\n1\n",
    "insert from file": "INSERT INTO {table} (id) FROM INFILE '/etc/passwd' FORMAT LineAsString",
    "insert from select": "INSERT INTO {table} (id) SELECT 1",
    "into outfile": "SELECT 1 INTO OUTFILE '/tmp/tollmeter-outfile'",
    "create": "CREATE TABLE x (a UInt8) ENGINE = Memory",
    "create by file engine": "CREATE TABLE x (a String) ENGINE = File(CSV, '/etc/passwd')",
    "drop": "DROP TABLE {table}",
    "alter": "ALTER TABLE {table} DELETE WHERE 1",
    "system": "SYSTEM SHUTDOWN",
    "explain of a file": "EXPLAIN SELECT file('/etc/passwd')",
    "into outfile, explained": "EXPLAIN SELECT 1 INTO OUTFILE '/tmp/tollmeter-outfile'",
    "into outfile, commented": "SELECT 1 INTO /**/ OUTFILE '/tmp/tollmeter-outfile' TRUNCATE FORMAT CSV",
    "path as a table": "SELECT * FROM `/etc/passwd`",
    "path as a quoted table": "SELECT * FROM '/etc/passwd'",
    "not a statement": "SELEC 1 FROM",
    "empty": "",
}


@pytest.mark.parametrize("case", REFUSED_TO_READERS)
def test_refused_to_a_reader(stack: Stack, passwords: dict[str, str], table: str, case: str) -> None:
    text = REFUSED_TO_READERS[case].replace("{table}", table)
    status, body, headers = ask(stack, passwords, text, user="reader")
    assert 400 <= status < 500, body
    assert "root:" not in body
    assert int(headers["X-ClickHouse-Exception-Code"]) in (62, 164), body
    assert not Path("/tmp/tollmeter-outfile").exists()
    assert ask(stack, passwords, f"SELECT count() FROM {table}")[1] == "0\n"


@pytest.mark.parametrize(
    "params",
    [
        {"readonly": "0"},
        {"max_execution_time ": "1"},
        {"max_execution_time": "1", "file_like_engine_default_partition_strategy": "x"},
        {"param_f": "file", "query": "SELECT {f:Identifier}('/etc/passwd')"},
        {"allow_introspection_functions": "1"},
    ],
    ids=lambda params: next(reversed(params)),
)
def test_parameters_refused_to_a_reader(stack: Stack, passwords: dict[str, str], params: dict[str, str]) -> None:
    status, body, _ = ask(stack, passwords, "" if "query" in params else "SELECT 1", user="reader", params=params)
    assert 400 <= status < 500, body


def test_a_reader_reads(stack: Stack, passwords: dict[str, str], table: str) -> None:
    ask(stack, passwords, f"INSERT INTO {table} (id, name) VALUES (1, 'file(x); url(y)')")
    for text in (
        f"SELECT name FROM {table} WHERE name = 'file(x); url(y)' -- file()",
        f"WITH x AS (SELECT name FROM {table}) SELECT name FROM x",
        f"SELECT name FROM {table} FORMAT TabSeparated",
    ):
        assert ask(stack, passwords, text, user="reader")[:2] == (200, "file(x); url(y)\n")
    assert ask(stack, passwords, "SHOW TABLES", user="reader")[0] == 200
    assert ask(stack, passwords, f"DESCRIBE TABLE {table}", user="reader")[0] == 200
    final = ask(stack, passwords, "SELECT 1", user="reader", params={"max_threads": "1", "final": "0"})
    assert final[:2] == (200, "1\n")


def test_a_reader_reads_every_table_and_view_of_a_line(
    stack: Stack, passwords: dict[str, str], ledger_settings: Settings
) -> None:
    database = {"params": {"database": ledger_settings.clickhouse_database}}
    names = ask(stack, passwords, "SHOW TABLES", user="reader", **database)[1].split()
    assert {"usage", "usage_events", "alerts"} <= {*names}
    for name in names:
        for text in (f"SELECT * FROM {name} LIMIT 1 FORMAT JSON", f"DESCRIBE TABLE {name}", f"EXISTS TABLE {name}"):
            status, body, _ = ask(stack, passwords, text, user="reader", params=dict(database["params"]))
            assert status == 200, body


GRAFANA = {
    "time series": """SELECT toStartOfInterval(event_time, INTERVAL 60 second) AS time, model AS metric,
        sum(cost_usd) AS "cost, USD/h" FROM usage WHERE event_time >= toDateTime(1700000000)
        AND event_time <= toDateTime(1800000000) GROUP BY time, model ORDER BY time ASC, "cost, USD/h" DESC""",
    "window": """WITH days AS (SELECT toDate(event_time) AS day, count() AS calls FROM usage GROUP BY day)
        SELECT day, calls, sum(calls) OVER (ORDER BY day ROWS BETWEEN 6 PRECEDING AND CURRENT ROW) FROM days""",
    "subquery": "SELECT model FROM usage WHERE model IN (SELECT model FROM usage GROUP BY model HAVING count() > 1)",
    "parameters": "SELECT count() FROM usage WHERE model = {model:String} AND event_time > {from:DateTime64(6, 'UTC')}",
    "columns": "SHOW COLUMNS FROM usage",
    "databases": "SHOW DATABASES",
    "plan": "EXPLAIN SELECT count() FROM usage",
}


@pytest.mark.parametrize("form", ["JSON", "CSVWithNames", "TSV", "ArrowStream", "Native", "Parquet"])
@pytest.mark.parametrize("case", GRAFANA)
def test_a_reader_asks_as_dashboards_do(
    stack: Stack, passwords: dict[str, str], ledger_settings: Settings, case: str, form: str
) -> None:
    url = {"database": ledger_settings.clickhouse_database, "default_format": form, "max_execution_time": "60"}
    url |= {"param_model": "it's", "param_from": "2026-01-01 00:00:00", "output_format_json_quote_64bit_integers": "1"}
    headers = {"X-ClickHouse-User": "reader", "X-ClickHouse-Key": passwords["reader"]}
    request = urllib.request.Request(f"{stack.settings.clickhouse}/?{urlencode(url)}", GRAFANA[case].encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.headers["X-ClickHouse-Format"] == form


def test_a_reader_cannot_lift_its_limits(stack: Stack, passwords: dict[str, str]) -> None:
    show = "SELECT getSetting('max_execution_time') AS s, getSetting('max_memory_usage') AS m FORMAT CSV"
    wish = {"max_execution_time": "0", "max_memory_usage": "0"}
    assert ask(stack, passwords, show, user="reader", params=wish)[:2] == (200, f"30,{1 << 30}\n")


def test_a_query_that_takes_too_long(stack: Stack, passwords: dict[str, str]) -> None:
    text, limit = "SELECT sum(number) FROM numbers(1e15)", {"max_execution_time": "0.2"}
    status, body, headers = ask(stack, passwords, text, params=limit)
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (408, "159"), body


@pytest.mark.parametrize(
    "headers",
    [
        {"X-ClickHouse-User": "default", "X-ClickHouse-Key": ""},
        {"X-ClickHouse-User": "default", "X-ClickHouse-Key": "wrong"},
        {"X-ClickHouse-User": "nobody", "X-ClickHouse-Key": ""},
        {"X-ClickHouse-User": "", "Authorization": "Basic !!!"},
        {"X-ClickHouse-User": "", "Authorization": "Basic ZGVmYXVsdDo="},
        {"Origin": "http://example.com"},
        {"Host": "example.com"},
    ],
    ids=["no password", "wrong password", "unknown user", "not base64", "empty basic", "web page", "rebound name"],
)
def test_refused_at_the_door(stack: Stack, passwords: dict[str, str], headers: dict[str, str]) -> None:
    status, body, answered = ask(stack, passwords, "SELECT 1", headers=headers)
    assert status in (401, 403)
    assert answered["X-ClickHouse-Exception-Code"] == "516"
    assert body.startswith("Code: 516. DB::Exception: ")


POISON = {
    "bad number": ("CSV", b"1,a\nx,y\n"),
    "garbage for Arrow": ("ArrowStream", b"garbage"),
    "Arrow cut short": ("ArrowStream", arrow_block(0, 50)[:-900]),
    "bad JSON": ("JSONEachRow", b'{"id": 1}\n{"id": '),
    "unknown format": ("NoSuchFormat", b"1"),
    "bad UTF-8 in the statement's place": ("Native", b"\xff" * 100),
}


@pytest.mark.parametrize("case", POISON)
def test_a_poisoned_insert_is_the_clients_fault_and_writes_nothing(
    stack: Stack, passwords: dict[str, str], table: str, case: str
) -> None:
    name, data = POISON[case]
    query = {"query": f"INSERT INTO {table} (id, name) FORMAT {name}"}
    status, body, headers = ask(stack, passwords, data, params=query)
    assert 400 <= status < 500, body
    assert headers["X-ClickHouse-Exception-Code"].isdigit()
    assert ask(stack, passwords, f"SELECT count() FROM {table}")[1] == "0\n"


def test_a_violated_constraint_is_the_clients_fault(stack: Stack, passwords: dict[str, str], table: str) -> None:
    ask(stack, passwords, f"ALTER TABLE {table} ADD CONSTRAINT positive CHECK amount > 0")
    status, _, headers = ask(stack, passwords, f"INSERT INTO {table} (id, amount) FORMAT CSV\n1,5\n2,-5\n")
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (400, "469")
    assert ask(stack, passwords, f"SELECT count() FROM {table}")[1] == "0\n"


def test_settings_before_the_format_of_an_insert(stack: Stack, passwords: dict[str, str], table: str) -> None:
    token = "SETTINGS insert_deduplication_token = 'a FORMAT b', insert_deduplicate = 1"
    for _ in range(2):
        text = f"INSERT INTO {table} (id) {token} FORMAT CSV\n1\n"
        assert ask(stack, passwords, text)[0] == 200
    assert ask(stack, passwords, "", params={"query": f"INSERT INTO {table} (id) FORMAT CSV"})[0] == 200
    assert ask(stack, passwords, f"SELECT count() FROM {table}")[1] == "1\n"


BOMB = b"0\n" * (MAX_UNPACKED // 2 + 1)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "lz4", "zstd"])
def test_a_small_body_that_unpacks_to_too_much(stack: Stack, passwords: dict[str, str], encoding: str) -> None:
    packed = {
        "gzip": lambda: gzip.compress(BOMB, 1),
        "deflate": lambda: zlib.compress(BOMB, 1),
        "lz4": lambda: bytes(cramjam.lz4.compress(BOMB)),
        "zstd": lambda: bytes(cramjam.zstd.compress(BOMB)),
    }[encoding]()
    status, _, headers = ask(stack, passwords, packed, headers={"Content-Encoding": encoding})
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (400, "271")


def test_a_body_beyond_the_limit_is_not_read(stack: Stack, passwords: dict[str, str]) -> None:
    status, _, _ = ask(stack, passwords, b"", headers={"Content-Length": str(MAX_BODY + 1)})
    assert status == 413


def test_a_large_body_of_a_stranger_gets_its_answer(stack: Stack, passwords: dict[str, str]) -> None:
    status, _, _ = ask(stack, passwords, b"x" * (20 << 20), user="nobody")
    assert status == 401


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"headers": {"Content-Encoding": "rot13"}}, 400),
        ({"headers": {"Content-Encoding": "gzip"}}, 400),
        ({"params": {"compress": "1"}}, 501),
        ({"params": {"database": "no_such_database"}}, 404),
        ({"params": {"no_such_setting": "1"}}, 404),
        ({"params": {"bad name;": "1"}}, 404),
        ({"path": "/play"}, 404),
        ({"method": "GET", "params": {"query": "CREATE TABLE x (a UInt8) ENGINE = Memory"}}, 403),
    ],
    ids=["encoding", "not gzip", "framing", "database", "setting", "setting name", "path", "write by GET"],
)
def test_errors_carry_their_status(stack: Stack, passwords: dict[str, str], more: Any, status: int) -> None:
    assert ask(stack, passwords, "SELECT 1", **more)[0] == status


def test_settings_do_not_leak_to_the_next_request(stack: Stack, passwords: dict[str, str]) -> None:
    show = "SELECT getSetting('max_result_rows')"
    assert ask(stack, passwords, show, params={"max_result_rows": "77"})[1] == "77\n"
    assert ask(stack, passwords, show)[1] == "0\n"
    ask(stack, passwords, "SELECT nonsense", user="reader")
    assert ask(stack, passwords, "CREATE TABLE leak (a UInt8) ENGINE = Memory")[0] == 200
    assert ask(stack, passwords, "DROP TABLE leak")[0] == 200


def test_large_answers_are_compressed_when_asked(stack: Stack, passwords: dict[str, str]) -> None:
    wish = {"headers": {"Accept-Encoding": "gzip"}, "params": {"enable_http_compression": "1"}}
    raw = stack.settings.clickhouse
    request = urllib.request.Request(
        f"{raw}/?{urlencode(wish['params'])}",
        b"SELECT number FROM numbers(1000)",
        {**wish["headers"], "X-ClickHouse-User": "reader", "X-ClickHouse-Key": passwords["reader"]},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert len(gzip.decompress(answer.read()).split()) == 1000


def test_data_survives_a_restart_and_a_kill(
    stack: Stack, passwords: dict[str, str], table: str, eventually: Any
) -> None:
    ask(stack, passwords, f"INSERT INTO {table} (id) VALUES (1), (2), (3)")
    for number in (signal.SIGTERM, signal.SIGKILL):
        stack.kill("front", number, restart=False)
        stack.resume("front")
        eventually(lambda: ask(stack, passwords, f"SELECT count() FROM {table}")[1] == "3\n")


def test_the_passwords_are_for_their_owner_alone(stack: Stack) -> None:
    for name in ("users.json", "stack.json"):
        assert (stack.data_dir / name).stat().st_mode & 0o077 == 0
