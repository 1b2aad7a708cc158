"""E-mail: one message a delivery, under a Message-ID made from the alert, so that mail programs show a repeat once."""

import smtplib
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

from pydantic import SecretStr

from tollmeter.schemas.escapes import many_lines, one_line
from tollmeter.sinks.channels import config
from tollmeter.sinks.channels.message import Away, Message, Refused


class Mail:
    """Sends through a mail server."""

    def __init__(self, wanted: config.Email, password: SecretStr) -> None:
        self._wanted, self._password = wanted, SecretStr(password.get_secret_value())

    def deliver(self, message: Message) -> None:
        """Return when the server has taken the mail for at least one address. Raises `Away` or `Refused`."""
        where = f"mail server {self._wanted.host}:{self._wanted.port}"
        try:
            with self._connect() as server:
                refused = server.send_message(composed(self._wanted, message))
        except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError, smtplib.SMTPSenderRefused) as error:
            text = f"{where} does not take the mail ({_code(error)})"
            raise (Refused if _code(error) >= 500 else Away)(text) from None
        except smtplib.SMTPAuthenticationError:
            raise Away(f"{where} refuses user or password") from None
        except (OSError, smtplib.SMTPException) as error:
            raise Away(f"{where} does not answer ({type(error).__name__})") from None
        del refused  # some addresses were refused, others have the mail: sending again would reach those twice

    def _connect(self) -> smtplib.SMTP:
        wanted = self._wanted
        if wanted.tls == "tls":
            context = ssl.create_default_context()
            server: smtplib.SMTP = smtplib.SMTP_SSL(wanted.host, wanted.port, timeout=wanted.timeout, context=context)
        else:
            server = smtplib.SMTP(wanted.host, wanted.port, timeout=wanted.timeout)
        try:
            if wanted.tls == "starttls":
                server.starttls(context=ssl.create_default_context())
            if wanted.user:
                server.login(wanted.user, self._password.get_secret_value())
        except BaseException:
            server.close()
            raise
        return server


def composed(wanted: config.Email, message: Message) -> EmailMessage:
    """Return the mail of a message: one line of a subject, plain text below."""
    mail = EmailMessage()
    mail["Subject"] = one_line(" ".join(message.title.split()))
    mail["From"], mail["To"] = wanted.sender, ", ".join(wanted.to)
    mail["Message-ID"] = f"<{message.key}@tollmeter>"
    mail["Date"] = format_datetime(datetime.fromtimestamp(message.at_s, UTC))
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(many_lines(message.body) + "\n")
    return mail


def _code(error: smtplib.SMTPException) -> int:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return min((code for code, _ in error.recipients.values()), default=500)
    return int(error.smtp_code) if isinstance(error, smtplib.SMTPResponseException) else 500
