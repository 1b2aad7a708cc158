"""Which ids were written lately: a repeat is counted, not stored, and the same id with other content is a conflict.

A courtesy of this process's memory, bounded; the ledger is the truth, and takes out what came twice by other ways. An
id is remembered once it is written, never before: until then a repeat waits for the fate of the first.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b

import msgspec

LIMIT = 200_000
Key = tuple[str, bytes]
_APART = frozenset({"event_id", "occurred_at"})


class Remembered:
    """Ids that were written, the latest last, and those on their way. All in one loop: nothing here waits."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._written: OrderedDict[Key, bytes] = OrderedDict()
        self._flying: dict[Key, tuple[bytes, asyncio.Future[bool]]] = {}

    def content_of(self, key: Key) -> bytes | None:
        """Return the content that an id was written with, None when it was not, or too long ago."""
        return self._written.get(key)

    def flying(self, key: Key) -> "tuple[bytes, asyncio.Future[bool]] | None":
        """Return content and fate (True: written) of an id that another request is writing now."""
        return self._flying.get(key)

    def begin(self, key: Key, content: bytes) -> None:
        """Say that an id is on its way. `end` follows, whatever happens."""
        self._flying[key] = (content, asyncio.get_running_loop().create_future())

    def end(self, key: Key, *, written: bool) -> None:
        """Say what became of it."""
        content, fate = self._flying.pop(key)
        if not fate.done():
            fate.set_result(written)
        if written:
            self._written[key] = content
            if len(self._written) > self._limit:
                self._written.popitem(last=False)

    def __len__(self) -> int:
        return len(self._written)


def key_of(org_id: str, event_id: str) -> Key:
    """Return what an id is remembered by: within its organisation."""
    return org_id, bytes.fromhex(event_id.replace("-", ""))


def content_of(fields: Mapping[str, object]) -> bytes:
    """Return a digest of what an event says, but for its id and time: a repeat may carry a later one."""
    said = {name: value for name, value in fields.items() if name not in _APART}
    try:
        text = msgspec.msgpack.encode(said, order="deterministic")
    except OverflowError:  # a number of more than 64 bits, where a name was meant
        text = json.dumps(said, sort_keys=True).encode()
    return blake2b(text, digest_size=8).digest()
