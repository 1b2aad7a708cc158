"""A process of its own in which records are priced before the worker dares to: what ends it would end the worker.

`sandbox_process` is what runs in it. It reads batches from its standard input and answers each with one byte.
"""

import asyncio
import signal
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import BinaryIO, NamedTuple

from tollmeter.schemas.record import Place, Record

PATIENCE_S = 60.0
FAN_OUT = 32
_COUNT = struct.Struct(">I")
_HEAD = struct.Struct(">Hqqi")
_NONE = -1
DONE = b"."
SANDBOX_PROCESS = "tollmeter.streams.price.sandbox_process"


class Copy(NamedTuple):
    """A source record, as far as pricing looks at it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Sandbox:
    """Finds the records of a batch that end a process. It is started at first use and again whenever it has ended."""

    def __init__(self, targets: int, patience_s: float = PATIENCE_S) -> None:
        self._targets, self._patience_s = targets, patience_s
        self._process: asyncio.subprocess.Process | None = None

    async def killers(self, records: Sequence[Record]) -> dict[Place, str]:
        """Return the records that must not be decoded, with what they do. What ends it only together counts whole."""
        end = await self._end_of(records)
        if not end:
            return {}
        found: dict[Place, str] = {}
        if len(records) > 1:
            size = -(-len(records) // FAN_OUT)
            for begin in range(0, len(records), size):
                found |= await self.killers(records[begin : begin + size])
        if found:
            return found
        # once may be chance, as when memory runs out: what is set aside has ended two processes
        again = await self._end_of(records)
        return {(record.partition, record.offset): again for record in records} if again else {}

    async def _end_of(self, records: Sequence[Record]) -> str:
        """Price records in the process; return how it ended, "" when it is alive."""
        process = await self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(pack(records))
            async with asyncio.timeout(self._patience_s):
                await process.stdin.drain()
                if await process.stdout.read(1) == DONE:
                    return ""
                code = await process.wait()
        except TimeoutError:
            await self.close()
            return f"no answer within {self._patience_s:g} s"
        except (BrokenPipeError, ConnectionResetError):
            code = await process.wait()
        self._process = None
        return f"ends the process: {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"

    async def _running(self) -> asyncio.subprocess.Process:
        """Return the process; it says when it can begin, however long that takes: starting is nobody's fault."""
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                SANDBOX_PROCESS,
                str(self._targets),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            assert self._process.stdout is not None
            if await self._process.stdout.read(1) != DONE:
                await self.close()
                raise RuntimeError("the process for trials does not start")
        return self._process

    async def close(self) -> None:
        """End the process, if it runs."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def pack(records: Sequence[Record]) -> bytes:
    """Return records as the process reads them."""
    parts = [_COUNT.pack(len(records))]
    for record in records:
        size = _NONE if record.value is None else len(record.value)
        parts += (_HEAD.pack(record.partition, record.offset, record.timestamp, size), record.value or b"")
    return b"".join(parts)


def unpack(stream: BinaryIO) -> list[Copy] | None:
    """Read the records of one batch; None at the end of the stream."""
    head = stream.read(_COUNT.size)
    if len(head) < _COUNT.size:
        return None
    found = []
    for _ in range(_COUNT.unpack(head)[0]):
        partition, offset, timestamp, size = _HEAD.unpack(stream.read(_HEAD.size))
        found.append(Copy("", partition, offset, timestamp, None, None if size == _NONE else stream.read(size)))
    return found
