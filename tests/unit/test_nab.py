"""The arithmetic of the NAB scorer, by hand: what an alert is worth in a window, behind it, and before any."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.nab import LOW_FP, STANDARD, best_threshold, read_all, score_at


def a_folder(path: Path) -> Path:
    """Write one file of 20 minutes with the window of minutes 10 to 13."""
    (path / "labels").mkdir()
    (path / "data").mkdir()
    rows = "\n".join(f"2026-11-01 00:{minute:02}:00,{minute}" for minute in range(20))
    (path / "data" / "one.csv").write_text(f"timestamp,value\n{rows}\n", "utf-8")
    window = '[["2026-11-01 00:10:00.000000", "2026-11-01 00:13:00.000000"]]'
    (path / "labels" / "combined_windows.json").write_text(f'{{"one.csv": {window}}}', "utf-8")
    return path


def sigmoid(y: float) -> float:
    return 2 / (1 + float(np.exp(5 * y))) - 1


@pytest.mark.parametrize(
    ("told", "raw"),
    [
        pytest.param([], -1.0, id="silence"),
        pytest.param([10], 1.0, id="its first row"),
        pytest.param([10, 12], 1.0, id="counted once"),
        pytest.param([13], sigmoid(-1 / 4) / sigmoid(-1), id="its last row"),
        pytest.param([5], -1.0 - 0.11, id="before any window"),
        pytest.param([10, 14], 1.0 + 0.11 * sigmoid(1 / 3), id="just behind it"),
        pytest.param([2], -1.0, id="in the first 15 %, which do not count"),
    ],
)
def test_what_alerts_are_worth(told: list[int], raw: float, tmp_path: Path) -> None:
    data = read_all(a_folder(tmp_path))
    score = np.zeros(20)
    score[told] = 1.0
    report = score_at(data, [score], 1.0, STANDARD)
    assert report.raw == pytest.approx(raw)
    assert report.score == pytest.approx(100 * (raw + 1) / 2)


def test_the_threshold_is_the_best_on_these_files(tmp_path: Path) -> None:
    """A row of 3 outside costs less than the window that only a row of 2 finds is worth, in both profiles."""
    data = read_all(a_folder(tmp_path))
    score = np.zeros(20)
    score[[5, 10, 16]] = 3.0, 2.0, 1.0
    assert best_threshold(data, [score], STANDARD) == best_threshold(data, [score], LOW_FP) == 2.0
