"""The list of commands. Each lives in a module of its own, which is loaded when the command is used."""

from collections.abc import Sequence
from importlib import import_module

import click

from tollmeter import __version__
from tollmeter.cli.output import UserError, err
from tollmeter.embedded import state
from tollmeter.settings import Settings, SettingsError

COMMANDS = {
    "alerts": "tollmeter.cli.alerts:alerts",
    "block": "tollmeter.cli.access:block",
    "correct": "tollmeter.cli.correct:correct",
    "demo": "tollmeter.cli.demo:demo",
    "dlq": "tollmeter.cli.dlq:dlq",
    "down": "tollmeter.cli.stack:down",
    "generate": "tollmeter.cli.generate:generate",
    "import": "tollmeter.cli.importing:import_file",
    "member": "tollmeter.cli.member:member",
    "notify": "tollmeter.cli.notify:notify",
    "policy": "tollmeter.cli.policy:policy",
    "prices": "tollmeter.cli.prices:prices",
    "ratelimit": "tollmeter.cli.access:ratelimit",
    "probe": "tollmeter.cli.probe:probe",
    "report": "tollmeter.cli.report:report",
    "send": "tollmeter.cli.send:send",
    "setup": "tollmeter.cli.setup:setup",
    "status": "tollmeter.cli.stack:status",
    "unblock": "tollmeter.cli.access:unblock",
    "up": "tollmeter.cli.stack:up",
    "verify": "tollmeter.cli.verify:verify",
    "worker": "tollmeter.cli.worker:worker",
}


class Commands(click.Group):
    """Loads a command's module on use, so that `--help` is quick and one missing extra breaks only its own command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        try:
            command: click.Command = getattr(import_module(module), name)
        except ModuleNotFoundError as missing:
            if (missing.name or "").startswith("tollmeter"):
                raise
            raise UserError(f"'tollmeter {cmd_name}' needs {missing.name}: pip install 'tollmeter[embedded]'") from None
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tollmeter")
@click.pass_context
def tollmeter(ctx: click.Context) -> None:
    """LLM usage and cost meter: who spends how much on which model, and is it still allowed?"""
    import os

    if ctx.obj is None:
        try:
            ctx.obj = Settings.from_environment(os.environ)
        except SettingsError as error:
            raise UserError(str(error)) from None
        running = state.running(ctx.obj.data_dir)
        if running is not None:
            ctx.obj = state.overlay(ctx.obj, os.environ, running)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors that a user can mend are one line on stderr."""
    try:
        result = tollmeter.main(list(arguments), prog_name="tollmeter", standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.Abort:
        return 130
    except click.ClickException as error:
        err.print(f"tollmeter: {error.format_message()}", markup=False, soft_wrap=True)
        return error.exit_code
    except SettingsError as error:  # one that only shows when the setting is used
        err.print(f"tollmeter: {error}", markup=False, soft_wrap=True)
        return 2
    return result if isinstance(result, int) else 0
