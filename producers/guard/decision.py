"""A decision is made once: `Allow` carries what the call may cost, `Deny` the HTTP answer. Truth tells them apart."""

from typing import Any

from tollmeter.producers.guard.accounts import Reservation
from tollmeter.producers.guard.sentences import sentence

NANO_PER_USD = 1_000_000_000


class CostLimitExceeded(Exception):  # noqa: N818 - the name that clients know
    """A budget is used up; the text is `llm cost limit exceeded: daily cost limit reached` or of its kind."""


class CallRefused(Exception):  # noqa: N818
    """The guard refused a call for another reason than a budget; `deny` says which."""

    def __init__(self, deny: "Deny") -> None:
        super().__init__(f"{deny.error}: {sentence(deny.body, deny.retry_after_s)}")
        self.deny = deny


class Allow:
    """The call may go out. Settle the reservation when it is over, with what it really cost."""

    __slots__ = ("downgrade_to", "est_nano", "fx_stale", "price_status", "reservation", "stale")

    def __init__(
        self,
        est_nano: int | None,
        reservation: Reservation,
        price_status: str,
        stale: bool = False,
        fx_stale: bool = False,
    ) -> None:
        self.downgrade_to = ""
        """The model to send in place of the one that was asked for; "" for that one. Said to who asks `downgrades`."""
        self.est_nano = est_nano
        """The estimate before the call, nano-USD; None when nobody knows a price."""
        self.reservation = reservation
        self.price_status = price_status
        """PRICED, OVERRIDE, FREE; PARTIAL: the rate of a near relative; UNKNOWN_MODEL; "" with a disabled guard."""
        self.stale = stale
        """The budgets were not known well enough to be applied; by setting the guard lets such calls pass."""
        self.fx_stale = fx_stale
        """A limit in another currency was applied by a rate that is too old, and a margin."""

    @property
    def est_usd(self) -> float | None:
        """The estimate in USD."""
        return None if self.est_nano is None else self.est_nano / NANO_PER_USD

    def __bool__(self) -> bool:
        return True

    def raise_if_denied(self) -> None:
        """Return: nothing was denied."""

    def __repr__(self) -> str:
        instead = f", downgrade_to={self.downgrade_to!r}" if self.downgrade_to else ""
        return f"Allow(est_usd={self.est_usd}, price_status={self.price_status!r}, stale={self.stale}{instead})"


class Deny:
    """The call must not go out. `http_status`, `body` and `headers` are the answer to whoever asked for it."""

    __slots__ = ("body", "event_id", "http_status", "retry_after_s")

    def __init__(self, http_status: int, body: dict[str, Any], retry_after_s: int | None = None) -> None:
        self.http_status = http_status
        self.body = body
        self.retry_after_s = retry_after_s
        self.event_id = ""
        """The event that tells of the refusal; "" without a producer."""

    @property
    def error(self) -> str:
        """The kind of refusal: cost_cap, CostLimitExceeded, rate_limited, blocked, model_not_allowed, ..."""
        return str(self.body["error"])

    @property
    def downgrade_to(self) -> str:
        """A model with which the same call would be allowed; "" where the rules name none."""
        return str(self.body.get("downgrade_to") or "")

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers beside the body's own."""
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}

    def __bool__(self) -> bool:
        return False

    def raise_if_denied(self) -> None:
        """Raise `CostLimitExceeded` for a budget, `CallRefused` for any other refusal."""
        if self.error == CostLimitExceeded.__name__:
            raise CostLimitExceeded(self.body["message"])
        raise CallRefused(self)

    def __repr__(self) -> str:
        return f"Deny({self.http_status}, {self.body!r})"
