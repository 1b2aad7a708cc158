"""What a wheel holds, and programs that run on it, what its extras need, and nothing else."""

import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SHIPPED = {".py", ".pyi", ".avsc", ".sql", ".yaml", ".csv", ".xml", ".json", ".html", ".css", ".js", ".svg", ".typed"}
BASE_IMPORTS = """
import json, pkgutil, sys
from importlib import import_module
import tollmeter
from tollmeter import UsageProducer, extract, producers, schemas
for package in (producers, schemas):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if ".integrations." not in module.name:  # each needs the library that it is for
            import_module(module.name)
assert all(getattr(tollmeter, name) for name in tollmeter.__all__)
with UsageProducer(service="shop", org_id="acme", mode="memory") as producer:
    reply = {"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o",
             "usage": {"prompt_tokens": 1000, "completion_tokens": 200}}
    assert producer.record(extract(reply, user_id="ann"))
    (event,) = producer.events
assert (event.model_used, event.input_tokens, event.output_tokens) == ("gpt-4o", 1000, 200), event
from tollmeter.producers.guard.guard import Guard
with Guard(mode="memory", producer=producer) as guard:
    policy = {"org_id": "acme", "daily_limit_micro": 1}
    assert guard.apply("policies", "policy:p", json.dumps(policy).encode())
    spend = {"partition": 0, "stamp": 1, "org_id": "acme", "scope": "org", "name": "", "period": "day@UTC",
             "starts_s": 0, "ends_s": 1 << 40, "unit": "USD", "spent": 1000, "at_risk_nano": 0, "limit": 1000,
             "policy_id": "p", "remaining": 0, "percent": 100, "forecast": None}
    assert guard.apply("spend", "spend/acme/org//day@UTC/USD", json.dumps(spend).encode())
    denied = guard.check("gpt-4o", prompt_chars=400, org="acme", user="ann")
assert denied.body["message"] == "llm cost limit exceeded: daily cost limit reached", denied
heavy = {"faust", "polars", "numpy", "clickhouse_connect", "chdb", "genai_prices", "click", "rich", "yaml",
         "httpx", "httpx2", "openai", "anthropic", "starlette"} & set(sys.modules)
assert not heavy, heavy
"""

WORKER_IMPORTS = """
import sys
from importlib import import_module
from tollmeter.cli.root import COMMANDS
for name in ("worker", "setup", "report", "alerts", "policy", "prices", "verify", "send", "status"):
    listed = COMMANDS[name]
    assert getattr(import_module(f"tollmeter.cli.{listed.module}"), listed.name)
for stage in ("price", "ledger", "watch"):
    assert import_module(f"tollmeter.streams.{stage}.stage").run
assert "chdb" not in sys.modules
"""

EMBEDDED_IMPORTS = """
from importlib import import_module
from tollmeter.cli.output import UserError
from tollmeter.cli.root import COMMANDS
from tollmeter.cli.stack import serves
for name in sorted(COMMANDS):
    listed = COMMANDS[name]
    assert getattr(import_module(f"tollmeter.cli.{listed.module}"), listed.name)
assert serves(), "up runs the server"
import_module("tollmeter.server.run")
from tollmeter.cli import mcp
try:
    mcp.serve(None)
except UserError as refused:
    assert "[mcp]" in str(refused)
"""


def source_files() -> set[str]:
    """Return the paths inside the wheel of every file in the folders that make up the package."""
    found = set()
    for top in (
        ROOT / "src" / "tollmeter",
        *(ROOT / name for name in ("dashboards", "producers", "schemas", "sinks", "streams")),
    ):
        package = "tollmeter" if top.name == "tollmeter" else f"tollmeter/{top.name}"
        for name in sorted(top.rglob("*")):  # does not follow the links
            below = name.relative_to(top)
            if name.is_file() and name.suffix in SHIPPED and "__pycache__" not in below.parts:
                found.add(f"{package}/{below.as_posix()}")
    return found


def distributions(*extras_wanted: str) -> set[str]:
    """Return the distributions that `pip install tollmeter[extras]` brings."""
    optional = PYPROJECT["project"]["optional-dependencies"]
    texts = PYPROJECT["project"]["dependencies"] + [text for extra in extras_wanted for text in optional[extra]]
    todo = [Requirement(text) for text in texts]
    found: set[str] = set()
    done: set[tuple[str, frozenset[str]]] = set()
    while todo:
        wanted = todo.pop()
        if (wanted.name, frozenset(wanted.extras)) in done:
            continue
        done.add((wanted.name, frozenset(wanted.extras)))
        found.add(wanted.name)
        for text in distribution(wanted.name).requires or []:
            needed = Requirement(text)
            extras = {"", *wanted.extras}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(needed)
    return found


def run_installed(wheel: Path, folder: Path, extras: list[str], code: str) -> None:
    """Run code with the wheel, what its extras need, and nothing else: no site-packages, no source tree."""
    site, package = folder / "site", folder / "package"
    site.mkdir()
    for name in distributions(*extras) - {"tollmeter"}:
        for file in distribution(name).files or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(package)
    paths = f"import sys; sys.path[:0] = [{str(package)!r}, {str(site)!r}]\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", paths + code], cwd=folder, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
