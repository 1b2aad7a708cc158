"""Progress bars on stderr; silent where stderr is no terminal, so that logs stay readable."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tollmeter.cli.output import err


class Bar:
    """One bar; `advance` is cheap enough to be called per batch."""

    def __init__(self, progress: Progress, text: str, total: float | None) -> None:
        self._progress = progress
        self._task = progress.add_task(text, total=total)

    def advance(self, count: int) -> None:
        self._progress.advance(self._task, count)

    def finish(self) -> None:
        task = next(task for task in self._progress.tasks if task.id == self._task)
        self._progress.update(self._task, completed=task.total or task.completed, total=task.total or task.completed)

    def reach(self, count: int) -> None:
        self._progress.update(self._task, completed=count)


@contextmanager
def bar(text: str, total: float | None) -> Iterator[Bar]:
    """Show a bar while the block runs; `total` None = not known beforehand."""
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        yield Bar(progress, text, total)
