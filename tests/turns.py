"""Which worker of pytest-xdist runs what, and when: files stay whole, rows share a stack, what is long begins early."""

import pytest
from xdist.scheduler import LoadFileScheduling

TOGETHER = "tests/acceptance"
"""Its files share what they start: one worker runs them all."""
FOLDERS = ("acceptance", "e2e", "contracts", "simulation", "laws", "unit")


class Files(LoadFileScheduling):
    """Deals out files, of which those of one folder count as one."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return TOGETHER if file.startswith(f"{TOGETHER}/") else file


def sort(items: list[pytest.Item]) -> None:
    """Put long files first: at the end nobody waits for the last one."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    folder = item.path.parent.name
    return FOLDERS.index(folder) if folder in FOLDERS else 0
