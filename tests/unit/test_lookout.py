"""What none of our programs wrote is told from what they did write, in each topic that no stage reads."""

from types import SimpleNamespace
from typing import Any

import pytest

from tollmeter.schemas import topics
from tollmeter.schemas.access import Block
from tollmeter.schemas.dead_letter import dead_letter
from tollmeter.schemas.guards import Beat
from tollmeter.schemas.json_values import loads
from tollmeter.schemas.model_rules import ModelRule
from tollmeter.schemas.policy import Member
from tollmeter.schemas.record import UNREADABLE
from tollmeter.schemas.spend import AsOf, spend_key
from tollmeter.streams.ledger.lookout import KEYS, foreign
from tollmeter.streams.notify.journal import ACK, MUTE, NOTICE
from tollmeter.streams.rules.events.letters import foreign_alert, letter_alert


def record(key: bytes | None, value: bytes | None = b"{}", headers: Any = ()) -> Any:
    return SimpleNamespace(
        topic="usage.x",
        key=key,
        value=value,
        headers=list(headers),
        partition=2,
        offset=17,
        timestamp=1_796_000_000_000,
    )


OURS = [
    (topics.POLICIES, Block(scope="client_ip", name="192.0.2.1", reason="x").key),
    (topics.POLICIES, "policy:acme/org//pool/USD"),
    (topics.POLICIES, "layout"),
    (topics.POLICIES, ModelRule(org_id="acme", scope="org", allowed=("gpt-4o",)).key),
    (topics.POLICIES, f"member:{Member(org_id='acme', name='ann').member_id}"),
    (topics.SPEND, AsOf(partition=1, stamp=1, as_of_ms=1).key),
    (topics.SPEND, Beat(guard="a", at_ms=1).key),
    (topics.SPEND, spend_key("acme", "org", "", "2026-11", "USD")),
    (topics.NOTICES, NOTICE + "x"),
    (topics.NOTICES, MUTE + "x"),
    (topics.NOTICES, ACK + "x"),
]


@pytest.mark.parametrize(("topic", "key"), OURS)
def test_ours(topic: str, key: str) -> None:
    assert foreign(topic, record(key.encode())) == ""
    assert foreign(topic, record(key.encode(), None)) == "", "a tombstone"


@pytest.mark.parametrize("topic", KEYS)
@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        (None, b"{}", "unknown key"),
        (b"\xff\xfe", b"{}", "unknown key"),
        (b"own", b"{", "no JSON object"),
        (b"own", b"[1]", "no JSON object"),
        (b"own", b'{"a":' * 100_000, "no JSON object"),
        (b"own", UNREADABLE, "not unpacked"),
    ],
)
def test_foreign(topic: str, key: bytes | None, value: bytes, why: str) -> None:
    key = KEYS[topic][0].encode() if key == b"own" else key
    assert foreign(topic, record(key, value)) == why


def test_letters() -> None:
    letter = dead_letter("price", "too_large", "", record(b"k"), b"x")
    assert foreign(topics.DLQ, record(letter.key, letter.value, letter.headers)) == ""
    forged = [(name, b"-" if name == "source_partition" else value) for name, value in letter.headers]
    assert foreign(topics.DLQ, record(b"k", b"x", forged)) == "no letter"
    assert foreign(topics.DLQ, record(b"k", b"x")) == "no letter"


def test_a_kind_is_told_once_a_day_and_nothing_of_the_record_is_said() -> None:
    one = letter_alert("price", "usage.events", "bad_json", record(b"sk-secret", b"sk-secret"))
    assert one == letter_alert("price", "usage.events", "bad_json", record(b"sk-secret", b"sk-secret"))
    assert "usage.events/2/17" in one.text
    assert "sk-secret" not in one.wire().decode()
    later = record(b"k")
    later.timestamp += 86_400_000
    ids = {
        one.id,
        letter_alert("price", "usage.events", "bad_json", later).id,
        letter_alert("price", "usage.events", "empty", record(b"k")).id,
        letter_alert("ledger", "usage.alerts", "foreign_record", record(b"k")).id,
        foreign_alert("ledger", "usage.spend", "unknown key", record(b"k")).id,
    }
    assert len(ids) == 5
    assert letter_alert("price", "usage.events", "secret", record(b"k")).severity == "critical"


def test_what_is_nested_too_deeply_is_no_json() -> None:
    for text in ('{"a":' * 100_000, "[" * 100_000, b"[" * 100_000, "{"):
        with pytest.raises(ValueError, match=r"."):
            loads(text)
    assert loads('{"a": [1]}') == {"a": [1]}
