"""Arrow IPC streams of one schema are read as one: most of reading a small one is its schema and the call itself."""

import io
from collections.abc import Iterator, Sequence

import polars as pl

_CONTINUATION = b"\xff\xff\xff\xff"
_END = _CONTINUATION + b"\0\0\0\0"


def concat_streams(streams: Sequence[bytes]) -> Iterator[bytes]:
    """Yield streams with the batches of all these, in order; one for each run of streams with the same schema.

    Only the framing is looked at: the first message of a stream is its schema, `_END` its end. A stream that is framed
    otherwise is yielded as it is.
    Source: https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format
    """
    run: list[bytes] = []
    schema = b""
    for stream in streams:
        begin = _after_schema(stream)
        if run and (not begin or stream[:begin] != schema):
            yield b"".join([schema, *run, _END])
            run = []
        if not begin:
            yield stream
            continue
        schema = stream[:begin]
        run.append(stream[begin : -len(_END)])
    if run:
        yield b"".join([schema, *run, _END])


def read_concat(streams: Sequence[bytes], columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Read some columns of many streams. Raises what polars raises on what is no stream."""
    for stream in concat_streams(streams):
        yield pl.read_ipc_stream(io.BytesIO(stream), columns=list(columns))[list(columns)]


def _after_schema(stream: bytes) -> int:
    """Return where the schema message ends; 0 when this is not framed as expected."""
    if stream[:4] != _CONTINUATION or not stream.endswith(_END):
        return 0
    end = 8 + int.from_bytes(stream[4:8], "little")
    return end if end <= len(stream) - len(_END) else 0
