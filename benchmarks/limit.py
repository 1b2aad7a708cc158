"""The practical limit: what a reader without a framework does here, all that makes the line safe left out.

librdkafka fetches, polars reads whole blocks of Avro and joins them with rates, ClickHouse takes Arrow, an insert runs
beside the next block; offsets are committed behind it. It keeps two windows (minutes by key and by address), and knows
no resends, rejects, budgets, alerts or tiers: a call whose price is not one price per token has none here.

    python -m benchmarks.limit --events 1000000 --rates FILE --report FILE
"""

import argparse
import io
import json
import os
import resource
import time
from concurrent.futures import Future, ThreadPoolExecutor
from operator import methodcaller
from pathlib import Path
from secrets import token_bytes
from typing import Any

import polars as pl

from benchmarks.plain_rates import COUNTERS, PlainRates, loads
from tollmeter.schemas import topics
from tollmeter.schemas.codec import PLAIN_SCHEMA, SINGLE_OBJECT_HEADER
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.streams.rules.pricing.rates import DAY_SECONDS

BLOCK = 20_000
MINUTE_US = 60_000_000
KINDS = ("api_key_id", "client_ip")
KEYS = ["provider", "model_used", "service_tier", "processing"]
MEASURES = ("calls", "input_tokens", "output_tokens", "cost_nano")
PICO = 1_000
IDLE_S = 30.0
_SYNC = token_bytes(16)
_ENUMS = {
    field["name"]: field["type"]["symbols"]
    for field in PLAIN_SCHEMA["fields"]
    if isinstance(field["type"], dict) and field["type"]["type"] == "enum"
}
_VALUE, _PLACE = methodcaller("value"), (methodcaller("partition"), methodcaller("offset"))


def _long(value: int) -> bytes:
    rest, out = value << 1, bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


def _readable(field: dict[str, Any]) -> dict[str, Any]:
    """Return a field with the same bytes in what polars reads: enums are ints, maps lists of pairs."""
    kind = field["type"]
    if field["name"] in _ENUMS:
        kind = "int"
    elif isinstance(kind, dict) and kind["type"] == "map":
        pair = [{"name": "key", "type": "string"}, {"name": "value", "type": kind["values"]}]
        kind = {"type": "array", "items": {"type": "record", "name": f"{field['name']}_pair", "fields": pair}}
    return {"name": field["name"], "type": kind}


def _head() -> bytes:
    framing = {"type": "fixed", "name": "framing", "size": len(SINGLE_OBJECT_HEADER)}
    fields = [{"name": "_framing", "type": framing}, *map(_readable, PLAIN_SCHEMA["fields"])]
    schema = json.dumps({"type": "record", "name": "Event", "fields": fields}).encode()
    return b"Obj\x01" + _long(1) + _long(11) + b"avro.schema" + _long(len(schema)) + schema + _long(0) + _SYNC


HEAD = _head()


def decoded(values: list[bytes]) -> pl.DataFrame:
    """Read one block of events; nothing looks whether each was read from its own bytes."""
    body = b"".join(values)
    frame = pl.read_avro(io.BytesIO(b"".join((HEAD, _long(len(values)), _long(len(body)), body, _SYNC))))
    return frame.drop("_framing").with_columns(
        pl.col(name).replace_strict(list(range(len(symbols))), symbols, default=None, return_dtype=pl.String)
        for name, symbols in _ENUMS.items()
    )


def rate_table(rates: PlainRates) -> pl.DataFrame:
    """Return pico-USD by counter and per call for each model that has one price per token; free models cost 0."""
    rows = []
    for key, steps in rates.items():
        if len(steps) != 1 or steps[0].above >= 0 or steps[0].from_second or steps[0].to_second < DAY_SECONDS:
            continue
        prices = dict.fromkeys((counter for counter, _ in COUNTERS), 0)
        by_unit, per_call = {unit: counter for counter, unit in COUNTERS}, 0
        for _component, price, terms in steps[0].leaves:
            per_call += 0 if terms else price
            for unit, sign in terms:
                if unit in by_unit:
                    prices[by_unit[unit]] += sign * price
        names = dict(zip(KEYS, key.split("|"), strict=True))
        rows.append({**names, **{f"_{counter}": price for counter, price in prices.items()}, "_call": per_call})
    kinds = dict.fromkeys(KEYS, pl.String) | {f"_{counter}": pl.Int64 for counter, _ in COUNTERS} | {"_call": pl.Int64}
    return pl.DataFrame(rows, schema=kinds)


_COUNTS = [pl.col(counter) for counter, _ in COUNTERS]
_PLAIN = (pl.col("extra_units").list.len() == 0) & (pl.col("status") != "BLOCKED") & (pl.sum_horizontal(_COUNTS) > 0)
_AMOUNT = pl.sum_horizontal(pl.col(counter) * pl.col(f"_{counter}") for counter, _ in COUNTERS) + pl.col("_call")
_NANO, _LEFT = _AMOUNT // PICO, _AMOUNT % PICO
_ROUNDED = _NANO + ((_LEFT > PICO // 2) | ((_LEFT == PICO // 2) & (_NANO % 2 == 1))).cast(pl.Int64)  # half to even
_COST = pl.when(_PLAIN & pl.col("_call").is_not_null()).then(_ROUNDED).alias("cost_nano")


def priced(events: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    """Join events with rates; NULL where one price per token is not all there is to it."""
    joined = events.join(table, on=KEYS, how="left", maintain_order="left").with_columns(_COST)
    return joined.select(*events.columns, "cost_nano")


def folded(events: pl.DataFrame) -> pl.DataFrame:
    """Return the totals of each minute by key and by address."""
    start = (pl.col("occurred_at") // MINUTE_US * 60).alias("start")
    sums = [pl.lit(1, dtype=pl.Int64).alias("calls"), *MEASURES[1:]]
    return merged(
        [
            events.select("org_id", pl.lit(kind).alias("kind"), pl.col(kind).alias("name"), start, *sums)
            for kind in KINDS
        ]
    )


def merged(parts: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(parts).group_by("org_id", "kind", "name", "start").agg(pl.col(MEASURES).sum())


def _arrow(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.write_ipc_stream(out, compression="lz4", compat_level=pl.CompatLevel.oldest())
    return out.getvalue()


def _consumer(brokers: str, group: str) -> Any:
    from confluent_kafka import Consumer  # of this process alone: whoever asks for its arithmetic needs no librdkafka

    return Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "fetch.max.bytes": 8 << 20,
            "queued.min.messages": 100_000,
            "queued.max.messages.kbytes": 65_536,
            "check.crcs": False,
        }
    )


class Reader:
    """Reads, prices, folds and stores, until so many events are done."""

    def __init__(self, settings: Settings, group: str, table: pl.DataFrame) -> None:
        self._clickhouse: ClickHouse = connect(settings)
        self._table = table
        self._consumer = _consumer(settings.kafka, group)
        self._topic = settings.topic(topics.EVENTS)
        self._consumer.subscribe([self._topic])
        self._windows: list[pl.DataFrame] = []
        self.since = self.cpu_since = 0.0

    def run(self, events: int) -> None:
        """Read so many events. Raises `TimeoutError` when no more come."""
        done, pending = 0, list[Future[None]]()
        with ThreadPoolExecutor(1) as beside:
            while done < events:
                rows = self._rows(self._block(events - done))
                done += rows.height
                for insert in pending:
                    insert.result()
                pending = [beside.submit(self._store, "limit_events", rows)]
            pending[0].result()
        self._store("limit_windows", merged(self._windows))
        self._consumer.close()

    def _block(self, most: int) -> list[Any]:
        found: list[Any] = []
        last = time.monotonic()
        while len(found) < min(BLOCK, most):
            some = self._consumer.consume(min(10_000, most - len(found)), 0.5)
            if some:
                last = time.monotonic()
                if not self.since:
                    self.since, self.cpu_since = last, _cpu()
            elif found:
                break
            elif time.monotonic() > last + IDLE_S:
                raise TimeoutError(f"no event within {IDLE_S:.0f} s")
            found += some
        errors = [message.error() for message in found if message.error() is not None]
        if errors:
            raise OSError(str(errors[0]))
        return found

    def _rows(self, messages: list[Any]) -> pl.DataFrame:
        rows = priced(decoded(list(map(_VALUE, messages))), self._table)
        self._windows.append(folded(rows))
        if len(self._windows) >= 20:
            self._windows = [merged(self._windows)]
        partition, offset = (list(map(read, messages)) for read in _PLACE)
        return rows.drop("tags", "extra_units").with_columns(
            pl.Series("kafka_partition", partition, dtype=pl.UInt16), pl.Series("kafka_offset", offset, dtype=pl.Int64)
        )

    def _store(self, table: str, rows: pl.DataFrame) -> None:
        self._clickhouse.insert_arrow(table, _arrow(rows), rows.columns)
        if "kafka_offset" in rows.columns:
            ends = rows.group_by("kafka_partition").agg(pl.col("kafka_offset").max()).iter_rows()
            from confluent_kafka import TopicPartition

            reached = [TopicPartition(self._topic, partition, last + 1) for partition, last in ends]
            self._consumer.commit(offsets=reached, asynchronous=False)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--group", default="limit")
    parser.add_argument("--rates", type=Path, required=True, help="rates as benchmarks.baseline writes them")
    parser.add_argument("--report", type=Path, required=True)
    chosen = parser.parse_args()
    reader = Reader(Settings.from_environment(os.environ), chosen.group, rate_table(loads(chosen.rates.read_text())))
    reader.run(chosen.events)
    seconds, cpu_s = time.monotonic() - reader.since, _cpu() - reader.cpu_since
    chosen.report.write_text(json.dumps({"events": chosen.events, "seconds": seconds, "cpu_s": cpu_s}))


if __name__ == "__main__":
    main()
