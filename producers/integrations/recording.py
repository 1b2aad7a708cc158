"""What a hook needs of a `UsageProducer`."""

from typing import Protocol


class Recording(Protocol):
    """Takes events and answers. A `UsageProducer` does, and never raises."""

    def record(self, /, **fields: object) -> str: ...

    def record_response(self, response: object, /, **fields: object) -> str: ...
