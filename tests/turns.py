"""Which worker of pytest-xdist runs what, and when: files stay whole, rows share a stack, what is long begins early.

Tests on a real line wait more than they compute. Hence of three workers two begin with those and the third at the other
end, with those that only compute. They meet among short files: nobody waits long for the last one.
"""

import pytest
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

TOGETHER = "tests/acceptance"
"""Its files share what they start: one worker runs them all."""
FOLDERS = ("acceptance", "e2e", "contracts", "simulation", "laws", "unit")
EARLY = (
    *("test_stack.py", "test_verify.py", "test_loud.py", "test_reprice.py", "test_server_sockets.py"),
    *("test_answers_over_http.py", "test_report.py", "test_grafana.py", "test_hostile_topics.py"),
    *("test_chaos.py", "test_demo.py", "test_correct.py", "test_suspects.py", "test_series.py"),
)


class Files(LoadFileScheduling):
    """Deals out files, of which those of one folder count as one."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return TOGETHER if file.startswith(f"{TOGETHER}/") else file

    def _assign_work_unit(self, node: WorkerController) -> None:
        """Give a worker the next file; `workqueue` is in the order of `sort`."""
        if self.nodes.index(node) % 3 == 2:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)


def sort(items: list[pytest.Item]) -> None:
    """Put long files first."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> tuple[int, bool]:
    folder = item.path.parent.name
    return FOLDERS.index(folder) if folder in FOLDERS else 0, item.path.name not in EARLY
