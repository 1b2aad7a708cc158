"""The real broker and the real ClickHouse engine for tests: started once a session, each test on names of its own."""

import asyncio
import gc
import os
import signal
import sys
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest
import pytest_timeout

from tests import effort, turns
from tests.exchange import dated
from tests.patience import Patience, eventually
from tollmeter.settings import Settings

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadFileScheduling

    from tests.databases import Databases
    from tests.forkserver import ForkServer
    from tests.workers import Workers
    from tollmeter.embedded.stack import Stack

# Hundreds of processes start here: without their compiled files each would compile the package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_GZIP = b"\x1f\x8b"
"""How a gzip begins."""


def pytest_configure(config: pytest.Config) -> None:
    """`-m nightly` makes the laws long."""
    effort.prepare(long=_nightly(config))


def _nightly(config: pytest.Config) -> bool:
    wanted = str(config.option.markexpr)
    return "nightly" in wanted and "not nightly" not in wanted


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is loaded stays until the end: looking for garbage among it costs a quarter of the start."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """What gzip packs says when: named by it, a case has another name on each worker, and then no test runs."""
    return "gzip" if isinstance(val, bytes) and val.startswith(_GZIP) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long forms run when `-m` names them."""
    for item in items:
        if _nightly(config) and getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("nightly")
    if hasattr(config, "workerinput"):  # one of several workers of pytest-xdist
        turns.sort(items)
    if not _nightly(config):
        long = [item for item in items if item.get_closest_marker("nightly")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> "LoadFileScheduling | None":
    """Deal out files."""
    return turns.Files(config, log) if config.option.dist == "loadfile" else None


def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool | None:
    """A test's time runs as slowly as a busy machine does."""
    if settings.method != "signal":
        return None
    patience = Patience(settings.timeout * (effort.LONG if _nightly(item.config) else 1))

    def look(number: int, frame: FrameType | None) -> None:
        if patience.ended():
            signal.setitimer(signal.ITIMER_REAL, 0)
            pytest_timeout.timeout_sigalrm(item, settings)

    def cancel() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    item.cancel_timeout = cancel  # type: ignore[attr-defined]  # the plugin calls it
    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)
    return True


@pytest.fixture(scope="session", autouse=True)
def _state_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The developer's stacks and spools are not ours, and ours are not his."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", name="eventually")
def eventually_fixture() -> Callable[..., object]:
    """`eventually(check, timeout)` without an import."""
    return eventually


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Stack"]:
    """A broker and a ClickHouse front without workers. Missing Java or Maven: skipped here, an error in CI."""
    from tollmeter.embedded.jars import MissingToolError
    from tollmeter.embedded.stack import Stack

    folder = tmp_path_factory.mktemp("stack")
    # ports of their own: a stack that the developer runs keeps the defaults
    wanted = dated().model_copy(update={"kafka": "127.0.0.1:0", "clickhouse": "http://127.0.0.1:0"})
    try:
        started = Stack(folder, workers=(), settings=wanted)
        started.__enter__()
    except MissingToolError as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    try:
        yield started
    finally:
        started.close()


@pytest.fixture(scope="session")
def databases(stack: "Stack") -> "Databases":
    """Empty databases of the stack."""
    from tests.databases import Databases

    return Databases(stack.settings)


@pytest.fixture
def line_settings(stack: "Stack", databases: "Databases", tmp_path: Path) -> Iterator[Settings]:
    """Settings of a line that no other test shares, set up: topics, layout record, tables. 4 and 4 partitions."""
    from tollmeter.admin import setup as provision

    name = uuid.uuid4().hex[:10]
    base: Settings = stack.settings
    settings = base.model_copy(
        update={
            "topic_prefix": f"t{name}.",
            "group_prefix": f"g{name}",
            "clickhouse_database": databases.take(),
            "data_dir": tmp_path / "data",
            "partitions_events": 4,
            "partitions_priced": 4,
        }
    )
    provision.apply(settings)
    yield settings
    asyncio.run(_forget(settings))
    databases.give_back(settings.clickhouse_database)


async def _forget(settings: Settings) -> None:
    """Delete the topics: a broker with those of a hundred tests is slow."""
    from aiokafka.admin import AIOKafkaAdminClient

    from tollmeter.schemas.topics import TOPICS

    admin = AIOKafkaAdminClient(**settings.kafka_options())
    try:
        await admin.start()
        await admin.delete_topics([settings.topic(topic.name) for topic in TOPICS])
    finally:
        await admin.close()


@pytest.fixture
def line(line_settings: Settings) -> Settings:
    """The line of a test; a module that needs other settings of it has a fixture of this name."""
    return line_settings


@pytest.fixture(scope="session")
def forkserver() -> Iterator["ForkServer"]:
    """Starts `tollmeter ...` without its imports."""
    from tests.forkserver import ForkServer

    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def workers(line: Settings, forkserver: "ForkServer", tmp_path: Path) -> Iterator["Workers"]:
    """Starts workers of the line; all are gone after the test."""
    from tests.workers import Workers

    made = Workers(forkserver, line, tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def lasting(stack: "Stack") -> "Databases":
    """Empty databases that keep rows of any date: tests write fixed ones, which must not run out."""
    from tests.databases import Databases

    keep = {"retention_events_days": 10_000, "retention_alerts_days": 10_000}
    return Databases(stack.settings.model_copy(update=keep))


@pytest.fixture(scope="module")
def ledger_settings(lasting: "Databases") -> Iterator[Settings]:
    """Settings of a database that no other module shares, with its tables; no topics, hence quicker."""
    name = lasting.take()
    yield lasting.settings.model_copy(update={"clickhouse_database": name})
    lasting.give_back(name)
