"""Consumers made from a routes file: secrets are read once, from the environment or a file, and nothing shows them."""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr

from tollmeter.schemas.escapes import MOST_CHARS, many_lines, one_line
from tollmeter.sinks.channels import config
from tollmeter.sinks.channels.chat import Chat
from tollmeter.sinks.channels.mail import Mail
from tollmeter.sinks.channels.message import Channel, Message
from tollmeter.sinks.channels.webhook import Webhook
from tollmeter.streams.notify.routes import ChannelConfig, Routes, RoutesError


class Lines:
    """Writes one line per message to stdout, or to stderr where stdout carries a document."""

    def __init__(self, *, aside: bool) -> None:
        self._aside = aside

    def deliver(self, message: Message) -> None:
        at = datetime.fromtimestamp(message.at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        report = message.kind == "report"
        text = (
            many_lines(message.body)
            if report
            else one_line(" | ".join((message.title, *message.body.split("\n")[1:])), 10 * MOST_CHARS)
        )
        stream = sys.stderr if self._aside else sys.stdout
        stream.write(f"{at} {message.key} {text}\n")
        stream.flush()


def build(wanted: Routes, environment: Mapping[str, str], *, aside: bool = False) -> dict[str, Channel]:
    """Return the consumers by name. Raises `RoutesError` for a secret that is missing or an address out of bounds."""
    return {name: _consumer(name, consumer, environment, aside) for name, consumer in wanted.consumers.items()}


def _consumer(name: str, wanted: ChannelConfig, environment: Mapping[str, str], aside: bool) -> Channel:
    try:
        if isinstance(wanted, config.Webhook):
            webhook = Webhook(wanted, _secret(name, wanted.key_env, wanted.key_file, environment))
            webhook.check()
            return webhook
        if isinstance(wanted, config.Email):
            return Mail(wanted, _secret(name, wanted.password_env, wanted.password_file, environment))
        if isinstance(wanted, config.Chat):
            return Chat(name, _secret(name, wanted.url_env, wanted.url_file, environment))
    except ValueError as error:  # a key that is no base64, a private address, a URL that apprise does not know
        raise RoutesError(f"consumer {name}: {error}") from None
    return Lines(aside=aside)


def _secret(name: str, variable: str, file: str, environment: Mapping[str, str]) -> SecretStr:
    if not variable and not file:
        return SecretStr("")
    if variable:
        value, where = environment.get(variable, ""), f"variable {variable}"
    else:
        where = f"file {file}"
        try:
            value = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            value = ""
    if not value:
        raise RoutesError(f"consumer {name}: {where} is missing or empty")
    return SecretStr(value)
