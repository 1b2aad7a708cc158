"""Slack, Telegram, Discord and a hundred others, through `apprise`. Its URL is a secret and appears nowhere."""

import logging
import warnings

from pydantic import SecretStr

from tollmeter.installing import how_to_get
from tollmeter.sinks.channels.message import Away, Message

_TYPES = {"info": "info", "warning": "warning", "critical": "failure"}
_OURS = ("http", "https", "json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos", "file")
"""Schemes for which there is a consumer of our own, signed, with addresses checked."""


class ChatError(ValueError):
    """The URL is none that apprise can use; the text does not repeat it."""


class Chat:
    """Sends through one apprise URL."""

    def __init__(self, name: str, url: SecretStr) -> None:
        try:
            import apprise
        except ModuleNotFoundError:
            raise ChatError(f"it needs apprise: {how_to_get('notify')}") from None
        logging.getLogger("apprise").setLevel(logging.CRITICAL)  # it names hosts and tokens
        scheme = url.get_secret_value().partition("://")[0].strip().lower()
        if scheme in _OURS:
            raise ChatError(f"{scheme}:// is no chat: use type webhook or email")
        self._name, self._apprise = name, apprise.Apprise()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of some of its hundred plug-ins
            known = self._apprise.add(url.get_secret_value())
        if not known:
            raise ChatError("apprise does not know this URL; it should look like slack://TOKEN/...")

    def deliver(self, message: Message) -> None:
        """Return when the service has taken the message. Raises `Away`: apprise does not say why."""
        import apprise

        kind = apprise.NotifyType(_TYPES[message.severity] if message.about == "opened" else "success")
        if not self._apprise.notify(title=message.title, body=message.body, notify_type=kind):
            raise Away(f"{self._name} did not take the message")
