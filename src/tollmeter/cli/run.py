"""`tollmeter run -- python app.py`: the program runs as it is, and its calls to models are metered.

The command takes the place of this process: exit code, signals and terminal are the program's own.
"""

import json
import os
from pathlib import Path

import click

from tollmeter.cli.output import UserError
from tollmeter.producers.autoload import __file__ as autoload

FIELDS_VARIABLE = "TOLLMETER_RUN_FIELDS"
NOT_FOUND, NOT_EXECUTABLE = 127, 126


class CommandError(UserError):
    """A command that cannot be started; exits as a shell does."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.exit_code = code


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--org", default="", help="Organisation that pays for the calls.")
@click.option("--service", default="", help="Name of the program in events; default: the command's own.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(org: str, service: str, command: tuple[str, ...]) -> None:
    """Run a Python program and meter its calls to models, without a change.

    `tollmeter run -- python app.py` meters the openai, anthropic and google-genai SDKs and all that calls through httpx
    or httpx2, also in programs that this one starts. The program's Python needs tollmeter; without it the program runs
    unmetered and says so.
    """
    fields = {"org": org, "service": service or _service(command)}
    environment = os.environ | {
        FIELDS_VARIABLE: json.dumps({name: value for name, value in fields.items() if value}),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(autoload).parent), os.environ.get("PYTHONPATH")])),
    }
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - the user's own command
    except FileNotFoundError:
        raise CommandError(f"{command[0]}: no such command", NOT_FOUND) from None
    except OSError as error:
        raise CommandError(f"{command[0]}: {error.strerror}", NOT_EXECUTABLE) from None


def _service(command: tuple[str, ...]) -> str:
    """Return what a command is about: the first script or module behind an interpreter, else the command itself."""
    words = [word for word in command if not word.startswith("-")]
    if not Path(command[0]).name.startswith("python"):
        return Path(command[0]).stem
    return Path(words[1]).stem if len(words) > 1 and "-c" not in command else ""
