"""Spliced streams hold what the streams hold one by one, whatever their schemas, sizes and dictionaries."""

import io
from itertools import chain, pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.priced_rows import row
from tollmeter.streams.rules.records.concat import concat_streams, read_concat
from tollmeter.streams.rules.records.decode import PricedBlock, join
from tollmeter.streams.rules.records.encode import FEW_ROWS, PRICED_DTYPES, encode_dicts, encoded, to_ipc

COLUMNS = ("event_id", "org_id")
ROWS = st.lists(st.tuples(st.sampled_from(["acme", "größe", ""]), st.text(max_size=3)), max_size=5)


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=PRICED_DTYPES)


def stream(rows: list[tuple[str, str]], first: int, *, dictionaries: bool) -> bytes:
    made = frame([row(first + at, org_id=org, model=model) for at, (org, model) in enumerate(rows)])
    return to_ipc(encode_dicts(made) if dictionaries else made)


@given(st.lists(st.tuples(ROWS, st.booleans()), max_size=8))
def test_spliced_streams_hold_the_same_rows_in_order(batches: list[tuple[list[tuple[str, str]], bool]]) -> None:
    streams = [stream(rows, 10 * at, dictionaries=kind) for at, (rows, kind) in enumerate(batches)]
    expected = [list(pl.read_ipc_stream(io.BytesIO(one))[list(COLUMNS)].iter_rows()) for one in streams]
    found = [list(rows.iter_rows()) for rows in read_concat(streams, COLUMNS)]
    assert [*chain.from_iterable(found)] == [*chain.from_iterable(expected)]
    assert len(found) <= 1 + sum(one[1] != two[1] for one, two in pairwise(batches))


def test_what_is_no_stream_is_left_as_it_is_and_raises_when_read() -> None:
    good = stream([("acme", "m")], 1, dictionaries=False)
    bad = [b"", b"noise", good[:-1], b"\xff\xff\xff\xff\xff\xff\xff\x7f" + good[8:]]
    for one in bad:
        assert list(concat_streams([good, one, good])) == [good, one, good]
    with pytest.raises((ValueError, OSError, pl.exceptions.PolarsError)):
        list(read_concat([good, b"noise"], COLUMNS))


def test_the_ledger_joins_few_rows_as_text_with_many_in_dictionaries() -> None:
    few, many = frame([row(1, model="m1")]), frame([row(10 + at, model=f"m{at % 3}") for at in range(FEW_ROWS)])
    assert encoded(few).schema["model"] == pl.String
    assert encoded(many).schema["model"] != pl.String
    blocks = [PricedBlock(0, at, to_ipc(encoded(rows))) for at, rows in enumerate([few, many, few])]
    joined = join(blocks)
    texts = joined["model"].cast(pl.String).to_list()
    assert texts == [*few["model"], *many["model"], *few["model"]]
    assert join(blocks[:1])["model"].to_list() == ["m1"]
