"""The process in which a batch is tried: all that PRICE does with bytes, nothing else. See `sandbox`."""

import os
import sys
from itertools import groupby

from tollmeter.settings import Settings
from tollmeter.streams.price.batch import price_batch
from tollmeter.streams.price.book.book import load
from tollmeter.streams.price.sandbox import DONE, unpack


def serve(targets: int) -> None:
    """Price batches from standard input until it ends, and say of each that it was survived."""
    book = load(Settings.from_environment(os.environ))
    _say_done()
    while (records := unpack(sys.stdin.buffer)) is not None:
        batches = [list(batch) for _, batch in groupby(records, key=lambda record: record.partition)]
        price_batch(batches, book).blocks(targets, book.id, "")
        _say_done()


def _say_done() -> None:
    sys.stdout.buffer.write(DONE)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
