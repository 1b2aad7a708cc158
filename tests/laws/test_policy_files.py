"""Files of policies and members read back what was written, to the last micro-unit and the oddest name."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tollmeter.admin.policy_files import members_csv, members_yaml, policies_yaml, read_members, read_policies
from tollmeter.admin.policy_text import amount_of, amount_text
from tollmeter.schemas.model_rules import MODEL_SCOPES, ModelRule
from tollmeter.schemas.policy import ASKED_COLUMNS, MEMBER_SCOPES, SCOPE_KINDS, Limit, Member, Policy

ODD = st.sampled_from(
    ["1.5", "007", "null", "yes", "2026-11-22", "a: b", "- x", "ü/%2F", "a,b;c", '"', "line\nbreak", "~"]
)
NAMES = st.one_of(
    ODD, st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(str.strip)
)
AMOUNTS = st.integers(1, 10**15)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    scope = draw(st.sampled_from(SCOPE_KINDS))
    kinds = draw(
        st.lists(
            st.sampled_from(
                [
                    ("week", None, "money"),
                    ("rolling", 24, "money"),
                    ("rolling", 1, "tokens"),
                    ("rolling", 1488, "requests"),
                    ("day", None, "tokens"),
                    ("month", None, "requests"),
                ]
            ),
            unique=True,
        )
    )
    if scope in ASKED_COLUMNS:
        kinds = [kind for kind in kinds if kind[0] != "rolling"]
    named = {"org": st.just(""), "tag": NAMES.map("k={}".format), "client_ip": st.ip_addresses().map(str)}
    name = draw(st.just("") | NAMES) if scope in MEMBER_SCOPES else draw(named.get(scope, NAMES))
    either = draw(st.sampled_from(["pool", "each_member"])) if scope in ("org", "group") else "pool"
    return Policy(
        org_id=draw(NAMES),
        scope=scope,
        name=name,
        applies="each_member" if scope in MEMBER_SCOPES and not name else either,
        daily_limit_micro=draw(st.none() | AMOUNTS),
        monthly_limit_micro=draw(st.none() | AMOUNTS),
        limits=tuple(Limit(period=p, hours=h, measure=m, amount=draw(AMOUNTS)) for p, h, m in kinds),
        currency=draw(st.sampled_from(["USD", "EUR", "RUB"])),
        timezone=draw(st.sampled_from(["UTC", "Asia/Kolkata"])),
        warn_threshold_pct=draw(st.integers(1, 100)),
        alert_pcts=tuple(draw(st.lists(st.integers(1, 1_000), max_size=4))),
        alert_remaining_micro=draw(st.none() | AMOUNTS),
    )


@st.composite
def members(draw: st.DrawFn) -> Member:
    name = draw(NAMES)
    groups = draw(st.lists(NAMES.filter(lambda group: group != name), unique=True, max_size=3))
    kind = draw(st.sampled_from(["user", "group"]))
    return Member.model_validate({"org_id": draw(NAMES), "kind": kind, "name": name, "groups": groups})


@pytest.fixture(scope="module", name="folder")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@st.composite
def model_rules(draw: st.DrawFn) -> ModelRule:
    scope = draw(st.sampled_from(MODEL_SCOPES))
    allowed = draw(st.lists(NAMES.filter(str.strip), min_size=1, max_size=3))
    instead = draw(st.sampled_from(["", "*"])) and allowed[0]
    name = "" if scope == "org" else draw(NAMES)
    return ModelRule.model_validate(
        {"org_id": draw(NAMES), "scope": scope, "name": name, "allowed": allowed, "downgrade_to": instead}
    )


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(policies(), max_size=3, unique_by=lambda policy: policy.policy_id),
    st.lists(model_rules(), max_size=3, unique_by=lambda rule: rule.key),
)
def test_policies(folder: Path, written: list[Policy], models: list[ModelRule]) -> None:
    file = folder / "policies.yaml"
    file.write_text(policies_yaml(written, models), encoding="utf-8")
    assert read_policies(file) == (written, models)


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(members(), max_size=4, unique_by=lambda member: member.member_id))
def test_members(folder: Path, written: list[Member]) -> None:
    for ending, text in (("yaml", members_yaml(written)), ("csv", members_csv(written))):
        file = folder / f"members.{ending}"
        file.write_bytes(text.encode())
        assert read_members(file) == written


@given(AMOUNTS)
def test_amounts(micro: int) -> None:
    text = amount_text(micro)
    assert amount_of(text) == micro
    assert len(text.partition(".")[2]) >= 2
