"""`tollmeter notify`: deliver alerts to people, until SIGTERM or Ctrl-C."""

import asyncio
import logging
import os
import sys
from pathlib import Path

import click

from tollmeter.broker.layout import ProvisionError
from tollmeter.cli.output import UserError, err
from tollmeter.log_lines import log_to_stderr
from tollmeter.settings import Settings
from tollmeter.sinks.channels.message import Channel
from tollmeter.streams.notify import routes as routes_file
from tollmeter.streams.notify.channels import build
from tollmeter.streams.notify.routes import Routes, RoutesError

EXIT_CRASH = 70

routes_option = click.option(
    "--routes",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The routes file [default: TOLLMETER_NOTIFY_ROUTES].",
)


def read_routes(settings: Settings, file: Path | None, *, aside: bool = False) -> tuple[Routes, dict[str, Channel]]:
    """Return the routes and their consumers. Raises `UserError` for a file or a secret that is missing or wrong."""
    chosen = file or (Path(settings.notify_routes) if settings.notify_routes else None)
    if chosen is None:
        raise UserError("no routes: give --routes FILE or set TOLLMETER_NOTIFY_ROUTES (examples/routes.yaml is one)")
    try:
        routes = routes_file.read(chosen)
        return routes, build(routes, os.environ, aside=aside)
    except RoutesError as error:
        raise UserError(str(error)) from None


@click.command()
@routes_option
@click.pass_obj
def notify(settings: Settings, file: Path | None) -> int:
    """Tell people of alerts: log, webhook, e-mail, chat. Several instances share the work: one is in charge."""
    routes, consumers = read_routes(settings, file)
    from tollmeter.admin.reachable import answers
    from tollmeter.streams.notify.stage import run

    log_to_stderr()
    try:
        code = asyncio.run(run(settings, routes, consumers, lambda names: answers(settings, names, os.environ)))
    except ProvisionError as error:
        raise UserError(str(error)) from None
    except Exception as error:  # crash-only: the journal is the truth, the next start goes on from it
        logging.getLogger("tollmeter.notify").critical("unexpected: %r; the process ends", error, exc_info=error)
        code = EXIT_CRASH
    err.print("stopped" if code == 0 else f"ended with code {code}")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a message that hangs in its thread must not hold up a clean stop
