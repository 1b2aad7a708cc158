"""A later look at an answer that was given in the background: it may say what the estimate did not know."""

from collections.abc import Mapping

from tollmeter.producers.http.meter import HTTP_ERROR, Meter, faults, said
from tollmeter.producers.http.request import fetches
from tollmeter.producers.http.response import Reader


def fetch(meter: Meter, method: str, path: str) -> "Fetch | None":
    """Return the look at an answer whose usage is waited for; None when none is."""
    return Fetch(meter) if len(meter.holding) and fetches(method, path) else None


class Fetch:
    """One look: `opened`, `feed` ..., `done`."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._reader: Reader | None = None

    def opened(self, http_status: int, headers: Mapping[str, str]) -> None:
        if http_status < HTTP_ERROR:
            self._reader = Reader(headers.get("content-type", ""), headers.get("content-encoding", ""))

    def feed(self, data: bytes) -> None:
        if self._reader is not None:
            self._reader.feed(data)

    def done(self, error: BaseException | None = None, *, to_its_end: bool = False) -> None:
        """The look is over, however it ended. Never raises."""
        reader, self._reader = self._reader, None
        if reader is None or error is not None:
            return
        try:
            reader.finish()
            self._meter.holding.replace(reader.body)
        except Exception as fault:
            faults.warn("metering failed, the call itself is unaffected: %s", said(fault))
