"""What several readers see alike, made once for all of them; nothing of it holds a word of one session."""

from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

from starlette.requests import Request

from tollmeter.server.pages.kept import Kept
from tollmeter.server.problems import Problem

_Value = TypeVar("_Value")
WAIT_S, MOST = 30.0, 1_000


class Lives:
    """Parts of pages that are left open, by who may see them and what they are about."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, ...], Kept[object]] = {}

    async def of(
        self, key: tuple[str, ...], make: Callable[[], Awaitable[_Value]], fresh_s: float, *, old_s: float = 0.0
    ) -> _Value:
        """Return what `make` gives, no older than `fresh_s`, or than `old_s` while it is made. Raises `Problem` 503."""
        if key not in self._kept:
            if len(self._kept) >= MOST:
                self._kept.clear()
            self._kept[key] = Kept(make, fresh_s, WAIT_S, old_s=old_s)
        try:
            return cast("_Value", await self._kept[key].get())
        except TimeoutError:
            raise Problem(503, "busy", "the page takes too long to make: try again") from None


def lives_of(request: Request) -> Lives:
    """Return what is shared by the readers of a server."""
    lives: Lives = request.app.state.lives
    return lives
