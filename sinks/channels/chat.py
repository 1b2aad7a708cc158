"""Slack, Telegram, Discord and a hundred others, through `apprise`. Its URL is a secret and appears nowhere.

Texts are declared as plain, so that apprise escapes them for the syntax of each; what it leaves is taken apart before.
"""

import logging
import warnings

from pydantic import SecretStr

from tollmeter.installing import how_to_get
from tollmeter.schemas.escapes import chat_text
from tollmeter.sinks.channels.message import Message, Unsure

_TYPES = {"info": "info", "warning": "warning", "critical": "failure"}
_OURS = ("http", "https", "json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos", "file")
"""Schemes for which there is a consumer of our own, signed, with addresses checked."""
MOST_TITLE, MOST_BODY = 200, 6_000
"""Characters; a chat that takes fewer gets the text in several messages."""


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
        for service in self._apprise:
            service.overflow_mode = apprise.OverflowMode.SPLIT

    def deliver(self, message: Message) -> None:
        """Return when the service has taken the message. Raises `Unsure`: apprise does not say why."""
        import apprise

        taken = self._apprise.notify(
            title=chat_text(" ".join(message.title.split()), MOST_TITLE),
            body=chat_text(message.body, MOST_BODY),
            notify_type=apprise.NotifyType(_TYPES[message.severity] if message.about == "opened" else "success"),
            body_format=apprise.NotifyFormat.TEXT,
        )
        if not taken:
            raise Unsure(f"{self._name} did not take the message")
