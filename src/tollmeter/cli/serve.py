"""`tollmeter serve`: take usage by HTTP and answer pages and programs, until SIGTERM or Ctrl-C."""

import logging
import os

import click

from tollmeter.cli.output import UserError, err
from tollmeter.log_lines import log_to_stderr
from tollmeter.server.proxy.config import load
from tollmeter.server.settings import ServerSettings, warnings
from tollmeter.settings import Settings, SettingsError
from tollmeter.yaml_files import YamlError


@click.command()
@click.option("--host", help="Address to listen at [default: SERVER_HOST, else 127.0.0.1].")
@click.option(
    "--port", type=click.IntRange(0, 65_535), help="Port; 0 = any free one, named in the log [default: SERVER_PORT]."
)
@click.option("--check", is_flag=True, help="Say what is wrong with the settings, or unknown among them, and end.")
@click.pass_obj
def serve(settings: Settings, host: str | None, port: int | None, check: bool) -> int:
    """Take usage by HTTP, and answer pages and programs, until SIGTERM or Ctrl-C."""
    from tollmeter.server.run import ListenError  # its answers load polars, which help needs not
    from tollmeter.server.run import serve as run

    environment = dict(os.environ)
    environment |= {} if host is None else {"SERVER_HOST": host}
    environment |= {} if port is None else {"SERVER_PORT": str(port)}
    try:
        chosen = ServerSettings.from_environment(environment)
        for line in warnings(environment):
            err.print(f"warning: {line}")
        load(settings.proxy_file)
        if check:
            return 0
        settings.require_line()
    except (SettingsError, YamlError) as error:
        raise UserError(str(error)) from None
    _log_to_stderr()
    try:
        return run(settings, chosen)
    except ListenError as error:
        raise UserError(str(error)) from None


def _log_to_stderr() -> None:
    log_to_stderr()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a thousand lines about one broker, which we name in one
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
