"""python -m tests.acceptance: run every row on one stack and say which work; --docs writes docs/features.md instead."""

import argparse
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from tests.acceptance.checks import MISSING, WORKS
from tests.acceptance.page import FILE, page
from tests.acceptance.rows import ROWS


class States:
    """Collects the state of each row from the reports of a run."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {row.code: MISSING for row in ROWS}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == "row" and report.when == "call":
                code, state = str(value).split(" ", 1)
                self.rows[code] = state

    def document(self) -> dict[str, object]:
        """Return what `--json` prints."""
        states = list(self.rows.values())
        works, missing = states.count(WORKS), states.count(MISSING)
        return {"rows": self.rows, "works": works, "partly": len(states) - works - missing, "missing": missing}


def main() -> int:
    """Return 0 when every row is what the table declares, 1 when one is better or worse."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout, the run on stderr")
    parser.add_argument(
        "--docs", action="store_true", help="write docs/features.md from the declared table; run nothing"
    )
    options = parser.parse_args()
    if options.docs:
        FILE.write_text(page(ROWS), encoding="utf-8")
        return 0
    states = States()
    with redirect_stdout(sys.stderr if options.json else sys.stdout):
        code = pytest.main([str(Path(__file__).parent), "-q", "-p", "no:cacheprovider"], plugins=[states])
    document = states.document()
    if options.json:
        print(json.dumps(document))
    else:
        for row, state in states.rows.items():
            print(f"{row:4} {state}")
        print(f"{document['works']} work, {document['partly']} in part, {document['missing']} missing")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
