"""Progress bars on stderr; silent where stderr is no terminal, so that logs stay readable."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tollmeter.cli.output import err

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar:
    """One bar; `advance` is cheap enough to be called per batch."""

    def __init__(self, progress: "Progress | None", text: str, total: float | None) -> None:
        self._progress = progress
        self._task = None if progress is None else progress.add_task(text, total=total)

    def advance(self, count: int) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, count)

    def finish(self) -> None:
        if self._progress is not None and self._task is not None:
            task = next(task for task in self._progress.tasks if task.id == self._task)
            done = task.total or task.completed
            self._progress.update(self._task, completed=done, total=done)

    def reach(self, count: int) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=count)


@contextmanager
def bar(text: str, total: float | None) -> Iterator[Bar]:
    """Show a bar while the block runs; `total` None = not known beforehand."""
    if not err.is_terminal:
        yield Bar(None, text, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield Bar(progress, text, total)
