"""CloudEvents around usage events: the envelope gives id and time where the data has none."""

from typing import Any

import pytest

from tollmeter.schemas.cloudevents import event_id_of, is_cloudevent, unwrap

ID = "0195d0e0-0000-7000-8000-000000000001"
ENVELOPE: dict[str, Any] = {
    "specversion": "1.0",
    "id": ID,
    "source": "/shop",
    "type": "llm.usage",
    "time": "2026-11-22T10:00:00Z",
    "datacontenttype": "application/json",
    "data": {"model_sent": "gpt-4o", "provider": "openai", "service": "shop"},
}


def test_unwrap() -> None:
    assert is_cloudevent(ENVELOPE)
    assert unwrap(ENVELOPE) == {**ENVELOPE["data"], "event_id": ID, "occurred_at": "2026-11-22T10:00:00Z"}
    own = {**ENVELOPE, "data": {**ENVELOPE["data"], "event_id": "other", "occurred_at": 7}}
    assert unwrap(own) == own["data"]


def test_ids() -> None:
    assert event_id_of(ID.upper(), "/a") == ID
    assert event_id_of("42", "/a") == event_id_of("42", "/a") != event_id_of("42", "/b")
    assert event_id_of("bc", "a") != event_id_of("c", "ab")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": ""}, "id is missing"),
        ({"source": 7}, "source is missing"),
        ({"type": None}, "type is missing"),
        ({"specversion": "0.3"}, "specversion '0.3'"),
        ({"data": "text"}, "data is no JSON object"),
        ({"data_base64": "e30="}, "data_base64"),
    ],
)
def test_broken_envelopes(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        unwrap({**ENVELOPE, **change})
