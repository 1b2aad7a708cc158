"""What a token costs us, to value tokens that only one side has."""

from collections import defaultdict
from collections.abc import Callable
from datetime import date
from decimal import Decimal

from tollmeter.streams.rules.bills.cells import NANO, Cell, Sides
from tollmeter.streams.rules.bills.lines import TOKENS

Rate = Callable[[str, str, date], Decimal | None]
"""USD per token of (model, meter, day) by the price book; None = not known."""


class Rates:
    """What we charge for a token: in the cell, else this month with its key and model, or its model, else by book."""

    def __init__(self, both: Sides, book: Rate) -> None:
        self._ours, self._book = both.ours, book
        self._sums: dict[tuple[str, ...], list[list[int]]] = defaultdict(lambda: [[0, 0] for _ in TOKENS])
        for cell, own in both.ours.items():
            for name in ((cell.key, cell.model), (cell.model,)):
                for total, tokens, nano in zip(self._sums[name], own.tokens, own.nano, strict=False):
                    total[0] += tokens
                    total[1] += nano

    def of(self, cell: Cell, meter: int) -> Decimal | None:
        own = self._ours.get(cell)
        if own is not None and own.tokens[meter] and own.nano[meter]:
            return own.nano[meter] * NANO / own.tokens[meter]
        for name in ((cell.key, cell.model), (cell.model,)):
            tokens, nano = self._sums[name][meter]
            if tokens and nano:
                return nano * NANO / tokens
        return self._book(cell.model, TOKENS[meter], cell.day)
