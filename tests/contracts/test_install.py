"""What `make` and the image install is the lock, on any day, with any pip; what `make dist` builds runs anywhere."""

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests import checkout, package_index, wheels

ROOT = checkout.ROOT
OLD_PIPS = ("22.3", "23.2.1")  # of Python 3.11.0 and 3.11.7; they resolve `google-auth[requests]` again, hashes or not
NEWEST = "newest"
NOWHERE = "http://127.0.0.1:9/"
BUILD_TOOLS = {"setuptools", "build", "pyproject-hooks", "packaging"}


@dataclass(frozen=True)
class Index:
    """Wheels of both lock files, newer releases of each, and the locks with the hashes of these wheels."""

    locked: Path
    newer: Path
    locks: dict[str, str]


def closure(*names: str) -> set[str]:
    """Return the distributions that these need, with themselves."""
    found: set[str] = set()
    todo = [Requirement(name) for name in names]
    while todo:
        wanted = todo.pop()
        for text in distribution(wanted.name).requires or ():
            needed = Requirement(text)
            holds = [
                needed.marker is None or needed.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)
            ]
            if any(holds) and str(needed) not in found:
                todo.append(needed)
        found |= {wanted.name, str(wanted)}
    return found


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    locked, newer = tmp_path_factory.mktemp("locked"), tmp_path_factory.mktemp("newer")
    whole = BUILD_TOOLS | closure("tollmeter")  # what `make dist` and a service really run
    locks = {}
    for name in ("requirements.lock", "requirements-worker.lock"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert len(package_index.entries(text)) == len(re.findall(r"^[a-z][^ ]*==", text, re.MULTILINE)), name
        locks[name] = package_index.wheels_of(text, locked, whole)
        package_index.newer(text, newer)
    return Index(locked, newer, locks)


@pytest.fixture(scope="module")
def address(index: Index) -> Iterator[str]:
    """An index on which, since the lock was made, every package had a newer release."""
    with package_index.serving(index.locked, index.newer) as served:
        yield served


def environment(served: str, **more: str) -> dict[str, str]:
    """Return this environment with pip on the made-up index alone, without a cache or settings of its own."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MAKE", "PYTEST_"))}
    pip = {"PIP_INDEX_URL": served, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1", "PIP_NO_COMPILE": "1"}
    return {**ours, **pip, **more}


def checked_out(folder: Path, index: Index) -> Path:
    """Return a copy of the checkout with the locks of the made-up index."""
    tree = checkout.copy(folder / "tree")
    for name, text in index.locks.items():
        (tree / name).write_text(text, encoding="utf-8")
    return tree


def run(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def python_with(pip: str, folder: Path) -> str:
    """Return a python whose virtual environments come with this release of pip, taken from the real index."""
    wanted = "pip" if pip == NEWEST else f"pip=={pip}"
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, wanted], check=True)
    (wheel,) = folder.glob("pip-*.whl")
    script = folder / "python"
    swap = f'for last; do :; done; "$last/bin/python" -m pip install -q --no-index --no-deps "{wheel}"'
    script.write_text(f'#!/bin/sh\n"{sys.executable}" "$@" || exit\ncase "$*" in "-m venv"*) {swap} ;; esac\n')
    script.chmod(0o755)
    return str(script)


def installed(environment: Path) -> dict[str, str]:
    """Return name → version of what a virtual environment holds, pip left out."""
    listed = subprocess.run(
        [environment / "bin/python", "-m", "pip", "list", "--format", "json"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return {
        entry["name"].lower().replace("_", "-"): entry["version"]
        for entry in json.loads(listed)
        if entry["name"] != "pip"
    }


def expected(lock: str) -> dict[str, str]:
    locked = {entry.name.replace(".", "-"): entry.version for entry in package_index.entries(lock) if entry.here}
    return {**locked, "tollmeter": distribution("tollmeter").version}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, index: Index, address: str) -> Path:
    """A checkout in which `make install` ran, with the pip of this Python."""
    tree = checked_out(tmp_path_factory.mktemp("made"), index)
    done = run(["make", "install", f"PYTHON={sys.executable}"], tree, environment(address))
    assert done.returncode == 0, done.stdout + done.stderr
    return tree


def test_make_installs_the_lock_and_nothing_newer(made: Path, index: Index) -> None:
    assert installed(made / ".venv") == expected(index.locks["requirements.lock"])


def test_make_does_it_once(made: Path) -> None:
    """With no index left to ask, and no other python than its own."""
    again = run(["make", "install"], made, environment(NOWHERE))
    assert again.returncode == 0, again.stderr
    assert "Preparing" not in again.stdout


@dataclass(frozen=True)
class Built:
    """What `make dist` wrote, and an environment that holds nothing but the wheel and what it needs."""

    names: list[str]
    wheel: Path
    python: Path
    path: str


@pytest.fixture(scope="module")
def built(made: Path, index: Index, tmp_path_factory: pytest.TempPathFactory) -> Built:
    done = run(["make", "dist"], made, environment(NOWHERE))
    assert done.returncode == 0, done.stdout + done.stderr
    names = sorted(path.name for path in (made / "dist").iterdir())
    fresh = tmp_path_factory.mktemp("fresh") / "venv"
    subprocess.run([sys.executable, "-m", "venv", fresh], check=True)
    found = Built(
        names, made / "dist" / names[0], fresh / "bin/python", f"{fresh / 'bin'}{os.pathsep}{os.environ['PATH']}"
    )
    with package_index.serving(index.locked) as served:
        done = run(["sh", "-c", f"pip install dist/{names[0]}"], made, environment(served, PATH=found.path))
    assert done.returncode == 0, done.stdout + done.stderr
    return found


def test_wheel_of_make_dist_runs_the_example_elsewhere(built: Built, tmp_path: Path) -> None:
    version = distribution("tollmeter").version
    assert built.names == [f"tollmeter-{version}-py3-none-any.whl", f"tollmeter-{version}.tar.gz"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\npip install dist/{built.names[0]} " in readme

    snippet = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)[0]
    in_memory = snippet.replace('org_id="demo")', 'org_id="demo", mode="memory")')
    assert in_memory != snippet
    code = in_memory + "import tollmeter; print(tollmeter.__file__, [e.input_tokens for e in producer.events])\n"
    ran = run([str(built.python), "-c", code], tmp_path, environment(NOWHERE))
    assert ran.returncode == 0, ran.stderr
    assert str(built.python.parents[1]) in ran.stdout
    assert "[1000]" in ran.stdout

    refused = run([str(built.python), "-m", "tollmeter", "up"], tmp_path, environment(NOWHERE))
    assert refused.returncode == 2
    assert f"pip install 'dist/{built.names[0]}[embedded]'" in refused.stderr


def test_wheel_holds_everything_and_nothing_else(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tollmeter"}
    shipped = {name for name in names if name.startswith("tollmeter/")}
    assert wheels.source_files() - shipped == set(), "missing from the wheel"
    assert shipped - wheels.source_files() == set(), "in the wheel, but not in the tree"
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_base_install_alone_runs_a_service(built: Built, tmp_path: Path) -> None:
    wheels.run_installed(built.wheel, tmp_path, [], wheels.BASE_IMPORTS)


def test_worker_install_runs_the_stages_without_the_engine(built: Built, tmp_path: Path) -> None:
    wheels.run_installed(built.wheel, tmp_path, ["worker"], wheels.WORKER_IMPORTS)


def test_embedded_install_runs_all_that_up_runs(built: Built, tmp_path: Path) -> None:
    """The server, too: without it there are no doors, no proxy and no pages at the address that README names."""
    wheels.run_installed(built.wheel, tmp_path, ["embedded"], wheels.EMBEDDED_IMPORTS)


@pytest.mark.nightly
def test_what_the_base_install_leaves_out_is_said_with_a_command_that_is_true(
    built: Built, made: Path, index: Index
) -> None:
    refused = run([str(built.python), "-m", "tollmeter", "up"], made.parent, environment(NOWHERE))
    more = re.search(r"pip install '[^']+'", refused.stderr)
    assert more, refused.stderr
    with package_index.serving(index.locked) as served:
        done = run(["sh", "-c", more[0]], made, environment(served, PATH=built.path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"chdb", "faust-streaming", "click"} <= set(installed(built.python.parents[1]))


@pytest.mark.nightly
def test_lock_that_lacks_what_the_project_needs_is_said(index: Index, address: str, tmp_path: Path) -> None:
    """A dependency that stands in pyproject.toml but was not locked: found by `pip check`, not by a traceback later."""
    tree = checked_out(tmp_path, index)
    project = (tree / "pyproject.toml").read_text(encoding="utf-8")
    lock = index.locks["requirements.lock"]
    few = [found[0] for found in package_index.ENTRY.finditer(lock) if found["name"] == "setuptools"]
    (tree / "requirements.lock").write_text("".join(few), encoding="utf-8")
    assert '"fastavro>=1.10,<2",' in project
    done = run(["make", "install", f"PYTHON={sys.executable}"], tree, environment(address))
    assert done.returncode == 2
    assert "requires fastavro, which is not installed" in done.stderr
    assert "make lock" in done.stderr
    assert not (tree / ".venv/.installed").exists()


@pytest.mark.nightly
@pytest.mark.parametrize("pip", [*OLD_PIPS, NEWEST])
def test_make_installs_the_lock_with_any_pip(pip: str, index: Index, address: str, tmp_path: Path) -> None:
    tree = checked_out(tmp_path, index)
    done = run(["make", "install", f"PYTHON={python_with(pip, tmp_path)}"], tree, environment(address))
    assert done.returncode == 0, done.stdout + done.stderr
    assert installed(tree / ".venv") == expected(index.locks["requirements.lock"])


@pytest.mark.nightly
@pytest.mark.parametrize("pip", OLD_PIPS)
def test_without_no_deps_an_old_pip_resolves_again_and_stops(
    pip: str, index: Index, address: str, tmp_path: Path
) -> None:
    """The two tests above can fail: this is what they see when `--no-deps` is left out."""
    tree = checked_out(tmp_path, index)
    makefile = (tree / "Makefile").read_text(encoding="utf-8")
    (tree / "Makefile").write_text(makefile.replace("--require-hashes --no-deps", "--require-hashes"), encoding="utf-8")
    done = run(["make", "install", f"PYTHON={python_with(pip, tmp_path)}"], tree, environment(address))
    assert done.returncode != 0
    assert "all requirements must have their versions pinned" in done.stderr


@pytest.mark.nightly
@pytest.mark.parametrize("pip", [*OLD_PIPS, NEWEST])
def test_image_installs_the_lock_of_workers(pip: str, index: Index, address: str, tmp_path: Path) -> None:
    """The lines of the Dockerfile that build the environment, each as it stands, in a folder instead of an image."""
    tree = checked_out(tmp_path, index)
    home = tmp_path / "opt"
    stage = (ROOT / "Dockerfile").read_text(encoding="utf-8").split("\nFROM ")[1].replace("\\\n", " ")
    lines = re.findall(r"^RUN (.+)$", stage, re.MULTILINE)
    assert len(lines) >= 3
    (tmp_path / "python").mkdir()
    python = python_with(pip, tmp_path / "python")
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    for line in lines:
        done = run(["sh", "-c", line.replace("/opt/tollmeter", str(home))], tree, environment(address, PATH=path))
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert installed(home) == expected(index.locks["requirements-worker.lock"])
