"""Dead letters as cases: a record counts once however often it was tried, three times at most; secrets are masked."""

from datetime import UTC, datetime
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import pytest

from tests.usage_rows import avro, fields
from tollmeter.admin.dead_letters import Cases, select
from tollmeter.cli.dlq import readable
from tollmeter.schemas import topics
from tollmeter.schemas.dead_letter import (
    VALUE_BYTES,
    SourcePlace,
    again_headers,
    dead_letter,
    dead_letter_headers,
    read_letter,
    retry_headers,
    source_place,
)
from tollmeter.schemas.secrets import mask_secrets

EVENTS = "t.usage.events"
(DLQ_BYTES,) = (topic.max_message_bytes for topic in topics.TOPICS if topic.name == topics.DLQ)


def at(offset: int, partition: int = 1, topic: str = EVENTS) -> SourcePlace:
    return SourcePlace(topic, partition, offset)


class Topic:
    """usage.dlq in small: what is appended gets the next offset and second."""

    def __init__(self) -> None:
        self.cases = Cases(EVENTS)
        self.end = 0

    def append(self, headers: list[tuple[str, bytes]], value: bytes | None = b"x") -> None:
        self.cases.add(
            SimpleNamespace(headers=headers, value=value, partition=1, offset=self.end, timestamp=self.end * 1000)
        )
        self.end += 1

    def letter(
        self, offset: int, reason: str = "bad_avro", stage: str = "price", again: Any = (), **place: Any
    ) -> None:
        self.append(dead_letter_headers(stage, reason, "d", at(offset, **place), again))

    def mark(self, offset: int, attempts: int, first: int, as_: int) -> None:
        self.append(retry_headers(at(offset), attempts, at(first), at(as_)), None)

    def rows(self) -> list[tuple[int, int, str]]:
        return [(case.letter.place.offset, case.letter.attempts, case.state) for case in self.cases.all()]


def test_headers_say_what_they_said_when_read_again() -> None:
    plain = read_letter(dead_letter_headers("price", "bad_avro", "odd", at(7)))
    assert plain == ("price", "bad_avro", "odd", at(7), 1, at(7), None, None, "", False)
    again = read_letter(dead_letter_headers("price", "bad_avro", "odd", at(9), again_headers(2, at(7))))
    assert not again.backfill
    imported = again_headers(2, at(7), backfill=True)
    assert read_letter(dead_letter_headers("price", "bad_avro", "odd", at(9), imported)).backfill
    assert (again.place, again.attempts, again.first) == (at(9), 2, at(7))
    mark = read_letter(retry_headers(at(7), 2, at(7), at(9)))
    assert (mark.stage, mark.place, mark.attempts, mark.retried_as) == ("retry", at(7), 2, at(9))
    assert source_place(str(at(7))) == at(7)
    assert dict(dead_letter_headers("price", "r", "unknown field 'sk-proj-abcdefghijklmnopqrst'", at(1)))["detail"] == (
        b"unknown field '[secret]'"
    )


@pytest.mark.parametrize("size", [0, 10, VALUE_BYTES, VALUE_BYTES + 1, 5_000_000])
def test_a_letter_always_fits_and_says_what_is_cut(size: int) -> None:
    value, key = b"v" * size, b"k" * (size // 10)
    noise = [("h" * 1000, b"x" * 100_000)] * 20
    record = SimpleNamespace(topic=EVENTS, partition=1, offset=7, key=key, value=value, headers=noise)
    letter = dead_letter("price", "bad_avro", "odd" * 1_000, record, value)
    headers = dict(letter.headers)
    total = len(letter.key or b"") + len(letter.value) + sum(len(name) + len(text) for name, text in letter.headers)
    assert total < DLQ_BYTES
    assert letter.value == value[:VALUE_BYTES]
    assert headers["value_bytes"] == str(size).encode()
    assert headers["value_sha256"].decode() == sha256(value).hexdigest()
    assert headers.get("key_bytes") == (str(len(key)).encode() if len(key) > 1_000 else None)
    topic = Topic()
    topic.append(letter.headers, letter.value)
    assert [case.state for case in topic.cases.all()] == ["cut" if size > VALUE_BYTES else "waiting"]
    assert topic.cases.all()[0].size == size


@pytest.mark.parametrize(
    "headers",
    [
        [("attempts", b"abc"), ("first_source", b"x")],
        [("tollmeter-attempts", b"abc"), ("tollmeter-first-source", b"x")],
        [("tollmeter-attempts", b"2"), ("tollmeter-first-source", b"\xff\xfe")],
        [("tollmeter-attempts", b"-1"), ("tollmeter-first-source", b"t/1/1")],
        [("tollmeter-attempts", b"2"), ("tollmeter-first-source", b"t/-1/1")],
        [("tollmeter-attempts", b"2"), ("tollmeter-first-source", b"t" * 100_000 + b"/1/1")],
        [("tollmeter-attempts", b"3"), ("tollmeter-first-source", f"{EVENTS}/1/7".encode())],
    ],
)
def test_what_a_record_claims_of_itself_hides_no_letter(headers: list[tuple[str, bytes]]) -> None:
    topic = Topic()
    for offset, value, claimed in ((7, b"one", []), (9, b"other", headers)):
        record = SimpleNamespace(topic=EVENTS, partition=1, offset=offset, key=None, value=value, headers=claimed)
        topic.append(dead_letter("price", "bad_avro", "", record, value).headers)
    assert topic.rows() == [(9, 1, "waiting"), (7, 1, "waiting")]


def test_a_record_tried_again_by_somebody_who_died_before_the_mark_is_the_same_case() -> None:
    topic = Topic()
    for offset, claimed in ((7, []), (9, again_headers(2, at(7)))):
        record = SimpleNamespace(topic=EVENTS, partition=1, offset=offset, key=None, value=b"same", headers=claimed)
        topic.append(dead_letter("price", "bad_avro", "", record, b"same").headers)
    assert topic.rows() == [(9, 2, "waiting")]


def test_a_record_counts_once_however_often_its_letter_was_sent() -> None:
    topic = Topic()
    topic.letter(7)
    topic.letter(7)
    topic.letter(8)
    assert topic.rows() == [(8, 1, "waiting"), (7, 1, "waiting")]


def test_attempts_grow_along_a_record_and_its_successors_and_end_at_three() -> None:
    topic = Topic()
    topic.letter(7)
    topic.mark(7, 2, first=7, as_=20)
    assert topic.rows() == [(7, 1, "retried")]
    topic.letter(20, again=again_headers(2, at(7)))
    assert topic.rows() == [(20, 2, "waiting")]
    topic.mark(20, 3, first=7, as_=30)
    assert topic.rows() == [(20, 2, "retried")]
    topic.letter(30, again=again_headers(3, at(7)))
    assert topic.rows() == [(30, 3, "exhausted")]


def test_letters_of_ledger_are_followed_by_the_marks_alone() -> None:
    topic = Topic()
    topic.letter(7, "rejected", "ledger")
    topic.mark(7, 2, first=7, as_=20)
    topic.letter(20, "rejected", "ledger")
    assert topic.rows() == [(20, 2, "waiting")]


def test_a_letter_that_was_retried_twice_at_once_is_one_case() -> None:
    topic = Topic()
    topic.letter(7)
    topic.mark(7, 2, first=7, as_=20)
    topic.mark(7, 2, first=7, as_=21)
    topic.letter(21, again=again_headers(2, at(7)))
    topic.letter(20, again=again_headers(2, at(7)))
    assert topic.rows() == [(20, 2, "waiting")]


def test_what_cannot_be_tried_again_says_why() -> None:
    topic = Topic()
    topic.letter(1, "secret")
    topic.letter(2, "bad_priced_record", "ledger", topic="t.usage.priced")
    topic.append([("reason", b"no letter at all")])
    assert topic.rows() == [(2, 1, "foreign"), (1, 1, "withheld")]


def test_filters() -> None:
    topic = Topic()
    topic.letter(1, "bad_avro")
    topic.letter(2, "empty", partition=0)
    topic.letter(3, "rejected", "ledger")

    def offsets(**chosen: Any) -> list[int]:
        return [case.letter.place.offset for case in select(topic.cases.all(), **chosen)]

    assert offsets() == [3, 2, 1]
    assert offsets(reasons=["empty", "bad_avro"]) == [2, 1]
    assert offsets(stages=["ledger"]) == [3]
    assert offsets(partitions=[0]) == [2]
    second = datetime.fromtimestamp(1, tz=UTC)
    assert (offsets(since=second), offsets(until=second)) == ([3, 2], [1])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("key sk-proj-abcdefghijklmnop1234 end", "key [secret] end"),
        ('{"api_key": "hunter2", "input_tokens": 5}', '{"api_key": "[secret]", "input_tokens": 5}'),
        ("Authorization: Bearer abc.def", "Authorization: [secret]"),
        ("password=hunter2&user=ann", "password=[secret]&user=ann"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- rest", "[secret] rest"),
        ("ghp_abcdefghijklmnopqrstuvwxyz", "[secret]"),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.abcdefgh", "[secret]"),
        ('{"api_key_id": "0a1b2c3d", "output_tokens": 7}', '{"api_key_id": "0a1b2c3d", "output_tokens": 7}'),
    ],
)
def test_secrets_are_masked(text: str, shown: str) -> None:
    assert mask_secrets(text) == shown


def test_content_is_shown_as_fields_as_text_or_escaped_and_never_with_a_secret() -> None:
    secret = "sk-proj-abcdefghijklmnop1234"
    assert '"service": "checkout"' in readable(avro(fields(1)))
    assert "checkout" in readable(avro(fields(1)), decode=False)
    for value in (avro(fields(1, tags={"k": secret})), f'{{"a": "{secret}"}}'.encode(), b"\xff\x00" + secret.encode()):
        for decode in (True, False):
            assert secret not in readable(value, decode=decode)
            assert "[secret]" in readable(value, decode=decode)
    assert (readable(None), readable(b"")) == ("", "")
    assert readable(b"a" * 10_000).endswith("... (10000 bytes)")
    assert "\x1b" not in readable(b"\x1b[2Jx")
