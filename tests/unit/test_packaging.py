"""What makes a package: every folder is one, the locks are complete, types are checked alike everywhere."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_folder_with_modules_is_a_package() -> None:
    tops = [ROOT / name for name in ("dashboards", "producers", "schemas", "sinks", "streams", "src/tollmeter")]
    folders = {path.parent for top in tops for path in top.rglob("*.py")}  # rglob does not follow the links
    missing = [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()]
    assert not missing, "packages are found by their __init__.py"


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


def test_nobody_is_told_to_install_us_from_an_index_that_does_not_have_us() -> None:
    """Somebody else may publish a package of this name: every text names the wheel (`how_to_get`)."""
    tops = ("docs", "examples", "producers", "schemas", "sinks", "src/tollmeter", "streams")
    files = [file for top in tops for suffix in ("md", "py") for file in (ROOT / top).rglob(f"*.{suffix}")]
    named = [str(file) for file in files if re.search(r"pip install '?tollmeter", file.read_text(encoding="utf-8"))]
    assert len(files) > 300
    assert not named


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
