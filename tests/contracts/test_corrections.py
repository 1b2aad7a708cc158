"""What a correction is made of: the ledger gives rows back exactly as PRICE wrote them, thousands at a time."""

from collections.abc import Iterator

import polars as pl
import pytest

from tests.exchange import dated
from tests.usage_rows import avro, fields
from tollmeter.admin.corrections import Place, plan, stored
from tollmeter.schemas.priced import MAX_RECORD_BYTES
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.streams.price.batch import price_batch
from tollmeter.streams.price.book.book import load
from tollmeter.streams.rules.records.decode import LEDGER_COLUMNS, PricedBlock, read, to_insert
from tollmeter.streams.rules.records.encode import blocks, encode_dicts
from tollmeter.streams.rules.windows.amend import parse, records

pytestmark = pytest.mark.stack

ROWS = 3_000


class Record:
    partition, timestamp, key, headers = 3, 1_795_341_700_123, None, ()

    def __init__(self, offset: int, value: bytes) -> None:
        self.offset, self.value = offset, value


@pytest.fixture(scope="module", name="client")
def connected(ledger_settings: Settings) -> Iterator[ClickHouse]:
    client = connect(ledger_settings)
    yield client
    client.close()


def test_rows_come_back_as_they_were_written_and_thousands_fit_records(client: ClickHouse) -> None:
    odd = {
        "extra_units": {"web_searches": 2.5, "audio_seconds": 1.0},
        "tags": {"team": "ä", "": "x"},
        "http_status": 200,
        "latency_ms": 7,
        "est_cost_nano": 0,
        "reported_cost_nano": 10**12,
        "prompt_hash": "h",
        "stream": True,
        "user_id": "o\u2019neil \\\t\n",
        "status": "BLOCKED",
    }
    unknown = {"model_sent": "nobody-knows", "model_used": ""}
    events = [fields(n, org_id="acme", **(odd if n == 1 else unknown if n == 2 else {})) for n in range(ROWS)]
    book = load(dated())
    rows = price_batch([[Record(at, avro(event)) for at, event in enumerate(events)]], book).rows
    assert rows.filter(pl.col("cost_nano").is_null()).height == 1
    for number, (value, _) in enumerate(blocks(encode_dicts(rows), [], "b", "b")):
        client.insert_arrow("usage_events", to_insert(read(PricedBlock(3, number, value))), LEDGER_COLUMNS)
    ids = [event["event_id"] for event in events]
    found = stored(client, ids)
    key = ["event_time", "event_id"]
    assert found.sort(key).equals(rows.sort(key).cast(dict(found.schema)))

    made = plan(found, ids, Place(), parse(["user_id=ann"]), book.price)
    assert len(made.was) == len({row["event_id"] for row in made.now}) == ROWS
    sizes = [len(value) for part in made.parts for value, _ in records(part, "c", "")]
    assert len(made.parts) == 1
    assert len(sizes) > 1
    assert max(sizes) <= MAX_RECORD_BYTES
