"""The proxy's producer: what it records counts among the calls that the server has stored, as the doors' do."""

from collections.abc import Sequence

from tollmeter.producers.client.client import Mode
from tollmeter.producers.client.durable import DurableProducer
from tollmeter.schemas.event import UsageEvent
from tollmeter.server.counters import Counters
from tollmeter.settings import Settings

_COUNTED = ("usage_source", "input_tokens", "output_tokens", "latency_ms")


class CountedProducer(DurableProducer):
    """A call is counted once, when its event is taken; what a killed server left is not: it was that one's call."""

    def __init__(self, counters: Counters, *, service: str, settings: Settings, mode: Mode = "kafka") -> None:
        super().__init__(service=service, settings=settings, mode=mode)
        self._counters = counters

    def record(self, event: UsageEvent | Sequence[UsageEvent] | None = None, /, **fields: object) -> str:
        taken = super().record(event, **fields)
        if taken and isinstance(event, UsageEvent):  # a sequence comes here again, one by one
            said = event.model_fields_set
            self._counters.used({name: getattr(event, name) for name in _COUNTED if name in said})
        return taken
