"""What is shipped is one top-level package with every file it needs, and its base install runs a service alone."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import checkout

ROOT = Path(__file__).resolve().parents[2]
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist from a copy of the tree, then the wheel from that sdist, as an index would be served."""
    out = tmp_path_factory.mktemp("dist")
    tree = checkout.copy(tmp_path_factory.mktemp("tree") / "tollmeter")
    # Without --sdist/--wheel, `build` makes the sdist and then the wheel out of it.
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(tree)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_every_folder_with_modules_is_a_package() -> None:
    tops = [ROOT / name for name in ("dashboards", "producers", "schemas", "sinks", "streams", "src/tollmeter")]
    folders = {path.parent for top in tops for path in top.rglob("*.py")}  # rglob does not follow the links
    missing = [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()]
    assert not missing, "packages are found by their __init__.py"


def test_wheel_holds_everything_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tollmeter"}
    shipped = {name for name in names if name.startswith("tollmeter/")}
    assert source_files() - shipped == set(), "missing from the wheel"
    assert shipped - source_files() == set(), "in the wheel, but not in the tree"
    assert any(name.endswith("licenses/LICENSE") for name in names)


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
    for name in distributions(*extras):
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


def test_base_install_alone_runs_a_service(wheel: Path, tmp_path: Path) -> None:
    run_installed(wheel, tmp_path, [], BASE_IMPORTS)


def test_worker_install_runs_the_stages_without_the_engine(wheel: Path, tmp_path: Path) -> None:
    run_installed(wheel, tmp_path, ["worker"], WORKER_IMPORTS)


def versions(lock: Path) -> list[str]:
    return [line for line in lock.read_text(encoding="utf-8").split("\n") if re.match(r"[a-z0-9].*==", line)]


def test_lock_files_are_complete_and_name_no_host() -> None:
    for name in ("requirements.lock", "requirements-senders.lock", "requirements-worker.lock"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "://" not in text
        assert "find-links" not in text
        entries = [entry for entry in text.split("\n") if "==" in entry and not entry.startswith((" ", "#"))]
        assert entries
        assert text.count("--hash=sha256:") >= len(entries)
    full = (ROOT / "requirements-senders.lock").read_text(encoding="utf-8")
    assert set(versions(ROOT / "requirements.lock")) <= set(full.split("\n"))
    extras = PYPROJECT["project"]["optional-dependencies"]
    for wanted in map(
        Requirement, PYPROJECT["project"]["dependencies"] + [item for e in extras.values() for item in e]
    ):
        if wanted.name != "tollmeter":
            locked = {line.split("==")[0] for line in full.split("\n") if "==" in line}
            name = wanted.name.lower()
            assert name in locked, f"run `make lock`: {name} is not in requirements-senders.lock"


def imported(file: Path) -> set[str]:
    """Top-level names of what a file imports by absolute names."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    of = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.split(".")[0] for name in plain | of}


def test_types_are_checked_alike_whether_the_senders_are_installed_or_not() -> None:
    """`make lint` runs on requirements.lock alone: what only the senders bring is never followed."""
    here = {"tollmeter", "tests", "benchmarks", "examples", "_typeshed", *sys.stdlib_module_names}
    folders = ("src", "dashboards", "producers", "schemas", "sinks", "streams", "tests", "benchmarks")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    names = set().union(*map(imported, files)) - here
    pinned = {entry.partition("==")[0] for entry in versions(ROOT / "requirements.lock")}
    brings = packages_distributions()
    alone = {name for name in names if not {canonicalize_name(found) for found in brings.get(name, [])} & pinned}
    skipped = {
        module.partition(".")[0]
        for override in PYPROJECT["tool"]["mypy"]["overrides"]
        if override.get("follow_imports") == "skip"
        for module in override["module"]
    }
    assert {"litellm", "langchain_openai"} <= alone
    assert alone <= skipped, f"add {sorted(alone - skipped)} to the modules that mypy skips"
