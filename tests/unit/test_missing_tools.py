"""What a machine lacks is said at once and before anything is made: `make` on a made-up PATH."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import ROOT

PLAIN = ("sh", "bash", "make", "cat", "cmp", "cp", "dirname", "rm", "touch")
JAVA_17 = 'openjdk version "17.0.9" 2023-10-17'
JAVA_8 = 'java version "1.8.0_392"'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout without `.venv/`, as far as `make` reads it before the first download."""
    folder = tmp_path / "tree"
    (folder / ".ci").mkdir(parents=True)
    locks = [lock.name for lock in ROOT.glob("requirements*.lock")]
    for name in ("Makefile", ".ci/tools.sh", ".ci/run", *locks, "pyproject.toml"):
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{shutil.which('sh')}\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def make(tree: Path, target: str, tools: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    """Run `make target` where nothing but a few plain commands and `tools` is found."""
    words = [f"{key}={value}" for key, value in more.items() if key == "PYTHON"]
    rest = {key: value for key, value in more.items() if key != "PYTHON"}
    return run(["make", target, *words], tree, tools, **rest)


def run(command: list[str], tree: Path, tools: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command where nothing but a few plain commands and `tools` (name → shell script) is found."""
    binaries = tree.parent / "bin"
    shutil.rmtree(binaries, ignore_errors=True)
    binaries.mkdir()
    for name in PLAIN:
        (binaries / name).symlink_to(shutil.which(name) or name)
    for name, text in tools.items():
        script(binaries / name, text)
    return subprocess.run(
        command,
        cwd=tree,
        env={"PATH": str(binaries), **more},
        stdin=subprocess.DEVNULL,
        check=False,
        capture_output=True,
        text=True,
    )


def python(said: str) -> str:
    """A python of another version, as far as it is asked."""
    return f'case "$1" in -c) echo "{said}";; *) echo "asked to make something: $*" >&2; exit 9;; esac'


def java(version: str) -> str:
    return f"echo '{version}' >&2"


def lacks(done: subprocess.CompletedProcess[str], tree: Path) -> list[str]:
    """Return what was said to be missing, and see that nothing else happened."""
    assert done.returncode == 2, done.stderr
    assert not (tree / ".venv").exists()
    assert "Preparing" not in done.stdout
    said = done.stderr.partition("lacks:\n")[2].partition("Install it")[0]
    return [line.strip().partition(":")[0] for line in said.splitlines()]


@pytest.mark.parametrize(
    "target", ["demo", "test", "contracts", "e2e", "laws", "nightly", "coverage", "chaos", "bench"]
)
def test_all_that_is_missing_is_said_at_once(tree: Path, target: str) -> None:
    done = make(tree, target, {})
    assert lacks(done, tree) == ["Python 3.11 or newer", "Java 17 or newer", "Maven"]
    for line in (
        "Debian, Ubuntu: sudo apt install python3 python3-venv default-jre-headless maven",
        "Fedora:         sudo dnf install python3 java-21-openjdk-headless maven",
        "macOS:          brew install python temurin maven",
    ):
        assert line in done.stderr


@pytest.mark.parametrize("target", ["check", "unit", "dist", "lock", "install"])
def test_what_needs_no_broker_asks_for_python_alone(tree: Path, target: str) -> None:
    done = make(tree, target, {})
    assert lacks(done, tree) == ["Python 3.11 or newer"]
    assert "apt install python3 python3-venv\n" in done.stderr


@pytest.mark.parametrize(
    ("tools", "missing"),
    [
        ({"python3": python("3.9 old whole")}, ["Python 3.11 or newer", "Java 17 or newer", "Maven"]),
        ({"python3": python("3.12 new bare"), "java": java(JAVA_17), "mvn": "exit 0"}, ["python3.12-venv"]),
        ({"python3": python("3.11 new whole"), "java": java(JAVA_8), "mvn": "exit 0"}, ["Java 17 or newer"]),
        (
            {"python3": python("3.11 new whole"), "java": java('openjdk version "11.0.2"')},
            ["Java 17 or newer", "Maven"],
        ),
        (
            {"python3": python("3.11 new whole"), "java": "echo No Java runtime present >&2; exit 1", "mvn": "exit 0"},
            ["Java 17 or newer"],
        ),
        (
            {"python3": "exit 1", "java": java('java version "21" 2023-09-19'), "mvn": "exit 0"},
            ["Python 3.11 or newer"],
        ),
    ],
    ids=["old python", "no venv", "java 8", "java 11", "stub of macOS", "broken python"],
)
def test_each_is_found_out(tree: Path, tools: dict[str, str], missing: list[str]) -> None:
    assert lacks(make(tree, "demo", tools), tree) == missing


def test_versions_in_the_way_are_named(tree: Path) -> None:
    done = make(tree, "demo", {"python3": python("3.9 old whole"), "java": java(JAVA_8), "mvn": "exit 0"})
    assert "'python3' is 3.9" in done.stderr
    assert "make PYTHON=python3.12" in done.stderr
    assert "'java' is 1.8.0_392" in done.stderr


def test_python_without_ensurepip_lacks_its_package(tree: Path) -> None:
    """As on Debian: a real interpreter whose ensurepip is a package of its own."""
    gone = tree.parent / "gone" / "ensurepip"
    gone.mkdir(parents=True)
    (gone / "__init__.py").write_text("raise ModuleNotFoundError('ensurepip')\n", encoding="utf-8")
    done = make(tree, "unit", {}, PYTHON=sys.executable, PYTHONPATH=str(gone.parent))
    package = f"python3.{sys.version_info.minor}-venv"
    assert lacks(done, tree) == [package]
    assert f"apt install {package}\n" in done.stderr


def test_java_of_java_home_counts(tree: Path) -> None:
    home = tree.parent / "jdk"
    script(home / "bin" / "java", java(JAVA_17))
    done = make(tree, "demo", {"java": java(JAVA_8)}, PYTHON=sys.executable, JAVA_HOME=str(home))
    assert lacks(done, tree) == ["Maven"]


def test_nothing_is_said_where_nothing_is_missing(tree: Path) -> None:
    """The next step is the environment, which this python refuses to make."""
    done = make(tree, "demo", {"python3": python("3.11 new whole"), "java": java(JAVA_17), "mvn": "exit 0"})
    assert "lacks" not in done.stderr
    assert "asked to make something: -m venv --clear .venv" in done.stderr


BROWSER = {"chromium": "exit 0"}


@pytest.mark.parametrize(
    ("user", "tools", "installs"),
    [
        ("0", {}, True),
        ("0", {"python3": python("3.11 new whole"), "java": java(JAVA_17)}, True),
        ("0", {"python3": python("3.11 new whole"), "java": java(JAVA_17), "mvn": "exit 0", **BROWSER}, False),
        ("1000", {}, False),
    ],
    ids=["nothing there", "no Maven", "all there", "not root"],
)
def test_fresh_machine_run_installs_what_is_missing(
    tree: Path, user: str, tools: dict[str, str], installs: bool
) -> None:
    """Only as root and where something is missing; this apt-get brings nothing, so `make` has the last word."""
    asked = tree / "asked"
    done = run(["bash", ".ci/run"], tree, {"id": f"echo {user}", "apt-get": f'echo "$*" >> {asked}', **tools})
    assert done.returncode == 2
    assert asked.exists() == installs
    if installs:
        update, install, again, browser = asked.read_text(encoding="utf-8").splitlines()
        assert update.startswith("update")
        assert (again, browser.split()[-1]) == (update, "chromium")
        assert {"make", "python3", "python3-venv", "default-jre-headless", "maven"} <= set(install.split())
