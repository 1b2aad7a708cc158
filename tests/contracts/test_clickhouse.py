"""The client against a real engine: every form of a row arrives, a set stays a set, failures are told apart."""

import io
import json
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.priced_rows import DEFAULTS, SCHEMA, START, event_id, frame, insert, ipc, row
from tollmeter.schemas.priced import PRICED_COLUMNS, row_version
from tollmeter.settings import Settings, SettingsError
from tollmeter.sinks.clickhouse.client import ClickHouse, Rejected, Unavailable, connect, connect_existing
from tollmeter.sinks.clickhouse.codes import BROKEN_FILES

pytestmark = pytest.mark.stack


@pytest.fixture
def ledger(ledger_settings: Settings) -> Iterator[ClickHouse]:
    client = connect(ledger_settings)
    for table in ("usage_events", "alerts"):
        client.command(f"TRUNCATE TABLE {table}")
    yield client
    client.close()


def test_table_has_the_columns_of_the_contract_in_order(ledger: ClickHouse) -> None:
    names = [column["name"] for column in ledger.query("DESCRIBE TABLE usage_events")]
    made_here = ["priced_partition", "priced_offset", "version", "inserted_at"]
    assert names == [column.name for column in PRICED_COLUMNS] + made_here


def test_the_embedded_engine_seldom_looks_at_its_own_memory(ledger: ClickHouse) -> None:
    asked = "SELECT value FROM system.server_settings WHERE name = 'memory_worker_period_ms'"
    assert ledger.query(asked) == [{"value": "500"}]


def test_a_row_of_defaults_comes_back_unchanged(ledger: ClickHouse) -> None:
    insert(ledger, [row(1)], partition=3, offset=7)
    (found,) = ledger.query("SELECT * FROM usage_events FINAL")
    assert str(found.pop("event_id")) == event_id(1)
    assert (found.pop("priced_partition"), found.pop("priced_offset")) == (3, 7)
    assert found.pop("version") == row_version(0, 7)
    assert abs(found.pop("inserted_at") - datetime.now(UTC)) < timedelta(minutes=1)
    assert found == {name: value for name, value in DEFAULTS.items() if name != "event_id"}


def test_a_full_row_comes_back_unchanged(ledger: ClickHouse) -> None:
    full = {
        "text": "µ 'quoted' \\ \n",
        "dict": "wort",
        "i64": 2**53 + 1,
        "i32": 2**31 - 1,
        "u16": 65_535,
        "bool": True,
        "ts_us": START + timedelta(microseconds=123_457),
        "ts_ms": START + timedelta(milliseconds=9),
        "date": date(2026, 11, 20),
        "tags": [{"key": "team", "value": "a"}, {"key": "", "value": ""}],
        "units": [{"key": "web_searches", "value": 2.5}],
    }
    values = {column.name: full[column.kind.rstrip("?")] for column in PRICED_COLUMNS} | {"event_id": event_id(2)}
    insert(ledger, [values])
    (found,) = ledger.query("SELECT * FROM usage_events FINAL")
    assert str(found["event_id"]) == event_id(2)
    assert {name: found[name] for name in SCHEMA if name != "event_id"} == {
        name: value for name, value in values.items() if name != "event_id"
    }


IPS = [
    "",
    "203.0.113.7",
    "203.0.113.0/24",
    "203.0.113.x",
    "2001:db8::1",
    "2001:db8:85a3::/48",
    "::ffff:10.0.0.1",
    "h:4f9a1c22d0e1b3a7",
    "unknown",
    "10.0.0.1, 10.0.0.2",
    "é" * 256,
]


def test_every_form_of_an_address_arrives(ledger: ClickHouse) -> None:
    insert(ledger, [row(number, client_ip=ip) for number, ip in enumerate(IPS)])
    found = ledger.query("SELECT client_ip FROM usage_events FINAL ORDER BY event_id")
    assert [line["client_ip"] for line in found] == IPS


def test_unknown_money_stays_unknown(ledger: ClickHouse) -> None:
    insert(ledger, [row(1, cost_nano=None), row(2, cost_nano=0), row(3, cost_nano=5)])
    found = ledger.query("SELECT cost_nano FROM usage_events FINAL ORDER BY event_id")
    assert [line["cost_nano"] for line in found] == [None, 0, 5]


@pytest.mark.parametrize("column", ["calls", "input_tokens", "status", "event_time"])
def test_what_is_not_known_is_never_stored_as_zero(ledger: ClickHouse, column: str) -> None:
    """Where a column takes no NULL, ClickHouse would store its default: nobody could tell it from a figure."""
    table = "usage_windows" if column == "calls" else "usage_events"
    known = frame([row(1)]) if table == "usage_events" else pl.DataFrame({"bucket": [START], "calls": [1]})
    unknown = known.with_columns(pl.lit(None, known.schema[column]).alias(column))
    with pytest.raises(Rejected) as caught:
        ledger.insert_arrow(table, ipc(unknown), unknown.columns)
    assert caught.value.code == 349
    ledger.insert_arrow(table, ipc(known), known.columns)


def test_no_rows_are_no_error(ledger: ClickHouse) -> None:
    insert(ledger, [])
    ledger.insert_rows("alerts", ("event", "appended_at"), [])
    assert ledger.query("SELECT count() AS n FROM usage_events") == [{"n": 0}]


@pytest.mark.parametrize("compression", ["lz4", "zstd", "uncompressed"])
def test_plain_text_and_joined_blocks_arrive_too(ledger: ClickHouse, compression: Any) -> None:
    """What PRICE writes: dictionaries that differ between the joined blocks, or plain text."""
    blocks = pl.concat([frame([row(1, model="a")]), frame([row(2, model="b")])], rechunk=False)
    out = io.BytesIO()
    blocks.write_ipc_stream(out, compression=compression)
    ledger.insert_arrow("usage_events", out.getvalue(), blocks.columns)
    plain = frame([row(3, model="c")]).with_columns(pl.col(pl.Categorical).cast(pl.String))
    ledger.insert_arrow("usage_events", ipc(plain), plain.columns)
    found = ledger.query("SELECT toString(model) AS model FROM usage_events FINAL ORDER BY event_id")
    assert [line["model"] for line in found] == ["a", "b", "c"]


def test_times_gone_wrong_do_not_stop_their_neighbours(ledger: ClickHouse) -> None:
    """Each month is a partition; ClickHouse refuses more than 100 in one insert unless told otherwise."""
    months = [datetime(1970 + number // 12, 1 + number % 12, 1, tzinfo=UTC) for number in range(240)]
    far = [datetime(2299, 12, 31, tzinfo=UTC), datetime(1900, 1, 1, tzinfo=UTC), START]
    insert(ledger, [row(number, event_time=at, received_at=START) for number, at in enumerate([*months, *far])])
    found = ledger.query("SELECT event_time FROM usage_events FINAL ORDER BY event_id")
    assert [line["event_time"] for line in found] == [*months, *far]


def test_the_first_in_the_log_wins_and_a_correction_wins_over_it(ledger: ClickHouse) -> None:
    insert(ledger, [row(1, cost_nano=20), row(2, cost_nano=20)], offset=9)
    insert(ledger, [row(1, cost_nano=10), row(2, cost_nano=10)], offset=4)
    insert(ledger, [row(1, cost_nano=10), row(2, cost_nano=10)], offset=4)
    insert(ledger, [row(2, cost_nano=30, revision=2)], offset=12)
    insert(ledger, [row(1, cost_nano=40)], offset=13)
    found = ledger.query("SELECT cost_nano FROM usage_events FINAL ORDER BY event_id")
    assert [line["cost_nano"] for line in found] == [10, 30]


def test_rows_of_values_arrive_typed(ledger: ClickHouse) -> None:
    at = datetime(2026, 11, 20, 10, 0, 0, 5_000, tzinfo=UTC)
    event = json.dumps(
        {
            "id": "a1",
            "time": "2026-11-20T09:59:59.123Z",
            "data": {
                "kind": "budget",
                "severity": "warning",
                "org_id": "o",
                "scope": "api_key",
                "name": "k",
                "period": "2026-11",
                "text": "it's",
            },
        }
    )
    for appended_at in (at, at + timedelta(seconds=3)):
        ledger.insert_rows("alerts", ("event", "appended_at"), [(event, appended_at)])
    (found,) = ledger.query("SELECT * FROM alerts FINAL")
    assert found["event"] == event
    assert (found["id"], found["kind"], found["scope"], found["text"]) == ("a1", "budget", "api_key", "it's")
    assert found["received_at"] == datetime(2026, 11, 20, 9, 59, 59, 123_000, tzinfo=UTC)
    assert found["appended_at"] == at  # sent again after a restart: the first append counts


def test_every_time_is_aware(ledger: ClickHouse) -> None:
    (found,) = ledger.query("SELECT now() AS a, now('UTC') AS b, now64(6) AS c, toDateTime(0, 'UTC') AS d")
    assert all(value.utcoffset() == timedelta(0) for value in found.values())


def test_arrow_out_is_arrow_in(ledger: ClickHouse) -> None:
    insert(ledger, [row(1, model="a", cost_nano=3)])
    found = pl.read_ipc_stream(
        ledger.arrow("SELECT model, cost_nano FROM usage_events WHERE model = {m:String}", {"m": "a"})
    )
    assert found.rows() == [("a", 3)]


@pytest.mark.parametrize(
    "value", ["it's", 'say "x"', "back\\slash", "{x:String}", "new\nline", "'; DROP TABLE alerts; --"]
)
def test_parameters_are_bound_not_pasted(ledger: ClickHouse, value: str) -> None:
    assert ledger.query("SELECT {x:String} AS x", {"x": value}) == [{"x": value}]


def test_bad_rows_are_rejected_with_their_code(ledger: ClickHouse) -> None:
    good = frame([row(1)])
    bad = good.with_columns(pl.lit("not-a-uuid").alias("event_id"))
    with pytest.raises(Rejected) as caught:
        ledger.insert_arrow("usage_events", ipc(bad), bad.columns)
    assert caught.value.code in (6, 376)
    whole = ipc(good)
    for length in range(len(whole) // 2, len(whole) - 400, 997):
        with pytest.raises(Rejected):
            ledger.insert_arrow("usage_events", whole[:length], good.columns)
    with pytest.raises(Rejected):
        ledger.insert_arrow("usage_events", b"no arrow", good.columns)
    insert(ledger, [row(1)])


def test_a_wrong_statement_is_rejected(ledger: ClickHouse) -> None:
    with pytest.raises(Rejected) as caught:
        ledger.query("SELECT nothing_like_it")
    assert caught.value.code == 47


def test_what_is_not_set_up_leaves_the_rows_innocent(ledger: ClickHouse, ledger_settings: Settings) -> None:
    with pytest.raises(Unavailable) as caught:
        ledger.insert_rows("no_such_table", ("x",), [(1,)])
    assert caught.value.code == 60
    with pytest.raises(Unavailable) as caught:
        connect_existing(ledger_settings.model_copy(update={"clickhouse_database": "not_there"}))
    assert caught.value.code == 81


def test_a_missing_database_is_created(ledger_settings: Settings) -> None:
    fresh = ledger_settings.model_copy(update={"clickhouse_database": f"{ledger_settings.clickhouse_database}_x"})
    assert connect(fresh).query("SELECT currentDatabase() AS name") == [{"name": fresh.clickhouse_database}]


def test_out_of_memory_passes(ledger: ClickHouse) -> None:
    with pytest.raises(Unavailable) as caught:
        ledger.query("SELECT groupArray(number) FROM numbers(10000000) SETTINGS max_memory_usage = 1000000")
    assert caught.value.code == 241


def test_a_broken_file_of_the_engine_is_nobodys_fault(ledger: ClickHouse) -> None:
    ledger.command("CREATE TABLE harmed (x UInt64) ENGINE = MergeTree ORDER BY x")
    ledger.insert_rows("harmed", ("x",), [(1,)])
    (part,) = ledger.query("SELECT path FROM system.parts WHERE table = 'harmed' AND database = currentDatabase()")
    for marks in Path(part["path"]).glob("data.*mrk*"):
        marks.write_bytes(b"")
    ledger.command("SYSTEM DROP MARK CACHE")
    with pytest.raises(Unavailable) as caught:
        ledger.query("SELECT sum(x) AS n FROM harmed WHERE x > 0")
    assert caught.value.code in BROKEN_FILES


def test_nobody_listens() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 does not answer"):
        connect(Settings(clickhouse="http://127.0.0.1:1"))


@pytest.mark.parametrize("url", ["127.0.0.1:8123", "ftp://x", "http://user:secret@host:1", "http://host:99999", ""])
def test_a_wrong_address_is_one_clear_line(url: str) -> None:
    with pytest.raises(SettingsError, match="TOLLMETER_CLICKHOUSE: expected") as caught:
        connect(Settings(clickhouse=url))
    assert "secret" not in str(caught.value)


def test_a_proxy_that_answers_instead_is_unavailable() -> None:
    class BadGateway(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(502)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - the name that the server calls

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), BadGateway)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(Unavailable):
            connect(Settings(clickhouse=f"http://127.0.0.1:{server.server_port}"))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_threads_share_one_client(ledger: ClickHouse) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                insert(ledger, [row(number * 100 + turn)], offset=number)
                ledger.query("SELECT count() FROM usage_events")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert ledger.query("SELECT count() AS n FROM usage_events FINAL") == [{"n": 20}]
