"""Which ids were written lately: a repeat is counted, not stored, and the same id with other content is a conflict.

A courtesy of this process's memory, bounded; the ledger is the truth, and takes out what came twice by other ways. An
id is remembered once it is written, never before: until then a repeat waits for the fate of the first.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from itertools import repeat
from operator import itemgetter

from tollmeter.schemas import codec

LIMIT = 200_000
Key = tuple[str, str]
"""What an id is remembered by: within its organisation."""
Flying = tuple[int, "asyncio.Future[bool]"]
_ID_BYTES, _TIME_BYTES = 37, 8
"""How long id and time are in Avro, at the head of an event: of every time between 2001 and 2100."""
_said = itemgetter(slice(len(codec.SINGLE_OBJECT_HEADER) + _ID_BYTES + _TIME_BYTES, None))


class Remembered:
    """Ids that were written, the latest last, and those on their way. All in one loop: nothing here waits."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._written: OrderedDict[Key, int] = OrderedDict()
        self._flying: dict[Key, Flying] = {}

    def content_of(self, key: Key) -> int | None:
        """Return the content that an id was written with, None when it was not, or too long ago."""
        return self._written.get(key)

    def flying(self, key: Key) -> Flying | None:
        """Return content and fate (True: written) of an id that another request is writing now."""
        return self._flying.get(key)

    def knows_none(self, keys: Iterable[Key]) -> bool:
        """Tell whether all of these are new."""
        return self._written.keys().isdisjoint(keys) and self._flying.keys().isdisjoint(keys)

    def begin(self, contents: Mapping[Key, int]) -> None:
        """Say that ids are on their way, together. `end` follows, whatever happens."""
        fate = asyncio.get_running_loop().create_future()
        self._flying.update(zip(contents, zip(contents.values(), repeat(fate)), strict=False))

    def end(self, contents: Mapping[Key, int], *, written: bool) -> None:
        """Say what became of them."""
        for fate in {fate for _, fate in map(self._flying.pop, contents)}:
            if not fate.done():
                fate.set_result(written)
        if written:
            self._written.update(contents)
            while len(self._written) > self._limit:
                self._written.popitem(last=False)

    def __len__(self) -> int:
        return len(self._written)


def contents_of(bodies: Iterable[bytes]) -> list[int]:
    """Return digests of what encoded events say, but for their ids and times: a repeat may carry a later one."""
    return list(map(hash, map(_said, bodies)))
