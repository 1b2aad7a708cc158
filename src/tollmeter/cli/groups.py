"""A group of commands: without one it shows its help, and a mistyped one is answered with the nearest."""

from contextlib import suppress
from difflib import get_close_matches

import click

CLOSE = 0.6
MEANT = 2


class Group(click.Group):
    """A click group with suggestions, whose list of commands is told in full."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not self.invoke_without_command and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is named. Raises `UsageError` naming those that are spelled like it."""
        name = args[0]
        known = self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            close = get_close_matches(name, known, MEANT, CLOSE) or self._within(ctx, name)[:MEANT]
            meant = " or ".join(f"'{ctx.command_path} {near}'" for near in close)
            todo = f"Did you mean {meant}?" if close else f"'{ctx.command_path} --help' lists them."
            ctx.fail(f"No such command '{name}'. {todo}")
        return super().resolve_command(ctx, args)

    def _within(self, ctx: click.Context, name: str) -> list[str]:
        """Return the commands of this name that stand in groups of this one."""
        found = []
        for near in self.list_commands(ctx):
            with suppress(click.ClickException):  # one that lacks its extra
                command = self.get_command(ctx, near)
                if isinstance(command, click.Group) and name in command.commands:
                    found.append(f"{near} {name}")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.first_paragraph(ctx, name)) for name in self.list_commands(ctx)])

    def first_paragraph(self, ctx: click.Context, name: str) -> str:
        """Return what the list says of a command."""
        command = self.get_command(ctx, name)
        return "" if command is None else paragraph(command)


def paragraph(command: click.Command) -> str:
    """Return the first paragraph of a command's help, in one line."""
    return " ".join((command.help or "").partition("\n\n")[0].split())
