"""The front of the command line: a list that is quick and true, and an answer to what was mistyped."""

import subprocess
import sys

import click
import pytest

from tests.terminals import environment
from tollmeter.cli.groups import Group, paragraph
from tollmeter.cli.root import COMMANDS, run, tollmeter

HEAVY = {"pydantic", "rich", "asyncio", "aiokafka", "fastavro", "clickhouse_connect", "polars", "numpy", "faust"}
ENGINES = {"polars", "numpy", "faust", "genai_prices", "chdb", "rich"}
_EACH = """
from tollmeter.cli.root import COMMANDS, run
for name in COMMANDS.keys() - {"prices", "quote"}:  # their subject is the price book
    assert run([name, "--help"]) == 0
"""


def loaded(program: str) -> set[str]:
    """Return the modules that a program loads."""
    program += "\nimport sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment({}), check=True
    )
    return {name.partition(".")[0] for name in done.stderr.split()}


def test_the_list_of_commands_loads_nothing_heavy() -> None:
    assert not loaded("from tollmeter.cli.root import run; assert run(['--help']) == 0") & HEAVY


def test_help_of_a_command_loads_no_engine() -> None:
    assert not loaded(_EACH) & ENGINES


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_says(name: str) -> None:
    command = tollmeter.get_command(click.Context(tollmeter), name)
    assert command is not None
    assert COMMANDS[name].help == paragraph(command)


def test_the_list_is_told_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {listed.help}" in said for name, listed in COMMANDS.items())


def groups(command: click.Command, path: str) -> dict[str, click.Group]:
    if not isinstance(command, click.Group):
        return {}
    context = click.Context(command)
    found = {path: command}
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        if below is not None:
            found |= groups(below, f"{path} {name}")
    return found


def test_every_group_suggests() -> None:
    assert all(isinstance(group, Group) for group in groups(tollmeter, "tollmeter").values())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("repot calls", "No such command 'repot'. Did you mean 'tollmeter report' or 'tollmeter export'?"),
        ("report cals", "No such command 'cals'. Did you mean 'tollmeter report calls'?"),
        ("alerts fallow", "No such command 'fallow'. Did you mean 'tollmeter alerts follow'?"),
        ("policy lst", "No such command 'lst'. Did you mean 'tollmeter policy list' or 'tollmeter policy set'?"),
        ("explain", "No such command 'explain'. Did you mean 'tollmeter policy explain'?"),
        ("frobnicate", "No such command 'frobnicate'. 'tollmeter --help' lists them."),
        ("send --modle gpt-4o", "No such option: --modle Did you mean --model?"),
        ("policy set --mothly 5", "No such option: --mothly Did you mean --monthly?"),
        ("--versoin", "No such option: --versoin Did you mean --version?"),
    ],
)
def test_a_mistyped_word(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) == 2
    assert capsys.readouterr() == ("", f"tollmeter: {said}\n")


def test_a_group_alone_shows_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report"]) == 2
    assert "Usage: tollmeter report [OPTIONS] COMMAND" in capsys.readouterr().err


def test_help_is_given_whatever_the_settings_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOLLMETER_KAFKA_REPLICATION", "many")
    assert run(["send", "--help"]) == 0
    assert capsys.readouterr().err == ""
    assert run(["send", "--model", "gpt-4o"]) == 2
    assert "TOLLMETER_KAFKA_REPLICATION" in capsys.readouterr().err
