"""Each test here is a row of the table: it ends green, as an expected failure that names what is missing, or red."""

import inspect
from collections.abc import Iterator

import pytest

from tests.acceptance.beside import LONG, SHARED, Beside, code_of
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


@pytest.fixture(scope="package")
def beside(request: pytest.FixtureRequest) -> Iterator[Beside]:
    """The rows of this run that need not be alone, all begun."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    rows = [test for test in tests if "check" in test.fixturenames and "alone" not in test.fixturenames]
    wanted = [name for name in SHARED if any(name in row.fixturenames for row in rows)]
    with Beside({name: request.getfixturevalue(name) for name in wanted}) as begun:
        for row in sorted(rows, key=lambda row: code_of(row.obj) not in LONG):
            begun.begin(row.obj)
        yield begun


@pytest.fixture
def alone(beside: Beside) -> None:
    """Nothing else runs on the stack."""
    beside.wait()


@pytest.fixture
def check(request: pytest.FixtureRequest, beside: Beside) -> Check:
    """The steps of the row that the test is named by."""
    code = code_of(request.function)
    return beside.checks.get(code) or Check(code, missing=BY_CODE[code])


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a row, or wait for its end where it has begun, and judge it."""
    given = pyfuncitem.funcargs
    made, begun = given.get("check"), given.get("beside")
    if not isinstance(made, Check) or not isinstance(begun, Beside):
        return None
    if made.code in begun.checks:
        begun.end(made.code)
    else:
        pyfuncitem.obj(**{name: given[name] for name in inspect.signature(pyfuncitem.obj).parameters})
    pyfuncitem.user_properties.append(("row", f"{made.code} {made.state}"))
    judge(made, BY_CODE[made.code])
    return True


def judge(check: Check, row: Row) -> None:
    """Compare what was seen with what the table declares: a difference either way is red."""
    fails, holds, unchecked = (check.steps(result) for result in ("fails", "holds", "unchecked"))
    declared = list(check.outcomes) if row.missing else list(row.gaps)
    broken = [f"{words}: {check.outcomes[words].detail}" for words in fails if words not in declared]
    if broken:
        pytest.fail(f"{row.code} is declared as better than it is. Broken:\n- " + "\n- ".join(broken), pytrace=False)
    better = [words for words in holds if words in declared]
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
