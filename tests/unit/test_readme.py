"""What the pages say can be typed and found: snippets are the examples, commands, targets, paths and links exist."""

import re
import shlex
from pathlib import Path

import pytest

from tollmeter.cli.root import COMMANDS
from tollmeter.installing import how_to_get

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_snippets_are_the_examples() -> None:
    examples = [ROOT / "examples" / name for name in ("produce.py", "guard_call.py", "telemetry.py", "proxied_call.py")]
    assert blocks("python") == [example.read_text(encoding="utf-8") for example in examples]


def test_commands_exist() -> None:
    named = set(re.findall(r"^tollmeter ([a-z]+)", "\n".join(blocks("sh")), re.MULTILINE))
    assert named
    assert named <= set(COMMANDS)
    table = re.findall(r"^\| (`.*?) \|", README, re.MULTILINE)
    listed = {word.split()[0].strip("`") for cell in table for word in cell.split(", ")}
    assert listed == set(COMMANDS)


def test_options_of_the_examples_are_accepted() -> None:
    """Parse each example as click would, without running it."""
    import click

    from tollmeter.cli.root import tollmeter

    for line in re.findall(r"^(tollmeter [^#\n]+)", "\n".join(blocks("sh")), re.MULTILINE):
        command: click.Command = tollmeter
        words = shlex.split(line)[1:]
        context = click.Context(command)
        while isinstance(command, click.Group):
            found = command.get_command(context, words.pop(0))
            assert found is not None, line
            command, context = found, click.Context(found, parent=context)
        command.make_context(command.name, words)


TYPED = [*PAGES, ROOT / ".ci/run", ROOT / ".github/workflows/ci.yml", ROOT / "Makefile"]


@pytest.mark.parametrize("page", TYPED, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_exist(page: Path) -> None:
    typed = re.findall(r"(?:^|`|run: )make ([a-z0-9]+)(?=[ `\n])", page.read_text(encoding="utf-8"), re.MULTILINE)
    for target in typed:
        assert re.search(rf"^{target}:.*## ", MAKEFILE, re.MULTILINE), f"{page.name}: make {target}"


def test_make_targets_that_pages_lean_on_are_seen() -> None:
    """The test above reads what is typed: these at least."""
    for page, target in ((ROOT / "CONTRIBUTING.md", "nightly"), (TYPED[-2], "check"), (TYPED[-3], "test")):
        assert re.search(rf"make {target}\b", page.read_text(encoding="utf-8"))


def test_hooks_run_what_make_lint_runs() -> None:
    hooks = re.findall(
        r"entry: (\S+)(?: (check|format))?", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    )
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert lint
    assert hooks == re.findall(r"\t(\S+)(?: (check|format))?", lint[1].replace("$(BIN)", ".venv/bin"))


def test_readme_says_how_to_get_what_is_left_out() -> None:
    """Errors name the same command; the wheel is the one that `make dist` builds now."""
    command = how_to_get("embedded").partition(" (")[0]
    assert f"\n{command} " in README
    assert "make dist " in README


NO_PATH = re.compile(r"[\d.]+/\d+|(?:application|text)/[\w.+-]+")
"""A network, or a media type."""


def paths_in(text: str) -> set[str]:
    """Return the paths that a page names: in code, and the tree of the README; not what a run makes, nor models."""
    words = {word for code in re.findall(r"`([^`\n]+)`", text) for word in code.split()}
    named = {word for word in words if re.fullmatch(r"[\w.][\w.-]*(?:/[\w.*-]+)*/?", word) and "/" in word}
    for block in re.findall(r"^```\n(\w+/ .*?)^```", text, re.MULTILINE | re.DOTALL):
        top = ""
        for line in block.splitlines():
            top = re.split(r"\s", line)[0] or top
            named |= {top, *(f"{top}{below}" for below in re.findall(r"(?<=[ (])\w[\w/]*/", line))}
    made = (".venv/", ".tollmeter/", "dist/", "openai/")
    return {name for name in named if not name.startswith(made) and not NO_PATH.fullmatch(name)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_exist(page: Path) -> None:
    for name in paths_in(page.read_text(encoding="utf-8")):
        assert any(ROOT.glob(name)) or (page.parent / name).exists(), f"{page.name}: {name}"


def test_modules_that_pages_run_exist() -> None:
    for page in PAGES:
        for module in re.findall(r"python3? -m ([a-z_.]+)", page.read_text(encoding="utf-8")):
            place = ROOT / module.replace(".", "/")
            known = module in ("venv", "pip", "pytest") or place.is_dir() or place.with_suffix(".py").exists()
            assert known, f"{page.name}: python -m {module}"


def test_tree_of_the_readme_is_read() -> None:
    assert {"producers/guard/", "streams/rules/", "sinks/clickhouse/", "src/tollmeter/", "tests/e2e/"} <= paths_in(
        README
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name}: {link}"
