"""`python -m tests.fuzz.reader`: a million hostile statements for the judge of readers, the engine's parser as witness.

What the judge lets pass is parsed by the engine, from the text that came and from the text that would be run: both must
be the same statement, and its tree may name nothing that is on no list. Then it is run on an engine that is *not*
confined to its folder, with canary files beside it: nothing else than the judgement is between them.
"""

import argparse
import json
import os
import random
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.fuzz.reader_statements import PATH, SETTINGS, Hostile
from tollmeter.embedded.errors import FrontError
from tollmeter.embedded.reader_lists import (
    BEFORE_PARENTHESIS,
    SCHEMA_TABLES,
    SYSTEM_TABLES,
    TABLE_FUNCTIONS,
    check_format,
    is_function,
)
from tollmeter.embedded.reader_names import Names
from tollmeter.embedded.reader_settings import reader_settings
from tollmeter.embedded.readonly import judge
from tollmeter.embedded.sql_tokens import literal

SECRET = "canary-4f1d0c"
BATCH = 2_000
_PARAMETER = re.compile(r"\{[^{}]*\}")
_OF_THE_PARSER = frozenset(
    {"lambda", "exists", "globalin", "globalnotin", "nullin", "notnullin", "casewithexpression", "viewexplain"}
)


class LeakError(AssertionError):
    """The judge let something pass."""


class Canaries:
    """Files beside the engine's folder: their content must appear nowhere, and nothing about them may change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("users.json", "secret.csv", "schema.proto"):
            file = folder / name
            if not file.exists():
                file.write_text(f"{SECRET},{name}\n")
            os.utime(file, (1_000_000_000, 1_500_000_000))  # read once, its access time becomes now
        self.paths = [
            *(str(folder / name) for name in ("users.json", "secret.csv", "new.csv", "x", "*")),
            "/etc/passwd",
        ]
        self._before = self._state()

    def check(self, what: str) -> None:
        """Raise `LeakError` when a file was read, written or made."""
        if (now := self._state()) != self._before:
            raise LeakError(f"files changed: {set(now) ^ set(self._before)} after {what!r}")

    def _state(self) -> list[tuple[str, int, int, int]]:
        stats = [(entry.name, entry.stat()) for entry in os.scandir(self.folder) if entry.is_file()]
        return sorted((name, stat.st_atime_ns, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


class Witness:
    """The engine, not confined."""

    def __init__(self, folder: Path) -> None:
        import chdb

        self._connect, self._folder = chdb.connect, str(folder)
        self._keep = chdb.connect(self._folder)
        for table in ("t", "u"):
            self._keep.query(f"CREATE TABLE {table} (a UInt64, b String, c String) ENGINE = MergeTree ORDER BY a")
            self._keep.query(f"INSERT INTO {table} VALUES (1, 'x', 'y'), (2, 'z', '')")
        self.names = Names(self.ask)

    def ask(self, query: str) -> str:
        """Return an answer as text."""
        return bytes(self._keep.query(query, "TSVRaw").bytes()).decode(errors="replace")

    def same(self, pairs: list[tuple[str, str]]) -> list[bool | None]:
        """Tell of each pair of texts whether both are the same statement; None when the engine reads neither."""
        rows = ",".join(f"({literal(came)},{literal(written)})" for came, written in pairs)
        query = f"""SELECT formatQuerySingleLineOrNull(a) AS x, formatQuerySingleLineOrNull(b) AS y
            FROM values('a String, b String', {rows}) FORMAT JSONCompactEachRow"""
        told = [json.loads(line) for line in self.ask(query).splitlines()]
        assert len(told) == len(pairs)
        return [None if one is two is None else _plain(one) == _plain(two) for one, two in told]

    def tree(self, query: str) -> Any:
        """Return the engine's tree of a query; None for statements that it does not show as JSON."""
        try:
            return json.loads(self.ask(f"SELECT parseQueryToJSON({literal(query)})"))
        except Exception as error:
            if "does not support JSON" in str(error) or query.startswith(("DESC", "EXISTS", "SHOW")):
                return None
            raise

    def run(self, query: str, settings: Mapping[str, str]) -> str:
        """Run a statement as the front does for a reader, and return the answer or the error."""
        handle = self._connect(self._folder)
        try:
            for name, value in {**settings, "max_execution_time": "0.5", "max_memory_usage": "100000000"}.items():
                handle.query(f"SET {name}={literal(value)}")
            handle.query("SET readonly=1")
            return bytes(handle.query(query, "TSV").bytes()).decode(errors="replace")
        except Exception as error:
            return str(error)
        finally:
            handle.close()


def _plain(statement: str | None) -> str | None:
    """Return a statement without the types of its parameters, which the engine keeps as they were written."""
    return statement and _PARAMETER.sub("{}", statement)


def check_tree(node: Any) -> None:
    """Raise `LeakError` when a tree names something that is on no list."""
    for part in _parts(node):
        kind, name = part.get("type"), str(part.get("func_name") or part.get("name") or "")
        if kind in ("Function", "ColumnsApplyTransformer") and name:
            name = name.rpartition(".")[2]
            known = is_function(name) or name.lower() in TABLE_FUNCTIONS | _OF_THE_PARSER
            if not known and name.upper() not in BEFORE_PARENTHESIS:  # no function has a keyword's name
                raise LeakError(f"function {name}")
        elif kind in ("TableIdentifier", "Identifier") and ("/" in name and kind == "TableIdentifier"):
            raise LeakError(f"table {name}")
        elif kind == "TableIdentifier" and (names := part.get("name_parts")):
            listed = {"system": SYSTEM_TABLES, "information_schema": SCHEMA_TABLES}.get(names[0].lower())
            if listed is not None and names[-1].lower() not in listed:
                raise LeakError(f"table {name}")
        elif kind == "QueryParameter" and part.get("param_type", "").lower() == "identifier":
            raise LeakError("a parameter in place of a name")
        elif kind in ("InsertQuery", "DropQuery", "CreateQuery", "SystemQuery", "SetQuery", "AlterQuery"):
            raise LeakError(kind)
        if part.get("out_file") or part.get("settings_ast"):
            raise LeakError("a file for the answer, or settings")
        if part.get("format_ast"):
            check_format(part["format_ast"]["name"])


def _parts(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _parts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _parts(value)


def run(inputs: int, seed: int, *, executed: float = 1.0) -> dict[str, Any]:
    """Judge so many statements, and return counts. `executed`: the part of those that pass which is run, too."""
    began = time.process_time()
    counts = {"inputs": 0, "passed": 0, "of_which_statements": 0, "trees": 0, "executed": 0, "settings_passed": 0}
    with tempfile.TemporaryDirectory() as name:
        canaries = Canaries(Path(name))
        witness = Witness(Path(name) / "engine")
        os.chdir(Path(name) / "engine")
        hostile, draw = Hostile(seed, confined=False), random.Random(seed)
        seen: set[str] = set()
        while counts["inputs"] < inputs:
            batch = [
                _passed(hostile, draw, canaries, witness, counts) for _ in range(min(BATCH, inputs - counts["inputs"]))
            ]
            pairs = [pair for pair in batch if pair is not None]
            _look(pairs, witness, canaries, counts, seen, draw, executed)
        os.chdir("/")
    return {**counts, "seed": seed, "cpu_s": round(time.process_time() - began)}


def _passed(
    hostile: Hostile, draw: random.Random, canaries: Canaries, witness: Witness, counts: dict[str, int]
) -> tuple[str, str, dict[str, str]] | None:
    counts["inputs"] += 1
    text = hostile.statement().replace(PATH, draw.choice(canaries.paths))
    sent = {name: value for name, value in hostile.settings().items() if name in SETTINGS}
    try:
        settings = reader_settings(sent, {})
        counts["settings_passed"] += bool(sent)
    except FrontError:
        settings = reader_settings({}, {})
    if any("/" in value and name != "session_timezone" for name, value in settings.items()):
        raise LeakError(f"settings {settings}")
    try:
        written = judge(text, witness.names.forbidden())
    except FrontError:
        return None
    if judge(written, witness.names.forbidden()) != written:
        raise LeakError(f"judged twice, another statement: {text!r}")
    counts["passed"] += 1
    return text, written, settings


def _look(
    pairs: list[tuple[str, str, dict[str, str]]],
    witness: Witness,
    canaries: Canaries,
    counts: dict[str, int],
    seen: set[str],
    draw: random.Random,
    executed: float,
) -> None:
    same = witness.same([(came, written) for came, written, _ in pairs])
    for (came, written, settings), alike in zip(pairs, same, strict=True):
        if alike is False:
            raise LeakError(f"another statement than the one that came: {came!r} became {written!r}")
        counts["of_which_statements"] += alike is True
        if not alike or written in seen:
            continue
        seen.add(written)
        if (tree := witness.tree(written)) is not None:
            counts["trees"] += 1
            try:
                check_tree(tree)
            except (LeakError, FrontError) as error:
                raise LeakError(f"{error} in {came!r}") from None
        if draw.random() < executed:
            counts["executed"] += 1
            if SECRET in witness.run(written, settings):
                raise LeakError(f"the secret in the answer to {came!r}")
            canaries.check(came)


def main() -> None:
    """Print the counts of a run as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.reader", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--executed", type=float, default=1.0, help="part of the passed statements that is run")
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.inputs, arguments.seed, executed=arguments.executed)))


if __name__ == "__main__":
    main()
