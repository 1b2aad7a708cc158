"""What compacted topics say of somebody who is forgotten: what goes, what is rewritten, what is left alone."""

import json
import re
from typing import Any

import pytest

from tollmeter.admin.forget_topics import Named, notice_changes, rule_changes, spend_changes
from tollmeter.schemas.spend import spend_key

ANN = Named("user", "ann")


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        pytest.param("policy:acme/user/ann/pool/USD", {}, "gone", id="policy"),
        pytest.param("policy:acme/user/anna/pool/USD", {}, "stays", id="policy-of-another"),
        pytest.param("policy:acme/group/ann/pool/USD", {}, "stays", id="policy-of-a-group-of-that-name"),
        pytest.param("member:acme/user/ann", {"groups": ["x"]}, "gone", id="member"),
        pytest.param("member:acme/group/ann", {"groups": ["x"]}, "stays", id="group-of-that-name"),
        pytest.param("block:*/user/ann", {"reason": "left"}, "gone", id="block"),
        pytest.param("block:acme/api_key/k", {"reason": "key of ann, lost"}, "key of (forgotten), lost", id="reason"),
        pytest.param("rate:acme/client_ip/*", {"requests": 1}, "stays", id="rate"),
        pytest.param("models:acme/user/ann", {"allowed": ["m"]}, "gone", id="models"),
        pytest.param("history:acme/user/ann/pool/USD:17:day/money", {"by": "bob"}, "gone", id="history"),
        pytest.param("history:acme/org//pool/USD:17:day/money", {"by": "ann"}, "(forgotten)", id="history-by"),
        pytest.param("layout", {"events": 4}, "stays", id="layout"),
    ],
)
def test_rules(key: str, value: dict[str, Any], what: str) -> None:
    changes = rule_changes({key.encode(): json.dumps(value).encode()}, ANN)
    if what == "stays":
        assert changes == []
        return
    (change,) = changes
    assert change.key == key.encode()
    assert change.value is None if what == "gone" else what in json.loads(change.value or b"").values()
    assert (change.control is not None) == key.startswith(("policy:", "member:")), "WATCH is to know"


def test_one_organisation_alone() -> None:
    found = {f"member:{org}/user/ann".encode(): b"{}" for org in ("acme", "umbra")}
    assert [change.org_id for change in rule_changes(found, ANN._replace(org="umbra"))] == ["umbra"]


def test_names_that_keys_escape() -> None:
    who = Named("user", "a/b%c", "x/y")
    keys = [spend_key("x/y", "user", "a/b%c", "day@UTC", "USD"), spend_key("x", "user", "a/b%c", "day@UTC", "USD")]
    assert spend_changes(dict.fromkeys(map(str.encode, keys), b"{}"), who) == {keys[0].encode(): None}
    assert who.without("policy x%2Fy/user/a%2Fb%25c/pool/USD") == "policy x%2Fy/user/(forgotten)/pool/USD"


WORDS = [
    ("ann", "(forgotten)"),
    ("user ann: 3 USD, ann again", "user (forgotten): 3 USD, (forgotten) again"),
    ("ann ann", "(forgotten) (forgotten)"),
    ("hannah, ann-marie, joann, ann@example.com", "hannah, ann-marie, joann, ann@example.com"),
    ("acme/user/ann/pool", "acme/user/(forgotten)/pool"),
    ("said ann.", "said (forgotten)."),
]


@pytest.mark.parametrize(("text", "becomes"), WORDS)
def test_a_name_is_a_word(text: str, becomes: str) -> None:
    assert ANN.without({"a": [text]}) == {"a": [becomes]}
    once = re.sub(ANN.re2, r"\1(forgotten)\3", text)
    assert re.sub(ANN.re2, r"\1(forgotten)\3", once) == becomes, "as ClickHouse is told, twice"


def test_an_address_is_no_part_of_another() -> None:
    who = Named("client_ip", "10.0.0.1")
    assert who.without("10.0.0.1, 10.0.0.11, 110.0.0.1, 10.0.0.1.") == "(forgotten), 10.0.0.11, 110.0.0.1, (forgotten)."


def test_notices_are_said_otherwise_by_whoever_is_in_charge() -> None:
    def notice(name: str, text: str, org: str = "acme") -> bytes:
        data = {"org_id": org, "scope": "user", "name": name, "text": text}
        return json.dumps({"id": "n", "event": {"id": "n", "data": data}, "title": text}).encode()

    found = {
        b"notice:1": notice("ann", "ann spent 5 USD"),
        b"notice:2": notice("bob", "bob spent 5 USD"),
        b"notice:3": notice("", "acme: of it ann 4 USD"),
        b"notice:4": notice("ann", "ann", "umbra"),
        b"mute:1": json.dumps({"name": "ann", "org": "", "until_s": 1}).encode(),
        b"ack:3": json.dumps({"by": "ann"}).encode(),
        b"ack:2": json.dumps({"by": "bob"}).encode(),
        b"feedback:1": json.dumps({"name": "ann", "org": "acme", "verdict": "real"}).encode(),
        b"feedback:2": json.dumps({"name": "ann", "org": "umbra", "verdict": "real"}).encode(),
        b"notice:x": b"no JSON: ann",
    }
    changes = notice_changes(found, ANN._replace(org="acme"))
    assert {key: value is None for key, value in changes.items()} == {
        b"forget:1": False,
        b"forget:3": False,
        b"mute:1": True,
        b"ack:3": True,
        b"feedback:1": True,
    }
    assert not any(re.search(rb"\bann\b", value or b"") for value in changes.values())
    assert json.loads(changes[b"forget:3"] or b"")["title"] == "acme: of it (forgotten) 4 USD"
