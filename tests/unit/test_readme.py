"""What the README says can be typed: its snippet is the example, its commands exist, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from tollmeter.cli.root import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_snippets_are_the_examples() -> None:
    examples = [ROOT / "examples" / name for name in ("produce.py", "guard_call.py")]
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


@pytest.mark.parametrize("target", re.findall(r"make ([a-z]+)", "\n".join(blocks("sh"))))
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name}: {link}"
