"""What a correction makes of a row: the fields that were asked for, the price of PRICE, the limits of events."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from tests.exchange import dated
from tests.usage_rows import avro, fields
from tollmeter.admin.corrections import Place, Plan, identity, plan
from tollmeter.schemas.control import Correction
from tollmeter.schemas.priced import H_CORRECTION, H_KIND, H_ROWS, KIND_CORRECTION, MAX_REVISION
from tollmeter.streams.price.batch import price_batch
from tollmeter.streams.price.book.book import PriceBook, load
from tollmeter.streams.rules.records.decode import PricedBlock, read
from tollmeter.streams.rules.records.encode import PRICED_DTYPES
from tollmeter.streams.rules.windows.amend import AmendError, Amendment, Part, amend, changed, parse, records

RECEIVED_MS = 1_795_341_700_000


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return load(dated())


class Record:
    partition, timestamp, key, headers = 0, RECEIVED_MS, None, ()

    def __init__(self, offset: int, value: bytes) -> None:
        self.offset, self.value = offset, value


def priced(book: PriceBook, *events: dict[str, Any]) -> pl.DataFrame:
    """The ledger's rows of events, by PRICE itself."""
    return price_batch([[Record(at, avro(event)) for at, event in enumerate(events)]], book).rows


def one(rows: pl.DataFrame) -> dict[str, Any]:
    (row,) = rows.iter_rows(named=True)
    return row


def test_amended_row_is_what_price_would_have_made_of_the_true_event(book: PriceBook) -> None:
    true = {
        "input_tokens": 5_000,
        "cache_read_tokens": 1_000,
        "output_tokens": 77,
        "usage_source": "PROVIDER",
        "user_id": "bob",
        "model_used": "gpt-4o-mini",
        "tags": {"team": "a", "new": "1"},
    }
    said = fields(1, usage_source="ESTIMATED", tags={"team": "b", "old": "1", "new": "1"})
    amendment = parse(
        [
            "input_tokens=5000",
            "cache_read_tokens=1000",
            "output_tokens=77",
            "usage_source=PROVIDER",
            "user_id=bob",
            "model_used=gpt-4o-mini",
            "tags.team=a",
            "tags.old=",
        ]
    )
    found = one(amend(priced(book, said), amendment, book.price))
    assert found == {**one(priced(book, {**said, **true})), "revision": 1}
    assert found["model"] == "gpt-4o-mini"


def test_void_row_costs_nothing_as_a_free_call_does(book: PriceBook) -> None:
    row = one(
        amend(
            priced(book, fields(1, extra_units={"web_searches": 2.0}, est_cost_nano=9, reported_cost_nano=8)),
            Amendment(void=True),
            book.price,
        )
    )
    free = one(priced(book, fields(1, status="BLOCKED", input_tokens=0, output_tokens=0)))
    assert free["price_status"] == "FREE"
    assert row == {**free, "status": "VOID", "rule_id": "void", "revision": 1}
    assert (row["cost_nano"], row["cost_input_nano"], row["at_risk_nano"]) == (0, 0, None)


@pytest.mark.parametrize(
    ("assignments", "text"),
    [
        (["input_tokens=-1"], "input_tokens is -1"),
        (["cache_read_tokens=99999"], "cached (99999) and written (0) input exceed input_tokens (1001)"),
        (["reasoning_tokens=300"], "reasoning_tokens (300) exceed output_tokens (1)"),
        (["input_tokens=10000001"], "0 to 10000000 is possible"),
        (["status=VOID"], "status is none of UNKNOWN, OK"),
        (["billing_scope=org"], "billing_scope is none of"),
        (["user_id=" + "x" * 257], "user_id has 257 characters"),
        (["tags.k=" + "x" * 129], "a tag is longer"),
        (["api_key_id=sk-" + "a" * 30], "looks like the key itself"),
        (["input_tokens=ten"], "input_tokens: 'ten' is no whole number"),
        (["event_time=2026-01-01"], "event_time cannot be corrected"),
        (["cost_nano=1"], "cost_nano cannot be corrected"),
        (["user_id"], "'user_id' is no FIELD=VALUE"),
    ],
    ids=lambda value: value[0][:20] if isinstance(value, list) else "",
)
def test_impossible_corrections_are_one_clear_line(book: PriceBook, assignments: list[str], text: str) -> None:
    with pytest.raises(AmendError) as refused:
        amend(priced(book, fields(1)), parse(assignments), book.price)
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)


def test_void_call_comes_back_when_its_status_is_said(book: PriceBook) -> None:
    rows = priced(book, fields(1))
    gone = amend(rows, Amendment(void=True), book.price)
    with pytest.raises(AmendError, match="is void"):
        amend(gone, parse(["user_id=bob"]), book.price)
    back = one(amend(gone, parse(["status=OK", "input_tokens=1001", "output_tokens=1"]), book.price))
    assert {name for name in back if back[name] != one(rows)[name]} == {"revision"}
    assert back["revision"] == 2


def test_revisions_end(book: PriceBook) -> None:
    rows = priced(book, fields(1)).with_columns(pl.lit(MAX_REVISION - 1, pl.UInt16).alias("revision"))
    with pytest.raises(AmendError, match="more than 32767 times"):
        amend(rows, parse(["user_id=bob"]), book.price)


def test_only_asked_for_fields_make_a_change(book: PriceBook) -> None:
    (was,) = priced(book, fields(1)).iter_rows(named=True)
    dearer = {**was, "cost_nano": was["cost_nano"] + 1, "price_book": "other", "revision": 1}
    assert changed(was, dearer, parse([f"user_id={was['user_id']}"])) == ()
    assert changed(was, dearer, Amendment()) == ("cost_nano",)
    assert changed(was, {**was, "price_book": "other"}, Amendment()) == ()
    assert changed(was, {**was, "tags": [{"key": "a", "value": "b"}]}, parse(["tags.a=b"])) == ("tags",)


def test_records_hold_what_was_then_what_is_and_fit(book: PriceBook) -> None:
    was = priced(book, *(fields(n, org_id="acme") for n in range(400)))
    now = amend(was, parse(["user_id=bob"]), book.price)
    made = records(Part("acme", was, now), "c1", "why", limit=36_000)
    assert len(made) > 1
    before, after = [], []
    for number, (value, headers) in enumerate(made):
        told = dict(headers)
        correction = Correction.model_validate_json(told[H_CORRECTION])
        assert (told[H_KIND], correction.org_id, correction.reason) == (KIND_CORRECTION, "acme", "why")
        assert len(value) <= 36_000
        block = read(PricedBlock(0, number, value)).select(
            pl.col(name).cast(kind) for name, kind in PRICED_DTYPES.items()
        )
        assert int(told[H_ROWS]) == correction.was == block.height // 2
        before.append(block[: correction.was])
        after.append(block[correction.was :])
    assert pl.concat(before).equals(was)
    assert pl.concat(after).equals(now)


# ---------------------------------------------------------------------- plans


ANY = Place()


def planned(book: PriceBook, rows: pl.DataFrame, *assignments: str, at: Place = ANY, void: bool = False) -> Plan:
    ids = list(dict.fromkeys(rows["event_id"].to_list()))
    return plan(rows, ids, at, Amendment(void=True) if void else parse(assignments), book.price)


def shape(found: Plan) -> list[tuple[str, int, list[tuple[str, int]]]]:
    """Organisation, rows replaced, status and revision of the rows that replace them, part by part."""
    return [(part.org_id, part.was.height, part.now.select("status", "revision").rows()) for part in found.parts]


def test_move_is_there_before_it_is_gone_and_repeated_it_completes(book: PriceBook) -> None:
    rows = priced(book, fields(1, org_id="a"))
    first = planned(book, rows, "org_id=b")
    assert shape(first) == [("b", 0, [("OK", 1)]), ("a", 1, [("VOID", 1)])]
    assert set(first.revisions) == {identity(one(part.now)) for part in first.parts}
    half = pl.concat([rows, first.parts[0].now])
    assert shape(planned(book, half, "org_id=b")) == [("a", 1, [("VOID", 1)])]
    whole = pl.concat([part.now for part in first.parts])
    again = planned(book, whole, "org_id=b")
    assert (again.parts, again.unchanged) == ((), 1)


def test_move_back_replaces_the_empty_row(book: PriceBook) -> None:
    first = planned(book, priced(book, fields(1, org_id="a")), "org_id=b")
    moved = pl.concat([part.now for part in first.parts])
    back = planned(book, moved, "org_id=a")
    assert shape(back) == [("a", 1, [("OK", 2)]), ("b", 1, [("VOID", 2)])]


def test_move_onto_another_call_is_refused(book: PriceBook) -> None:
    rows = priced(book, fields(1, org_id="a"), fields(1, org_id="b", user_id="other"))
    with pytest.raises(AmendError, match="organisation b has another call"):
        planned(book, rows, "org_id=b", at=Place("a"))


def test_one_of_several_calls_of_an_id_has_to_be_named(book: PriceBook) -> None:
    at = fields(1)["occurred_at"]
    rows = priced(book, fields(1, org_id="a"), fields(1, org_id="b"), fields(1, org_id="b", occurred_at=at + 1))
    with pytest.raises(AmendError, match=r"3 times: say which with --org a --time 2026-11-22T10:00:00\.000001"):
        planned(book, rows, "user_id=x")
    later = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=at + 1)
    assert shape(planned(book, rows, "user_id=x", at=Place("b", later))) == [("b", 1, [("OK", 1)])]
    assert shape(planned(book, rows, "user_id=x", at=Place("a"))) == [("a", 1, [("OK", 1)])]
    with pytest.raises(AmendError, match=r"no call .* of organisation c"):
        planned(book, rows, "user_id=x", at=Place("c"))
    with pytest.raises(AmendError, match="no call nobody is in the ledger"):
        plan(rows, ["nobody"], Place(), Amendment(), book.price)


def test_one_part_for_each_organisation_and_what_is_right_stays(book: PriceBook) -> None:
    rows = priced(book, *(fields(n, org_id=f"o{n % 2}", user_id="bob" if n == 5 else "ann") for n in range(6)))
    found = planned(book, rows, "user_id=bob")
    assert [(part.org_id, part.now.height) for part in found.parts] == [("o0", 3), ("o1", 2)]
    assert (found.unchanged, len(found.was), set(found.fields)) == (1, 5, {("user_id",)})
    assert planned(book, rows, void=True).unchanged == 0
