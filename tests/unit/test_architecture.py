"""The path of one event in docs/architecture.md: its files are there, few enough, and hang together by imports.

Kafka clients are made in one place.
"""

import ast
import re
from functools import cache
from pathlib import Path

from tests.unit.test_size import trees

ROOT = Path(__file__).parents[2]
TO_CLICKHOUSE, TO_AN_INBOX = 15, 25
HOP = re.compile(r"^(\d+)\. `([\w/]+\.py)` ")
TOPIC = re.compile(r"^usage\.[a-z]+$")


def segments() -> list[list[str]]:
    """Return the hops between two topics, by their paths; WATCH's begin where LEDGER's end."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    found: list[list[str]] = [[]]
    for line in text.partition("## The path of one event")[2].partition("\n## ")[0].splitlines():
        if hop := HOP.match(line):
            found[-1].append(hop[2])
        elif TOPIC.match(line) or line.startswith("An event that crosses"):
            found.append([])
    return found


def path_of(module: str) -> str:
    inner = module.removeprefix("tollmeter.").replace(".", "/")
    return next((f"{at}{inner}.py" for at in ("", "src/tollmeter/") if (ROOT / f"{at}{inner}.py").exists()), "")


@cache
def imports_of(path: str) -> frozenset[str]:
    """Return the files that a file imports itself."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(
        path_of(name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tollmeter")
        for name in (node.module or "", *(f"{node.module}.{name.name}" for name in node.names))
    ) - {""}


def imported(path: str) -> set[str]:
    """Return the files that a file imports, directly and through others."""
    found, waiting = set[str](), [path]
    while waiting:
        fresh = imports_of(waiting.pop()) - found
        found |= fresh
        waiting += fresh
    return found


def test_the_path_is_short_and_its_files_are_there() -> None:
    client, price, ledger, watch, notify = segments()
    for path in (*client, *price, *ledger, *watch, *notify):
        assert (ROOT / path).is_file(), path
    assert len({*client, *price, *ledger}) <= TO_CLICKHOUSE
    assert len({*client, *price, *watch, *notify}) <= TO_AN_INBOX
    assert "clickhouse" in ledger[-1]
    assert "mail" in notify[-1]


def test_what_lies_between_two_topics_hangs_together() -> None:
    """One hop of each part imports the others; a channel is known to notify by its protocol alone."""
    client, price, ledger, watch, notify = segments()
    protocol = "sinks/channels/message.py"
    assert protocol in imported(notify[-1])
    for part in (client, price, ledger, watch, [*notify[:-1], protocol]):
        heads = [one for one in part if {*part} - {one} <= imported(one)]
        assert heads, part


MAKER, FAUSTS = "src/tollmeter/broker/make.py", {"streams/engine/consumer.py": {"AIOKafkaConsumerThread"}}
"""Who names aiokafka's clients: the module that makes them, and the one that takes Faust's for its stages."""
OPTIONS = {"acks", "auto_offset_reset", "enable_idempotence", "fetch_max_wait_ms", "isolation_level", "linger_ms"}
"""Options that only a maker of clients passes."""


def test_kafka_clients_are_made_in_one_place() -> None:
    for path, nodes in trees().items():
        names = {
            name
            for node in nodes
            for name in (getattr(node, "id", ""), getattr(node, "attr", ""), getattr(node, "name", ""))
            if isinstance(name, str) and name.startswith("AIOKafka")
        }
        options = {node.arg for node in nodes if isinstance(node, ast.keyword)} & OPTIONS
        if path == MAKER:
            assert {"AIOKafkaConsumer", "AIOKafkaProducer", "AIOKafkaAdminClient"} <= names
            assert options == OPTIONS
        else:
            assert names == FAUSTS.get(path, set()), path
            assert not options, path
