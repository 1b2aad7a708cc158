"""What the pages Prices and Health know of the line, for all readers of a server: kept for a while, loaded at need."""

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import Request

from tollmeter.server.pages.kept import Kept
from tollmeter.server.problems import Problem
from tollmeter.settings import Settings

if TYPE_CHECKING:
    from tollmeter.admin.line_health import LineHealth, PublishedBook
    from tollmeter.streams.price.book.book import PriceBook

BOOK_S = 3_600.0
"""So long a price book is kept: a changed file of rates is read again then. PRICE reads it at its next start."""


class Line:
    """The questions about the line; each may raise, and `TimeoutError` when its answer takes too long."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.health: Kept[LineHealth] = Kept(self._health, 5.0, 8.0)
        self.published: Kept[PublishedBook | None] = Kept(self._published, 60.0, 8.0)
        self.book: Kept[PriceBook] = Kept(self._book, BOOK_S, 60.0)
        self.pricing = asyncio.Lock()
        """Held by whoever asks the book, which is not for several threads."""

    async def close(self) -> None:
        """Let go."""
        for one in (self.health, self.published, self.book):
            await one.close()

    # What follows brings polars and the price book, which a server without these pages has no need of.

    async def _health(self) -> "LineHealth":
        from tollmeter.admin.line_health import line_health

        return await line_health(self._settings)

    async def _published(self) -> "PublishedBook | None":
        from tollmeter.admin.line_health import published_book

        return await published_book(self._settings)

    async def _book(self) -> "PriceBook":
        return await asyncio.to_thread(self._load)

    def _load(self) -> "PriceBook":
        from tollmeter.streams.price.book.book import load

        return load(self._settings)


def line_of(request: Request) -> Line:
    """Return what the server's pages know of the line."""
    line: Line = request.app.state.line
    return line


async def book_of(request: Request) -> "PriceBook":
    """Return the price book of this server's settings. Raises `Problem` 503."""
    from tollmeter.streams.price.book.coverage import DifferencesError
    from tollmeter.streams.price.book.fx import FxError
    from tollmeter.streams.price.book.overrides import OverridesError

    try:
        return await line_of(request).book.get()
    except (OverridesError, FxError, DifferencesError) as error:
        raise Problem(503, "price_book", str(error)) from None
    except TimeoutError:
        raise Problem(503, "price_book", "the price book is being read: ask again in a moment") from None
