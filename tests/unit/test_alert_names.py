"""An alert names whom it is about, also where calls have no organisation."""

import pytest

from tollmeter.producers.guard.decision import Deny
from tollmeter.producers.guard.refusals import alert_of
from tollmeter.schemas.alert import whom


@pytest.mark.parametrize(
    ("org", "scope", "name", "said"),
    [
        ("acme", "org", "", "acme"),
        ("", "org", "", "the calls without an organisation"),
        ("acme", "user", "ann", "user ann of acme"),
        ("", "user", "ann", "user ann"),
        ("", "key", "k1", "key k1"),
    ],
)
def test_whom(org: str, scope: str, name: str, said: str) -> None:
    assert whom(org, scope, name) == said


@pytest.mark.parametrize("org", ["", "acme"])
@pytest.mark.parametrize("scope", ["org", "user", "api_key"])
def test_a_refusal_without_an_organisation_reads_well(org: str, scope: str) -> None:
    name = "" if scope == "org" else "n"
    deny = Deny(403, {"ok": False, "error": "blocked", "scope": scope, "name": name, "reason": "leaked", "until": None})
    alert = alert_of(deny, org, {}, 1_800_000_000_000)
    assert alert is not None
    assert " of :" not in alert.text
    assert not alert.text.startswith((":", " "))
