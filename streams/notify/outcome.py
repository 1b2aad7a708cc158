"""What became of one attempt to tell somebody."""

import logging
from dataclasses import dataclass

from tollmeter.sinks.channels.message import Away, Channel, Message, Refused, Unsure

log = logging.getLogger("tollmeter.notify")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a delivery. `away`: nothing else is tried for `wait_s`; `unsure`: others are, after a breath."""

    error: str = ""
    away: bool = False
    wait_s: float = 0.0
    unsure: bool = False


def attempt_once(consumer: Channel, told: Message) -> Outcome:
    """Return what became of one delivery; nothing that a consumer does ends notify."""
    try:
        consumer.deliver(told)
    except Away as error:
        return Outcome(str(error), away=True, wait_s=error.wait_s)
    except Unsure as error:
        return Outcome(str(error), unsure=True)
    except Refused as error:
        return Outcome(str(error))
    except Exception as error:  # a plug-in of apprise, a header that cannot be: the other consumers must not suffer
        log.exception("a message could not be made or sent")
        return Outcome(f"unexpected {type(error).__name__}")
    return Outcome()
