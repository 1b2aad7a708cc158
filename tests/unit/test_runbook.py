"""Every kind of alert, every reason of a dead letter and every difference of verify has its section, whole and once."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tollmeter.cli.root import COMMANDS
from tollmeter.producers.guard.refusals import ALERT_KINDS
from tollmeter.schemas.dead_letter import NOT_UNPACKED, PASSED_OVER, QUARANTINED
from tollmeter.streams.rules.anomalies.words import HOURLY
from tollmeter.streams.rules.anomalies.words import KINDS as SUSPICIONS
from tollmeter.streams.rules.events.decode_avro import REASONS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
PARTS = dict(re.findall(r"^## (.+?)$(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))
QUESTIONS = ("**Means.**", "**Look.**", "**Do.**", "**Over when.**")


def sections(part: str) -> dict[str, str]:
    found = re.findall(r"^### (.+?)$(.*?)(?=^### |\Z)", PARTS[part], re.DOTALL | re.MULTILINE)
    assert len(found) == len(dict(found)), "a section stands twice"
    return {title.strip("`"): text for title, text in found}


def calls(*folders: str) -> Iterator[tuple[str, ast.Call]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    yield ast.unparse(node.func).rpartition(".")[2], node


def texts(node: ast.AST) -> set[str]:
    """Return the texts that an expression may be; a part that is filled in later is a star."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    if isinstance(node, ast.IfExp):
        return texts(node.body) | texts(node.orelse)
    if isinstance(node, ast.JoinedStr):
        return {"".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)}
    return set()


def alert_kinds() -> set[str]:
    """Kinds as the code names them: as an alert's field, and as the first part of its id."""
    found = set(ALERT_KINDS.values())
    for name, call in calls("streams", "src/tollmeter", "producers"):
        if name == "Alert":
            found |= {text for word in call.keywords if word.arg == "kind" for text in texts(word.value)}
        if name == "alert_id" and call.args:
            found |= texts(call.args[0])
        if name == "_key_alert":
            found |= texts(call.args[2])
    found |= {*SUSPICIONS, *HOURLY, "burn_rate", "forecast"}
    from tollmeter.admin.verify.alarm import KIND

    return {kind for kind in found | {KIND} if re.fullmatch(r"[a-z_]+", kind)} - {"digest", "report", "stable"}


def difference_names() -> set[str]:
    found: set[str] = set()
    for name, call in calls("src/tollmeter/admin/verify"):
        if name == "Difference" and call.args:
            found |= texts(call.args[0])
    for node in ast.walk(ast.parse((ROOT / "src/tollmeter/admin/verify/sources.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.elts[1], ast.Name | ast.Compare):
            found |= {text for text in texts(node.elts[0]) if "_" in text}
    return found


def test_every_kind_of_alert_has_its_section() -> None:
    known = sections("Alerts about use").keys() | sections("Alerts about the line").keys()
    found = alert_kinds()
    assert {"budget", "spend_spike", "gap", "dlq_flood", "verify_difference", "blocked"} <= found
    assert found - known == set()
    assert known - found == set()


def test_every_reason_of_a_dead_letter_has_its_section() -> None:
    of_ledger = set()
    for name, call in calls("streams"):
        if name in ("dead_letter_headers", "dead_letter") and isinstance(call.args[1], ast.Constant):
            of_ledger |= texts(call.args[1])
    assert sections("Dead letters").keys() == {*REASONS, QUARANTINED, NOT_UNPACKED, PASSED_OVER, *of_ledger} - {
        "retried"
    }
    assert {"rejected", "bad_priced_record"} <= of_ledger


def test_every_difference_of_verify_has_its_section() -> None:
    found = difference_names()
    assert {"cost_nano", "window_*", "records = accepted + rejected", "priced_and_rejected"} <= found
    assert sections("Differences of verify").keys() == found


@pytest.mark.parametrize("part", PARTS)
def test_every_section_answers_the_four_questions(part: str) -> None:
    for title, text in sections(part).items():
        places = [text.find(question) for question in QUESTIONS]
        assert -1 not in places, title
        assert places == sorted(places), title


def test_commands_and_metrics_that_it_names_exist() -> None:
    named = set(re.findall(r"tollmeter ([a-z]+)", " ".join(re.findall(r"`[^`]+`|```.*?```", TEXT, re.DOTALL))))
    assert named - {*COMMANDS} == set()
    metrics = (ROOT / "streams" / "engine" / "metrics.py").read_text(encoding="utf-8")
    for name in set(re.findall(r"tollmeter_([a-z_]+)", TEXT)):
        assert name.removesuffix("_total") in metrics, name
