"""What a stage has of the line it stands on: to send, to ask what is its own, to stop reading, to say how it is."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from faust.types import TP

from tollmeter.broker.layout import Layout
from tollmeter.broker.passed import At
from tollmeter.schemas import topics
from tollmeter.schemas.record import Delivery, Headers
from tollmeter.settings import Settings
from tollmeter.streams.engine.gaps import Committed
from tollmeter.streams.engine.health import Health
from tollmeter.streams.engine.incidents import Incidents
from tollmeter.streams.engine.runtime import RUNTIME, Runtime

Send = Callable[[str, int, bytes | None, bytes | None, Headers], Awaitable[int]]
"""Topic, partition, key, value, headers to the record's offset, once the brokers have acknowledged it; raises when it
was not written."""


class Log(Protocol):
    """What the line needs of the consumer."""

    @property
    def flow_active(self) -> bool: ...
    @property
    def settled(self) -> bool: ...
    def assignment(self) -> set[TP]: ...
    async def heads(self) -> set[TP]: ...
    def finish(self, message: Delivery) -> None: ...
    def abandon(self, message: Delivery) -> None: ...
    async def committed(self, tps: Iterable[TP]) -> dict[TP, tuple[int, str]]: ...
    async def commit_noted(self, offsets: Mapping[TP, tuple[int, str]]) -> None: ...


class Reading(Protocol):
    """What the line needs of the app that reads."""

    incidents: Incidents
    health: Health

    @property
    def consumer(self) -> Log: ...
    @property
    def consumer_generation_id(self) -> int: ...
    async def stop_reading(self, tp: TP, offset: int, why: str) -> None: ...
    async def passed(self) -> frozenset[At]: ...


class Line:
    """Built before the stage, which is then built whole with it."""

    def __init__(
        self, settings: Settings, layout: Layout, app: Reading, send: Send, runtime: Runtime = RUNTIME
    ) -> None:
        self.settings, self.layout, self.send, self.runtime = settings, layout, send, runtime
        self.incidents, self.health = app.incidents, app.health
        self._app = app

    def owns(self, delivery: Delivery) -> bool:
        """Tell whether a delivery is still this worker's: check it before an effect that cannot be undone."""
        app = self._app
        return bool(app.consumer.flow_active and delivery.generation_id == app.consumer_generation_id)

    def owns_all(self, deliveries: Sequence[Delivery]) -> bool:
        """Tell whether every delivery is still ours; False as soon as a rebalance or a stop has begun."""
        return all(self.owns(delivery) for delivery in deliveries)

    def assignment(self) -> set[TP]:
        """Return the partitions that are this worker's now."""
        return self._app.consumer.assignment()

    async def heads(self) -> set[TP]:
        """Return the partitions in which nothing waited when this was called: all that stood there is finished."""
        return await self._app.consumer.heads()

    async def stop_reading(self, tp: TP, offset: int, why: str) -> None:
        """Pause a partition for good in front of an offset that must not be passed over, and say so."""
        await self._app.stop_reading(tp, offset, why)

    async def passed_over(self, partition: int, offset: int) -> bool:
        """Tell whether a person has passed over what stands at an offset of usage.priced."""
        return At(self.log_id(topics.PRICED), partition, offset) in await self._app.passed()

    async def committed(self, tps: Iterable[TP]) -> Committed:
        """Return offset and note of the last commit; the position where there is none."""
        return await self._app.consumer.committed(tps)

    async def commit_noted(self, offsets: Committed) -> None:
        """Commit offsets with notes."""
        await self._app.consumer.commit_noted(offsets)

    def log_id(self, topic: str) -> str:
        """Return the id under which this process knows a topic of `schemas.topics`, "" while it knows none."""
        return self.incidents.id_of(self.settings.topic(topic))
