"""What is inserted as Python values is read back as it was, or refused: nothing becomes 0, 1970 or another number."""

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, Rejected, connect
from tollmeter.sinks.clickhouse.values import NO_NULL, OUT_OF_RANGE, Misfit, check

AT = datetime(2026, 11, 20, 10, 0, 0, 5_000, tzinfo=UTC)
VALUES: tuple[object, ...] = (
    *(None, math.nan, math.inf, "", "x", "7", "nan", 0, 1, -1, 1.5, 1e3, True, False),
    *(2**bits + more for bits in (7, 8, 15, 16, 31, 32, 63) for more in (-1, 0, 5)),
    *(-(2**bits) - less for bits in (7, 15, 31, 63) for less in (0, 1) if bits < 63 or not less),
    *("0.000000001", "0.0000000001", "0.123456789012345678", "0.1234567890123456789", "1e-30", "-12.50", "1e25"),
    *("12345678901234567890", "123456789012345678901", "99999999999999999999.9"),
    *("2026-11-20", "2026-13-45", "1900-01-01", "2149-06-06", "2149-06-07", date(2026, 11, 20), AT),
    "00000000-0000-4000-8000-0000000000ff",
)


@pytest.fixture
def ledger(ledger_settings: Settings) -> Iterator[ClickHouse]:
    client = connect(ledger_settings)
    yield client
    client.close()


def declared(client: ClickHouse) -> list[str]:
    sql = "SELECT DISTINCT type FROM system.columns WHERE database = currentDatabase() AND table IN (SELECT name FROM"
    found = client.query(f"{sql} system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree')")
    return sorted(row["type"] for row in found if not row["type"].startswith("Array("))


def test_a_value_is_stored_as_it_is_or_refused(ledger: ClickHouse) -> None:
    """Of every type that a column of ours has."""
    types = declared(ledger)
    assert {"UInt16", "Nullable(Decimal(38, 18))", "Date", "LowCardinality(String)"} <= set(types)
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(types))
    ledger.command(f"CREATE TABLE kept (id UInt32, {columns}) ENGINE = MergeTree ORDER BY id")
    stored: dict[int, tuple[str, object]] = {}
    for at, kind in enumerate(types):
        own = {at * len(VALUES) + number: value for number, value in enumerate(VALUES) if fits(kind, value)}
        ledger.insert_rows("kept", ("id", f"c{at}"), list(own.items()))
        stored |= {place: (kind, value) for place, value in own.items()}
    found = {row["id"]: row for row in ledger.query("SELECT * FROM kept")}
    assert found.keys() == stored.keys()
    for place, (kind, value) in stored.items():
        read = found[place][f"c{types.index(kind)}"]
        assert same(kind, value, read), (kind, value, read)


def fits(kind: str, value: object) -> bool:
    try:
        check({"c": kind}, ("c",), [(value,)])
    except Misfit:
        assert not is_own(kind, value), (kind, value)
        return False
    return True


def is_own(kind: str, value: object) -> bool:
    """Tell what must be taken."""
    if value is None:
        return "Nullable" in kind
    if "UInt64" in kind and type(value) is int:
        return 0 <= value < 2**64
    return ("String" in kind and isinstance(value, str)) or ("Bool" in kind and isinstance(value, bool))


def same(kind: str, sent: object, read: Any) -> bool:
    if sent is None or read is None:
        return sent is read
    if "Decimal" in kind and isinstance(sent, (str, int)):
        return bool(Decimal(sent) == read)
    if "Date" in kind and "DateTime" not in kind:
        return str(read) == str(sent)
    if "DateTime" in kind:
        if isinstance(sent, int):
            return int(read.timestamp()) == sent
        at = sent if isinstance(sent, datetime) else datetime.fromisoformat(str(sent)).replace(tzinfo=UTC)
        return bool(abs(read - at) < timedelta(seconds=1))  # cut to the column's precision
    if "String" in kind:
        return bool(read == sent)
    if "UUID" in kind:
        return str(read) == sent
    return bool(read == sent)


@pytest.mark.parametrize(
    ("kind", "value", "code"),
    [
        ("UInt16", None, NO_NULL),
        ("Int64", math.nan, NO_NULL),
        ("LowCardinality(String)", None, NO_NULL),
        ("DateTime64(3, 'UTC')", None, NO_NULL),
        ("UInt16", 70_000, OUT_OF_RANGE),
        ("UInt32", "", OUT_OF_RANGE),
        ("Nullable(Decimal(38, 18))", "1e-30", OUT_OF_RANGE),
        ("Date", "2026-13-45", OUT_OF_RANGE),
    ],
)
def test_the_refusal_names_column_and_value(kind: str, value: object, code: int) -> None:
    with pytest.raises(Misfit, match="column b") as caught:
        check({"a": "String", "b": kind}, ("a", "b"), [("x", value)])
    assert caught.value.code == code


def test_rows_around_a_bad_one_are_refused_with_it(ledger: ClickHouse) -> None:
    ledger.command("CREATE TABLE three (id UInt32, n Int64) ENGINE = MergeTree ORDER BY id")
    with pytest.raises(Rejected, match="table three: column n"):
        ledger.insert_rows("three", ("id", "n"), [(1, 1), (2, None), (3, 3)])
    assert ledger.query("SELECT count() AS n FROM three") == [{"n": 0}]


def test_a_column_that_has_changed_since_is_looked_up_again(ledger: ClickHouse) -> None:
    ledger.command("CREATE TABLE grown (id UInt32, n Int64) ENGINE = MergeTree ORDER BY id")
    ledger.insert_rows("grown", ("id", "n"), [(1, 1)])
    ledger.command("ALTER TABLE grown MODIFY COLUMN n Nullable(Int64)")
    ledger.insert_rows("grown", ("id", "n"), [(2, None)])
    assert ledger.query("SELECT n FROM grown ORDER BY id") == [{"n": 1}, {"n": None}]


def test_what_is_selected_into_a_table_is_no_zero_either(ledger: ClickHouse) -> None:
    ledger.command("CREATE TABLE taken (id UInt32, n Int64) ENGINE = MergeTree ORDER BY id")
    with pytest.raises(Rejected, match="NULL"):
        ledger.command("INSERT INTO taken (id, n) SELECT 1, NULL")
