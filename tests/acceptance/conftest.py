"""Each test here is a row of the table: it ends green, as an expected failure that names what is missing, or red."""

from collections.abc import Generator, Iterator

import pytest

from tests.acceptance.checks import Check
from tests.acceptance.rows import BY_CODE, Row
from tests.acceptance.shop import Shop, opened
from tests.acceptance.stack import Line, started
from tests.acceptance.world import World
from tests.forkserver import ForkServer


@pytest.fixture(scope="package")
def line(tmp_path_factory: pytest.TempPathFactory, forkserver: ForkServer) -> Iterator[Line]:
    """The one stack of all rows, as `tollmeter up --detach` starts it."""
    with started(tmp_path_factory.mktemp("acceptance"), forkserver) as running:
        yield running


@pytest.fixture(scope="package")
def world(line: Line) -> World:
    """Calls whose cost was worked out by hand, in the ledger."""
    made = World.made()
    made.send(line)
    return made


@pytest.fixture(scope="package")
def shop(line: Line) -> Iterator[Shop]:
    """A service that calls a provider through its SDK."""
    with opened(line) as service:
        yield service


@pytest.fixture
def check(request: pytest.FixtureRequest) -> Check:
    """The steps of the row that the test is named by."""
    code = request.function.__name__.removeprefix("test_").upper()
    return Check(code, missing=BY_CODE[code])


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Judge a row when its steps have run."""
    result = yield
    made = pyfuncitem.funcargs.get("check")
    if isinstance(made, Check):
        pyfuncitem.user_properties.append(("row", f"{made.code} {made.state}"))
        judge(made, BY_CODE[made.code])
    return result


def judge(check: Check, row: Row) -> None:
    """Compare what was seen with what the table declares: a difference either way is red."""
    fails, holds, unchecked = (check.steps(result) for result in ("fails", "holds", "unchecked"))
    declared = list(check.outcomes) if row.missing else list(row.gaps)
    broken = [f"{words}: {check.outcomes[words].detail}" for words in fails if words not in declared]
    if broken:
        pytest.fail(f"{row.code} is declared as better than it is. Broken:\n- " + "\n- ".join(broken), pytrace=False)
    # what depends on the machine's speed may hold on a quiet one: that changes no declaration
    better = [words for words in holds if words in declared and not words.startswith("within a second")]
    gone = [words for words in declared if words not in check.outcomes]
    if better or gone:
        left = tuple(words for words in check.outcomes if words in declared and words not in better)
        pytest.fail(
            f"{row.code} is better than the table says. These hold now: {[*better, *gone]}. Declare gaps={left!r} "
            f"in tests/acceptance/rows.py, then run python -m tests.acceptance --docs",
            pytrace=False,
        )
    if fails:
        details = "".join(f"\n  {words}: {check.outcomes[words].detail}" for words in fails)
        pytest.xfail(f"{check.state}{details}")
    if unchecked:
        pytest.skip(check.state)
