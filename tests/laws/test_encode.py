"""Laws of the way from wire columns to ledger rows: nothing is lost, moved or changed, whatever the block sizes."""

import gc
import io
import json
from collections.abc import Sequence
from hashlib import sha256
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.exchange import dated
from tests.usage_rows import AT, ORGS, avro, fields
from tollmeter.schemas.envelope import Source
from tollmeter.schemas.priced import MAX_RECORD_BYTES, PRICED_COLUMNS, row_version
from tollmeter.streams.price.batch import price_batch
from tollmeter.streams.price.book.book import load
from tollmeter.streams.rules.records.decode import LEDGER_COLUMNS, PricedBlock, join, to_insert
from tollmeter.streams.rules.records.encode import PRICED_DTYPES, blocks, by_target, encode_dicts

BOOK = load(dated())
SHORT = 20_000  # bytes: forces several records per target


def record(number: int, partition: int, offset: int) -> Any:
    value = avro(
        fields(
            number,
            request_id=sha256(b"%d" % number).hexdigest(),  # as ids are: it does not compress
            tags={"team": f"t{number % 3}"},
            extra_units={} if number % 7 else {"web_searches": 1.0},
        )
    )
    return SimpleNamespace(value=value, partition=partition, offset=offset, headers=(), timestamp=AT // 1000 + number)


def batches(sizes: Sequence[int]) -> list[list[Any]]:
    """One batch per source partition, offsets with gaps, ids all different."""
    return [
        [record(partition * 10_000 + number, partition, 100 + 3 * number) for number in range(size)]
        for partition, size in enumerate(sizes)
        if size
    ]


def plain(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(pl.col(name).cast(kind) for name, kind in PRICED_DTYPES.items())


@given(st.lists(st.integers(0, 60), min_size=1, max_size=3).filter(any), st.integers(1, 6))
@settings(deadline=None, max_examples=examples(25))
def test_blocks_carry_every_row_once_in_order(sizes: list[int], targets: int) -> None:
    priced = price_batch(batches(sizes), BOOK)
    seen: list[pl.DataFrame] = []
    counted = dict.fromkeys(range(len(sizes)), 0)
    for target, rows in by_target(encode_dicts(priced.rows), targets).items():
        last = (-1, -1)
        for block in blocks(rows, priced.sources, BOOK.id, "boot", SHORT):
            part = plain(pl.read_ipc_stream(io.BytesIO(block.value)))
            assert {crc32(org.encode()) % targets for org in part["org_id"]} == {target}
            assert len(block.value) <= SHORT or part.height == 1
            places = list(part.select("src_partition", "src_offset").iter_rows())
            assert [last, *places] == sorted([last, *places])
            last = places[-1]
            headers = dict(block.headers)
            assert int(headers["rows"]) == part.height
            for source, first, end, records, rejected, count in json.loads(headers["sources"]):
                assert (first, end, records, rejected) == (100, 100 + 3 * (sizes[source] - 1), sizes[source], 0)
                counted[source] += count
            seen.append(part)
    assert counted == dict(enumerate(sizes))
    together = pl.concat(seen).sort("src_partition", "src_offset")
    assert together.equals(priced.rows)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=3))
@settings(deadline=None, max_examples=examples(15))
def test_a_pass_gives_the_rows_that_single_records_give(sizes: list[int]) -> None:
    waiting = batches(sizes)
    together = price_batch(waiting, BOOK).rows
    singly = [price_batch([[one]], BOOK).rows for batch in waiting for one in batch]
    assert together.equals(pl.concat(singly))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=3))
@settings(deadline=None, max_examples=examples(15))
def test_joined_blocks_are_the_rows_with_place_and_version(sizes: list[int]) -> None:
    priced = price_batch(batches(sizes), BOOK)
    written = [
        PricedBlock(target, 1_000 + at, block.value)
        for target, rows in by_target(encode_dicts(priced.rows), 4).items()
        for at, block in enumerate(blocks(rows, priced.sources, BOOK.id, "boot", SHORT))
    ]
    rows = join(written)
    assert tuple(rows.columns) == LEDGER_COLUMNS
    assert pl.read_ipc_stream(io.BytesIO(to_insert(rows))).columns == list(LEDGER_COLUMNS)
    assert plain(rows).sort("src_partition", "src_offset").equals(priced.rows)
    for partition, offset, revision, version in rows.select(
        "priced_partition", "priced_offset", "revision", "version"
    ).iter_rows():
        assert version == row_version(revision, offset)
        assert (partition, offset) in {(block.partition, block.offset) for block in written}


def test_of_resends_in_one_record_the_ledger_takes_the_first_as_watch_does() -> None:
    """Their version is the same: an event dated ahead would else be charged when it came last."""
    again = record(1, 0, 9)
    again.timestamp += 60_000
    priced = price_batch([[record(1, 0, 1), record(2, 0, 2), again]], BOOK)
    (block,) = blocks(encode_dicts(priced.rows), priced.sources, BOOK.id, "boot")
    assert join([PricedBlock(0, 5, block.value)])["src_offset"].to_list() == [1, 2]
    assert join([PricedBlock(0, 5, block.value), PricedBlock(0, 6, block.value)]).height == 4


def test_real_size_limit_is_kept() -> None:
    rows = price_batch([[record(number, 0, number) for number in range(12_000)]], BOOK).rows
    made = blocks(encode_dicts(rows), [Source(0, 0, 11_999, 12_000, 0)], BOOK.id, "boot")
    assert len(made) > 1
    assert max(len(block.value) for block in made) <= MAX_RECORD_BYTES
    assert sum(int(dict(block.headers)["rows"]) for block in made) == 12_000


def test_orgs_of_the_tests_reach_every_partition() -> None:
    assert {crc32(org.encode()) % 4 for org in ORGS} == {0, 1, 2, 3}


def test_columns_are_those_of_the_contract() -> None:
    rows = price_batch([[record(1, 0, 0)]], BOOK).rows
    assert dict(rows.schema) == PRICED_DTYPES
    assert rows.columns == [column.name for column in PRICED_COLUMNS]
    for column in PRICED_COLUMNS:
        if not column.kind.endswith("?"):
            assert rows[column.name].null_count() == 0, column.name


def test_a_block_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match=r"usage.priced/2 offset 77"):
        join([PricedBlock(2, 77, b"not arrow")])


def test_names_are_forgotten_with_the_rows_they_stood_in() -> None:
    rows = pl.DataFrame(schema=PRICED_DTYPES).clear(1)
    codes = []
    for name in ("10.0.0.1", "10.0.0.2"):
        gc.collect()
        encoded = encode_dicts(rows.with_columns(pl.lit(name).alias("client_ip")))
        assert encoded["client_ip"].to_list() == [name]
        codes.append(encoded["client_ip"].to_physical()[0])
        del encoded
    assert codes[0] == codes[1], "the second name was numbered behind the first"
