"""A backup is a folder: every table in pieces, the compacted topics, and last the list of both with sums and hashes.

It is taken while the line runs. What arrives meanwhile may be in it or not: the log has it, and `verify --repair`
brings it back after a restore, as everything else that came between backup and loss. Rows are sets, topics compacted:
a restore may be repeated, and into tables that are not empty.
"""

import asyncio
import base64
import gzip
import json
import os
from collections.abc import Coroutine, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from tollmeter import __version__
from tollmeter.broker import policies
from tollmeter.broker.client import BrokerAway, kafka_consumer, kafka_producer, read_all
from tollmeter.broker.topic_ids import id_of
from tollmeter.schemas import topics
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse import migrate
from tollmeter.sinks.clickhouse.client import ClickHouse, connect, connect_existing

VERSION = 1
Document = dict[str, Any]
"""JSON."""
MANIFEST = "backup.json"
NOTE = "last_backup.json"
"""In the data folder: where the last backup went, and when."""
TOPICS = (topics.POLICIES, topics.REGISTRY, topics.NOTICES)
"""Compacted topics that are no function of anything else; prices and spend are published again by the line."""
LEFT_OUT = frozenset({"schema_migrations"})
_PIECE_ROWS = 50_000
_PIECE = (
    "SELECT * FROM {t:Identifier} WHERE _partition_id = {p:String} AND cityHash64(tuple(*)) % {n:UInt32} = {i:UInt32}"
)
_BEGUN = (
    "the logs of this line are not those that were backed up, and WATCH has begun on them: its totals and those of the "
    "backup would be mixed, and limits would not hold. Restore before the workers begin: stop them, drop the database, "
    "'tollmeter setup', 'tollmeter restore', start them; of an embedded stack keep a copy of its data folder instead"
)
_PROGRESS = "SELECT 1 FROM watch_progress WHERE JSONExtractString(state, 'log_id') != {log:String} LIMIT 1"
_SUMS = "SELECT count() AS calls, toString(sum(toInt128(ifNull(cost_nano, 0)))) AS cost_nano FROM usage_events FINAL"


_Value = TypeVar("_Value")


class BackupError(Exception):
    """The folder is no backup, or cannot be one; the text says why."""


def tables(client: ClickHouse) -> dict[str, list[tuple[str, int]]]:
    """Return the partitions of each table, with the rows of each; a table without rows has none."""
    rows = client.query(
        "SELECT table, partition_id, toInt64(sum(rows)) AS n FROM system.parts WHERE database = currentDatabase() "
        "AND active GROUP BY table, partition_id ORDER BY table, partition_id"
    )
    found: dict[str, list[tuple[str, int]]] = {}
    for row in rows:
        if row["table"] not in LEFT_OUT:
            found.setdefault(row["table"], []).append((row["partition_id"], row["n"]))
    return found


def backup(settings: Settings, folder: Path) -> Document:
    """Write a backup into a folder that is not there yet, and return its list. Raises `BackupError`, `Unavailable`."""
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise BackupError(f"{folder} is there already: name a folder for this backup alone") from None
    except OSError as error:
        raise BackupError(f"{folder} cannot be made: {error.strerror}") from None
    client = connect_existing(settings)
    try:
        sums = client.query(_SUMS)[0]
        files = {name: list(_pieces(client, folder, name, parts)) for name, parts in tables(client).items()}
    finally:
        client.close()
    logs = _reach(settings, _save_topics(settings, folder))
    at = datetime.now(UTC).isoformat(timespec="seconds")
    document: Document = {
        "version": VERSION,
        "tollmeter": __version__,
        "at": at,
        "database": settings.clickhouse_database,
        "priced_log": _reach(settings, id_of(settings, topics.PRICED)),
        "ledger": sums,
        "tables": files,
        "topics": logs,
    }
    _write(folder / MANIFEST, json.dumps(document, indent=1).encode())
    _take_note(settings, folder, at)
    return document


def _pieces(client: ClickHouse, folder: Path, table: str, parts: list[tuple[str, int]]) -> Iterator[Document]:
    """Write the rows of a table, all versions of them, in pieces that fit into memory."""
    for partition, rows in parts:
        count = 1 + rows // _PIECE_ROWS
        for piece in range(count):
            found = client.native(_PIECE, {"t": table, "p": partition, "n": count, "i": piece})
            yield _write(folder / f"{table}-{partition}-{piece}.native.gz", gzip.compress(found, 3, mtime=0))


async def _save_topics(settings: Settings, folder: Path) -> dict[str, list[Document]]:
    saved = {}
    async with kafka_consumer(settings) as consumer:
        for topic in TOPICS:
            entries: dict[bytes, str] = {}
            async for record in read_all(consumer, [TopicPartition(settings.topic(topic), 0)]):
                if record.key is None:
                    continue
                if record.value is None:
                    entries.pop(record.key, None)
                    continue
                headers = [[name, _text(value)] for name, value in record.headers]
                entries[record.key] = json.dumps([_text(record.key), _text(record.value), headers])
            lines = "\n".join(entries.values()).encode()
            saved[topic] = [_write(folder / f"{topic}.jsonl.gz", gzip.compress(lines, mtime=0))]
    return saved


def read_manifest(folder: Path) -> Document:
    """Return the list of a backup, every file compared with it. Raises `BackupError`."""
    try:
        document: Document = json.loads((folder / MANIFEST).read_bytes())
        if document["version"] > VERSION:
            raise BackupError(f"{folder} was written by tollmeter {document['tollmeter']}: a newer one is needed")
        for file in (file for files in {**document["tables"], **document["topics"]}.values() for file in files):
            if sha256(_at(folder, file).read_bytes()).hexdigest() != file["sha256"]:
                raise BackupError(f"{folder / file['file']} is not what was written: the backup is damaged")
    except FileNotFoundError as error:
        raise BackupError(f"{folder} is no whole backup: {Path(error.filename).name} is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupError(f"{folder} is no backup: {type(error).__name__}") from None
    return document


def restore(settings: Settings, folder: Path) -> Document:
    """Put a backup into the database and topics of a line that is set up; return its list.

    WATCH is told of policies and members that come back. Every file is checked first. Raises `BackupError`,
    `Unavailable`, `Rejected`, `SchemaError`.
    """
    document = read_manifest(folder)
    migrate.apply(settings)
    client = connect(settings)
    try:
        if _has_other_logs(settings, document) and client.query(_PROGRESS, {"log": document["priced_log"]}):
            raise BackupError(_BEGUN)
        known = {migration.about for migration in migrate.migrations()}
        for table, files in document["tables"].items():
            if table not in known:
                raise BackupError(f"{folder} holds a table {table} that this version does not know")
            for file in files:
                client.insert_native(table, gzip.decompress(_at(folder, file).read_bytes()))
    finally:
        client.close()
    came_back = _reach(settings, _restore_topics(settings, folder, document["topics"]))
    try:
        policies.tell(settings, came_back)
    except policies.PolicyError as error:
        raise BackupError(str(error)) from None
    return document


def _has_other_logs(settings: Settings, document: Document) -> bool:
    """Tell whether `usage.priced` is another topic than the one that was backed up; False where nobody knows."""
    now = _reach(settings, id_of(settings, topics.PRICED))
    return bool(now) and document.get("priced_log", now) not in ("", now)


async def _restore_topics(settings: Settings, folder: Path, files: Mapping[str, list[Document]]) -> dict[bytes, bytes]:
    """Write the entries whose keys the topics do not have: what is there is newer. Return those of the rules."""
    came_back = {}
    async with kafka_consumer(settings) as consumer, kafka_producer(settings) as producer:
        for topic in (topic for topic in TOPICS if topic in files):
            place = TopicPartition(settings.topic(topic), 0)
            there = {record.key async for record in read_all(consumer, [place])}
            for file in files[topic]:
                for line in gzip.decompress(_at(folder, file).read_bytes()).decode().splitlines():
                    key, value, headers = json.loads(line)
                    if _bytes(key) not in there:
                        pairs = [(name, _bytes(text)) for name, text in headers]
                        await producer.send_and_wait(place.topic, _bytes(value), _bytes(key), 0, headers=pairs)
                        if topic == topics.POLICIES:
                            came_back[_bytes(key)] = _bytes(value)
    return came_back


def _at(folder: Path, file: Document) -> Path:
    """Return where a file of the list lies: in the folder itself, whatever the list says."""
    return folder / Path(file["file"]).name


def last(settings: Settings) -> tuple[Path, datetime] | None:
    """Return where the last backup of this data folder went and when, None when nobody knows of one."""
    try:
        note = json.loads((settings.data_dir / NOTE).read_text(encoding="utf-8"))
        return Path(note["folder"]), datetime.fromisoformat(note["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _take_note(settings: Settings, folder: Path, at: str) -> None:
    if settings.data_dir.is_dir():
        _write(settings.data_dir / NOTE, json.dumps({"folder": str(folder.absolute()), "at": at}).encode())


def _write(file: Path, data: bytes) -> Document:
    with open(file, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    return {"file": file.name, "bytes": len(data), "sha256": sha256(data).hexdigest()}


def _reach(settings: Settings, work: Coroutine[object, object, _Value]) -> _Value:
    try:
        return asyncio.run(work)
    except (KafkaError, OSError) as error:
        raise BackupError(str(BrokerAway(settings, error))) from None


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)
