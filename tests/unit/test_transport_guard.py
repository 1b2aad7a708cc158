"""The transport leans on private methods of exact versions: when one of them changes, someone must look again."""

import hashlib
import inspect
from importlib.metadata import version

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from faust.app.base import App
from faust.streams import Stream
from faust.tables.recovery import Recovery
from faust.transport.consumer import Consumer
from faust.transport.drivers import aiokafka as driver
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread as Thread
from faust.types.tuples import Message

from tollmeter.streams.engine.app import StageApp
from tollmeter.streams.engine.transport import OVERRIDDEN, AcknowledgedProducer, BatchConsumer, Transport

# What each method was when the transport was written against it: the overridden ones first, then those it relies on.
READ = [
    ("Consumer.perform_seek", Consumer.perform_seek, "0e8c130ff4b0afd8"),
    ("Consumer.on_partitions_assigned", Consumer.on_partitions_assigned, "29ce96596f05a18c"),
    ("Consumer._wait_next_records", Consumer._wait_next_records, "6218e1969a636b3f"),
    ("Consumer.getmany", Consumer.getmany, "4b168d84882a70d6"),
    ("Consumer._drain_messages", Consumer._drain_messages, "44a2500309e83c63"),
    ("Consumer._filter_tps_with_pending_acks", Consumer._filter_tps_with_pending_acks, "f6f9239774234e7e"),
    ("Consumer._new_offset", Consumer._new_offset, "1d2c7ea89a7ad4f1"),
    ("driver.Consumer.verify_event_path", driver.Consumer.verify_event_path, "a17e8f0610e1abcb"),
    ("driver.Consumer._commit", driver.Consumer._commit, "a20eec84e4b2ed50"),
    ("driver.Producer._settings_extra", driver.Producer._settings_extra, "a4c7bc41b6382223"),
    ("App._create_directories", App._create_directories, "a9f571c3b04abec3"),
    ("App._consumer_wait_empty", App._consumer_wait_empty, "6bc313c48c064b16"),
    ("Consumer.ack", Consumer.ack, "5fcf41cf45153475"),
    ("Consumer.wait_empty", Consumer.wait_empty, "e4662fe24f094819"),
    ("Consumer._commit_tps", Consumer._commit_tps, "a20e230b05ae8b15"),
    ("Consumer._filter_committable_offsets", Consumer._filter_committable_offsets, "dc5e9baf5d994485"),
    ("Consumer.on_partitions_revoked", Consumer.on_partitions_revoked, "d04b7ae72c6fc206"),
    ("App._on_partitions_revoked", App._on_partitions_revoked, "d5c895bbe57dc73a"),
    ("App._stop_consumer", App._stop_consumer, "55854a5de12c3f52"),
    ("Recovery._resume_streams", Recovery._resume_streams, "d986a6710c1aca98"),
    ("Stream._py_aiter", Stream._py_aiter, "3a48ee257a65435b"),
    ("Message.ack", Message.ack, "4751b72c4ed84153"),
    ("Thread._seek_wait", Thread._seek_wait, "9d221e816d940467"),
    ("Thread._fetch_records", Thread._fetch_records, "39a2c6c79fc1455a"),
    ("Thread._commit", Thread._commit, "932852ce7a23f658"),
    ("GroupCoordinator.fetch_committed_offsets", GroupCoordinator.fetch_committed_offsets, "6c049c7379165952"),
    ("Thread._create_worker_consumer", Thread._create_worker_consumer, "c2701bfc3e6f6cad"),
    ("driver.Consumer._new_consumer_thread", driver.Consumer._new_consumer_thread, "0870ec53dea75083"),
    ("PartitionRecords.__next__", PartitionRecords.__next__, "63ac34a08c309098"),
    ("PartitionRecords._unpack_records", PartitionRecords._unpack_records, "b803e6d46480732c"),
    ("FetchResult.getall", FetchResult.getall, "3e717e30de5068d5"),
    ("AIOKafkaClient.bootstrap", AIOKafkaClient.bootstrap, "198943b004e55849"),
    ("driver.Producer.send_and_wait", driver.Producer.send_and_wait, "c468b00f6fe96311"),
]


@pytest.mark.parametrize(("name", "method", "digest"), READ, ids=[name for name, _, _ in READ])
def test_method_is_the_one_that_was_read(name: str, method: object, digest: str) -> None:
    source = inspect.getsource(method)  # type: ignore[arg-type]
    assert hashlib.sha256(source.encode()).hexdigest()[:16] == digest, f"{name} changed: read it again"


def test_versions_are_the_pinned_ones() -> None:
    assert version("faust-streaming") == "0.15.3"
    assert version("aiokafka") == "0.14.0"


def test_every_override_meets_a_method_and_is_listed() -> None:
    own = {name for name, member in vars(BatchConsumer).items() if inspect.isfunction(member)}
    assert {name for name in own if hasattr(driver.Consumer, name) and name != "__init__"} == set(OVERRIDDEN)
    for name in OVERRIDDEN:
        upstream, mine = getattr(driver.Consumer, name), getattr(BatchConsumer, name)
        assert list(inspect.signature(upstream).parameters) == list(inspect.signature(mine).parameters), name


def test_transport_selects_our_classes() -> None:
    assert Transport.Consumer is BatchConsumer
    assert Transport.Producer is AcknowledgedProducer
    for name in ("_create_directories", "_consumer_wait_empty"):
        assert hasattr(App, name)
        assert name in vars(StageApp)
