"""The list of commands. Each lives in a module of its own, which is loaded when the command is used, not to list it."""

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

import click

from tollmeter import __version__
from tollmeter.cli.groups import Group
from tollmeter.cli.output import Finding, UserError, err
from tollmeter.installing import how_to_get

if TYPE_CHECKING:
    from tollmeter.settings import Settings

HELP_OPTIONS = frozenset({"-h", "--help"})
_HELP = "tollmeter.help"


class Listed(NamedTuple):
    """Where a command is, and the first paragraph of its help."""

    module: str
    name: str
    help: str


COMMANDS = {
    "alerts": Listed("alerts", "alerts", "Budget and anomaly alerts."),
    "anomalies": Listed(
        "anomalies", "anomalies", "Incidents: what is unlike a key or address itself, and what people say of it."
    ),
    "backup": Listed(
        "backup", "backup", "Back up ledger, checkpoints, alerts, rules and keys into FOLDER while the line runs."
    ),
    "bills": Listed("bills", "bills", "Providers' bills: usage and cost reports beside which the ledger is held."),
    "block": Listed("access", "block", "Refuse every call of a key, an address or a user."),
    "close": Listed(
        "close", "close", "Freeze the statement of MONTH (2026-11, days of UTC), or show the one that stands."
    ),
    "correct": Listed(
        "correct",
        "correct",
        "Correct calls in the ledger by their event ids; each is priced again with the present price book.",
    ),
    "demo": Listed("demo", "demo", "Show everything once, on a stack of its own that is gone unless kept."),
    "dlq": Listed("dlq", "dlq", "Dead letters: records that could not be read, were impossible, or were refused."),
    "doctor": Listed(
        "doctor",
        "doctor",
        "Check a set-up: versions, broker, topics, rights, tables, disks, clocks, lag, rates, backups; change nothing.",
    ),
    "down": Listed("stack", "down", "Stop the stack that runs in the data folder; the data stays."),
    "export": Listed(
        "export",
        "export",
        "Write the calls of a period to standard output, as lines that `import` reads, or with every column.",
    ),
    "forget": Listed(
        "forget", "forget", "Forget a user or an address: calls and totals stay, and name nobody any more."
    ),
    "generate": Listed("generate", "generate", "Send made-up traffic that looks like real traffic."),
    "import": Listed("importing", "import_file", 'Import usage from FILE ("-" = standard input).'),
    "key": Listed("key", "key", "Names of provider keys: label, owner, cost centre."),
    "mcp": Listed(
        "mcp",
        "mcp",
        "Serve spend, calls and budgets to an assistant on standard input and output (Model Context Protocol).",
    ),
    "member": Listed("member", "member", "The membership: users in groups, and groups inside groups."),
    "notify": Listed(
        "notify",
        "notify",
        "Tell people of alerts: log, webhook, e-mail, chat. Several instances share the work: one is in charge.",
    ),
    "policy": Listed(
        "policy",
        "policy",
        "Limits of organisations, groups, users, keys, IPs, agents, sessions, runs, models, providers, features, tags.",
    ),
    "prices": Listed("prices", "prices", "What models cost, at which time, and where the figures come from."),
    "probe": Listed("probe", "probe", "Ask a provider for one word: is it reachable?"),
    "quote": Listed(
        "quote", "quote", "Show the events that the answer in FILE (- for stdin) would be recorded as, and their cost."
    ),
    "ratelimit": Listed(
        "access", "ratelimit", "How often a key or an address may call, for each guarded process by itself."
    ),
    "reprice": Listed(
        "reprice",
        "reprice",
        "Price past calls again with the present price book; ledger, windows and budgets follow.",
    ),
    "whatif": Listed(
        "reprice",
        "whatif",
        "What the calls of a period would have cost with another model, tier or share of cached input.",
    ),
    "reconcile": Listed(
        "reconcile", "reconcile", "Compare a provider's bill with the ledger, difference by difference."
    ),
    "report": Listed("report", "report", "Who spent how much, on what, through which key."),
    "restore": Listed(
        "backup", "restore", "Put the backup in FOLDER back into the line of the settings; may be repeated."
    ),
    "run": Listed("run", "run", "Run a Python program and meter its calls to models, without a change."),
    "send": Listed("send", "send", "Send one usage event and see it land."),
    "server-key": Listed(
        "server_key",
        "server_key",
        "Keys of the server: who may send, read or administer, for one organisation each.",
    ),
    "serve": Listed("serve", "serve", "Take usage by HTTP, and answer pages and programs, until SIGTERM or Ctrl-C."),
    "setup": Listed(
        "setup", "setup", "Create the topics, the layout record and the ClickHouse tables that are missing."
    ),
    "status": Listed(
        "stack",
        "status",
        "Show the processes of the stack: up or down, memory, restarts, addresses, records and events waiting.",
    ),
    "token": Listed("token", "token", "Tracking tokens of usage that is sent over HTTP."),
    "top": Listed(
        "top",
        "top",
        "Spend of this moment by key, user, model, address ..., read from the log: also with ClickHouse away.",
    ),
    "unblock": Listed(
        "access", "unblock", "Let a key, an address or a user call again; one that is not blocked is no error."
    ),
    "up": Listed(
        "stack",
        "up",
        "Start the broker, ClickHouse and the workers; runs until Ctrl-C. Data is kept, and so are the ports.",
    ),
    "verify": Listed(
        "verify", "verify", "Check that every record of the log stands in the ledger exactly once, with its cost."
    ),
    "worker": Listed(
        "worker",
        "worker",
        "Run a worker of one STAGE until SIGTERM or Ctrl-C; `all` runs the three side by side.",
    ),
}

STARTERS = frozenset({"demo", "up"})
"""Commands that start a line of their own."""
SERVERS = frozenset({"notify", "serve", "setup", "worker"})
"""Commands of one's own cluster: without a word about it they take the default addresses."""


class Commands(Group):
    """Loads a command's module on use, so that `--help` is quick and one missing extra breaks only its own command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_HELP] = bool(HELP_OPTIONS.intersection(args))
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        listed = COMMANDS[cmd_name]
        try:
            command: click.Command = getattr(import_module(f"tollmeter.cli.{listed.module}"), listed.name)
        except ModuleNotFoundError as missing:
            if (missing.name or "").startswith("tollmeter"):
                raise
            extra = "server" if cmd_name == "serve" else "embedded"
            raise UserError(f"'tollmeter {cmd_name}' needs {missing.name}: {how_to_get(extra)}") from None
        return command

    def first_paragraph(self, ctx: click.Context, name: str) -> str:
        return COMMANDS[name].help


@click.command(cls=Commands, context_settings={"help_option_names": sorted(HELP_OPTIONS, key=len)})
@click.version_option(__version__, prog_name="tollmeter")
@click.pass_context
def tollmeter(ctx: click.Context) -> None:
    """LLM usage and cost meter: who spends how much on which model, and is it still allowed?"""
    if ctx.obj is not None:
        return
    from tollmeter.settings import Settings, SettingsError

    try:
        ctx.obj = Settings.from_environment(os.environ)
    except SettingsError as error:
        if not ctx.meta[_HELP]:  # help is given whatever the settings are
            raise UserError(str(error)) from None
    else:
        ctx.obj = _on_the_line(ctx.obj, os.environ, ctx.invoked_subcommand or "")


def _on_the_line(settings: "Settings", environment: Mapping[str, str], command: str) -> "Settings":
    """Point a command at the stack that is meant. Where none is, that is said when it uses Kafka or ClickHouse."""
    from tollmeter import stacks

    if command in STARTERS:
        return settings.model_copy(update={"data_dir": stacks.home(environment)})
    found = stacks.find(environment)
    if found.folder is not None:
        settings = settings.model_copy(update={"data_dir": found.folder})
    if found.document is not None:
        return stacks.overlay(settings, environment, found.document)
    default_line = stacks.names_addresses(environment) or (command in SERVERS and not found.ambiguous)
    return settings.without_line(found.why) if found.why and not default_line else settings


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; what a user can mend is a line for each mistake on stderr."""
    try:
        result = tollmeter.main(list(arguments), prog_name="tollmeter", standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.Abort:
        return 130
    except click.ClickException as error:
        for line in error.lines if isinstance(error, UserError | Finding) else (error.format_message(),):
            err.print(f"tollmeter: {line}")
        return error.exit_code
    except ValueError as error:
        from tollmeter.settings import SettingsError

        if not isinstance(error, SettingsError):
            raise
        err.print(f"tollmeter: {error}")  # one that only shows when the setting is used
        return 2
    return result if isinstance(result, int) else 0
