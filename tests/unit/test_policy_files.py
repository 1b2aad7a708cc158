"""Wrong files of policies and members: each mistake one line with file, line and key; then nothing is read."""

from pathlib import Path

import pytest

from tollmeter.admin.policy_files import FileError, read_members, read_policies
from tollmeter.admin.policy_text import PolicyTextError, amount_of, limit_of
from tollmeter.schemas.policy import Limit, Member

NO_LIMIT = "is no limit: write day, week, month or rolling24h, a slash, and money, tokens or requests"
POLICIES = [
    (
        "policies:\n- org: acme\n  limits: {day/money: -5}\n",
        ":3: policies.0.limits.day/money: -5 must be above 0 and have at most six decimals",
    ),
    (
        "policies:\n- org: acme\n  limits:\n    week/money: 0.0000001\n",
        ":4: policies.0.limits.week/money: 0.0000001 must be above 0 and have at most six decimals",
    ),
    (
        "policies:\n- org: acme\n  limits: {day/tokens: 1.5}\n",
        ":3: policies.0.limits.day/tokens: '1.5' must be a whole number above 0",
    ),
    ("policies:\n- org: acme\n  limits: {year/money: 5}\n", f":3: policies.0.limits: 'year/money' {NO_LIMIT}"),
    (
        "policies:\n- org: acme\n  limits: {rolling2000h/money: 5}\n",
        ":3: policies.0.limits.rolling2000h/money: Input should be less than or equal to 1488",
    ),
    ("policies:\n- org: acme\n\n  warn_pct: 0\n", ":4: policies.0.warn_pct: Input should be greater than 0"),
    ("policies:\n- org: acme\n  warn_pct: 500\n", ":3: policies.0.warn_pct: Input should be less than or equal to 100"),
    ("policies:\n- org: acme\n  currency: GBP\n", ":3: policies.0.currency: Input should be 'USD', 'EUR' or 'RUB'"),
    (
        "policies:\n- org: acme\n  timezone: Mars/Olympus\n",
        ":3: policies.0.timezone: unknown time zone 'Mars/Olympus': write for example UTC or Europe/Berlin",
    ),
    (
        "policies:\n- org: acme\n  scope: user\n",
        (
            ":2: policies.0: name says which group, user, key ...: it is empty for scope org, and for no other but a "
            "default (each_member)"
        ),
    ),
    (
        "policies:\n- org: acme\n  scope: user\n  name: ann\n  applies: each_member\n",
        ":2: policies.0: each_member needs members: a user has none; use pool",
    ),
    ("policies:\n- org: acme\n  scope: tag\n  name: blue\n", ":2: policies.0: the name of a tag scope is key=value"),
    ("policies:\n- org: acme\n  dayly: 5\n", ":3: policies.0.dayly: no such key"),
    ("policies:\n- org: acme\n  org: umbra\n", ":3: no valid YAML: org is given twice"),
    ("policies:\n- org: acme\n- {org: acme}\n", ":3: policies.1: acme/org//pool/USD is given twice"),
    ("policies: [{org: acme\n", ":2: no valid YAML: expected ',' or '}', but got '<stream end>'"),
    ("policies:\n- {? [a] : b}\n", ":2: no valid YAML: a key must be plain text"),
    ("policies:\n- acme\n", ":2: policies.0: Input should be a valid dictionary or instance of PolicyEntry"),
    ("policies: 5\n", ":1: expected a list under `policies:` or `models:` and nothing else"),
    ("members: []\n", ":1: expected a list under `policies:` or `models:` and nothing else"),
    ("policies: []\nmembers: []\n", ":1: expected a list under `policies:` or `models:` and nothing else"),
    ("", ":1: expected a list under `policies:` or `models:` and nothing else"),
    ("[" * 1_000, ":1: no valid YAML: nested too deeply"),
    ("policies:\n- org: 5\n", ":2: policies.0.org: Input should be a valid string"),
    (
        "policies:\n- org: acme\n  limits: {day/money: true}\n",
        ":3: policies.0.limits.day/money: Input should be a valid string",
    ),
    (
        "models:\n- {org: acme, allowed: []}\n",
        ":2: models.0.allowed: Tuple should have at least 1 item after validation, not 0",
    ),
    (
        "models:\n- {org: acme, scope: user, allowed: [x]}\n",
        ":2: models.0: name says which group, user or key: it is empty for scope org, and for no other",
    ),
    (
        "models:\n- {org: acme, allowed: [gpt-4o], downgrade_to: o1}\n",
        ":2: models.0: o1 is not allowed itself: allowed are gpt-4o",
    ),
    ("policies: {}\n", ":1: expected a list under `policies:` or `models:` and nothing else"),
    (
        "policies:\n- org: acme\n  alert_remaining: none\n",
        ":3: policies.0.alert_remaining: 'none' is not an amount; write for example 25 or 0.5",
    ),
]


@pytest.mark.parametrize(("text", "said"), POLICIES, ids=[said[:60] for _, said in POLICIES])
def test_a_wrong_file_of_policies(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(FileError) as wrong:
        read_policies(file)
    assert str(wrong.value) == f"{file}{said}"


MEMBERS = [
    (
        "m.yaml",
        "members:\n- org: acme\n  groups: [a]\n",
        ":2: members.0: give user or group: the name of who is inside the groups",
    ),
    (
        "m.yaml",
        "members:\n- {org: acme, user: ann, group: a}\n",
        ":2: members.0: give user or group: the name of who is inside the groups",
    ),
    ("m.yaml", "members:\n- {org: acme, group: a, groups: [a]}\n", ":2: members.0: group a contains itself"),
    ("m.yaml", "members:\n- {org: acme, user: ''}\n", ":2: members.0.name: String should have at least 1 character"),
    (
        "m.yaml",
        "members:\n- {org: acme, user: ann}\n- {org: acme, user: ann}\n",
        ":3: members.1: acme/user/ann is given twice",
    ),
    ("m.csv", "org,name\n", ":1: the first line must be org,kind,name,group"),
    ("m.csv", "", ":1: the first line must be org,kind,name,group"),
    ("m.csv", "org,kind,name,group\nacme,user,ann\n", ":2: 3 columns; expected 4"),
    ("m.csv", "org,kind,name,group\nacme,user,ann,a\nacme,team,ann,a\n", ":3: kind: Input should be 'user' or 'group'"),
    ("m.csv", "org,kind,name,group\n\nacme,group,a,a\n", ":3: a: group a contains itself"),
    ("m.csv", 'org,kind,name,group\nacme,user,"ann\n', ": cannot be read: unexpected end of data"),
]


@pytest.mark.parametrize(("name", "text", "said"), MEMBERS, ids=[said[:60] for *_, said in MEMBERS])
def test_a_wrong_file_of_members(tmp_path: Path, name: str, text: str, said: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(FileError) as wrong:
        read_members(file)
    assert str(wrong.value) == f"{file}{said}"


def test_every_mistake_is_named(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("policies:\n- {org: a, currency: X, timezone: Y}\n- {org: b}\n- {org: b}\n")
    with pytest.raises(FileError) as wrong:
        read_policies(file)
    assert len(str(wrong.value).splitlines()) == 3


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    for read in (read_policies, read_members):
        with pytest.raises(FileError, match=r"none\.yaml: cannot be read: No such file"):
            read(tmp_path / "none.yaml")


def test_decimals_stay_exact_and_rows_of_one_member_are_joined(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("policies:\n- {org: acme, limits: {day/money: 0.1, month/money: 3, week/tokens: 1_000}}\n")
    (policy,) = read_policies(file).policies
    assert (policy.daily_limit_micro, policy.monthly_limit_micro) == (100_000, 3_000_000)
    assert policy.limits == (Limit(period="week", measure="tokens", amount=1_000),)
    rows = tmp_path / "m.CSV"
    rows.write_bytes(b"\xef\xbb\xbforg,kind,name,group\r\nacme,user,ann,a\r\nacme,user,bob,\r\nacme,user,ann,b\r\n")
    assert read_members(rows) == [
        Member(org_id="acme", name="ann", groups=("a", "b")),
        Member(org_id="acme", name="bob"),
    ]


@pytest.mark.parametrize("text", ["", "x", "NaN", "Infinity", "-1", "0", "0.0000001", "1,5"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(PolicyTextError):
        amount_of(text)


@pytest.mark.parametrize("kind", ["day", "day/", "day/money/x", "rolling/money", "rolling0h/money", "rolling24/money"])
def test_what_is_no_limit(kind: str) -> None:
    with pytest.raises(PolicyTextError, match="is no limit"):
        limit_of(kind, "5")
