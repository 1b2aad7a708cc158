"""Rules of access and grants: the page says what the code says, and what is shipped for ClickHouse grants the same."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tollmeter.broker.access_rules import ALL, BY_NAME, ROLES, by_place, command, rules
from tollmeter.schemas import topics
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.grants import grants
from tollmeter.streams.ledger.stage import Ledger
from tollmeter.streams.price.stage import Price
from tollmeter.streams.watch.stage import Watch

ROOT = Path(__file__).parents[2]


def names(cell: str) -> set[str]:
    return set(ALL) if cell.strip() == "all" else set(re.findall(r"`(.+?)`", cell))


def test_the_page_has_the_table() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = text.partition("<!-- access rules -->")[2].partition("<!-- end -->")[0]
    rows = [line.strip("| ").split(" | ") for line in table.strip().splitlines()[2:]]
    assert [row[0].strip("`") for row in rows] == [role.name for role in ROLES]
    for (_, who, reads, writes, *why), role in zip(rows, ROLES, strict=True):
        assert who == role.who
        assert (names(reads), names(writes)) == (set(role.reads), set(role.writes)), role.name
        assert role.why in " | ".join(why)


@pytest.mark.parametrize("stage", [Price, Ledger, Watch])
def test_a_stage_may_do_what_it_does(stage: type[Price] | type[Ledger] | type[Watch]) -> None:
    role = BY_NAME[stage.name]
    assert set(stage.reads) <= set(role.reads)
    assert set(stage.writes) <= set(role.writes)
    assert topics.ALERTS in role.writes, "what goes wrong is told"


def test_who_may_write_priced_rows_and_rules() -> None:
    def writers(topic: str) -> set[str]:
        return {role.name for role in ROLES if topic in role.writes}

    assert writers(topics.PRICED) == {"price", "ledger", "watch", "server", "admin"}
    assert writers(topics.POLICIES) == {"server", "admin"}
    assert writers(topics.PRICES) == {"price"}
    assert "producer" not in writers(topics.ALERTS)


def test_rules_as_commands() -> None:
    settings = Settings(topic_prefix="t.", group_prefix="g")
    groups = {command(group) for group in by_place(rules(settings, {"producer": "User:CN=a b"}))}
    start = "kafka-acls --bootstrap-server $KAFKA --add --allow-principal "
    assert start + "'User:CN=a b' --operation Write --topic t.usage.events" in groups
    assert start + "User:g-price --operation Read --operation Describe --topic t.usage.events" in groups
    assert start + "User:g-price --operation Read --group g-price" in groups
    assert start + "User:g-admin --operation Alter --operation Describe --cluster" in groups
    assert not [text for text in groups if "g-reader" in text and "Write" in text]


def test_shipped_users_have_these_grants() -> None:
    root = ElementTree.parse(ROOT / "docker" / "clickhouse" / "users.d" / "tollmeter.xml").getroot()
    shipped = {
        f"{query.text} TO {user}"
        for user in ("writer", "reader", "grafana")
        for query in root.findall(f"users/{user}/grants/query")
    }
    assert {grant.statement for grant in grants(Settings(clickhouse_user="writer"))} == shipped
