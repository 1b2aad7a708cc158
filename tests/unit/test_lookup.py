"""Where a producer finds its line, and whose events a spool file holds."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tollmeter import UsageProducer, stacks
from tollmeter.embedded import state
from tollmeter.producers.client.destinations import Route, Store
from tollmeter.producers.client.lookup import Lookup
from tollmeter.producers.client.spool import adopt, cluster_name, create, target_name, waiting
from tollmeter.settings import Settings

TOPIC = "usage.events"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("TOLLMETER_KAFKA", "TOLLMETER_DATA_DIR", "TOLLMETER_CLICKHOUSE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


def start(held: ExitStack, folder: Path, kafka: str) -> None:
    held.enter_context(state.owner(folder, announced=True))
    state.write(folder, {"pid": 1, **stacks.describe(Settings(kafka=kafka, topic_prefix="p."))})


def test_a_stack_that_comes_later_or_moves_is_found(place: Path) -> None:
    lookup = Lookup()
    assert "tollmeter up" in lookup.now()[1]
    for kafka in ("127.0.0.1:40001", "127.0.0.1:40002"):
        with ExitStack() as held:
            start(held, place / "data", kafka)
            settings, why = lookup.now()
            assert (settings.kafka, settings.topic_prefix, why) == (kafka, "p.", "")
        assert str(place / "data") in lookup.now()[1]


def test_it_keeps_to_the_stack_that_it_found_first(place: Path, running: ExitStack) -> None:
    lookup = Lookup()
    with ExitStack() as held:
        start(held, place / "first", "127.0.0.1:40001")
        assert lookup.now()[1] == ""
    start(running, place / "second", "127.0.0.1:40002")
    settings, why = lookup.now()
    assert str(place / "first") in why
    assert settings.kafka == "127.0.0.1:40001"


def test_which_of_two_is_not_guessed(place: Path, running: ExitStack) -> None:
    start(running, place / "first", "127.0.0.1:40001")
    start(running, place / "second", "127.0.0.1:40002")
    assert "several stacks run" in Lookup().now()[1]


@pytest.mark.parametrize("how", ["environment", "argument", "settings"])
def test_an_address_that_was_given_holds(
    place: Path, running: ExitStack, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    start(running, place / "data", "127.0.0.1:40001")
    if how == "environment":
        monkeypatch.setenv("TOLLMETER_KAFKA", "kafka:9092")
    lookup = Lookup(
        Settings(kafka="kafka:9092") if how == "settings" else None, "kafka:9092" if how == "argument" else None
    )
    settings, why = lookup.now()
    assert (settings.kafka, why) == ("kafka:9092", "")
    assert lookup.targets(settings) == [target_name("kafka:9092", TOPIC)], "as files of before are named"


def test_without_a_stack_events_wait_for_that_of_this_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with UsageProducer(service="s", spool_dir=place / "spool") as producer:
        producer.record(provider="openai", model_sent="gpt-4o")
    here, there = Lookup(), place / "elsewhere"
    assert waiting(place / "spool") == {here.targets(Settings())[0]: 1}
    there.mkdir()
    monkeypatch.chdir(there)
    assert set(Lookup().targets(Settings())).isdisjoint(waiting(place / "spool")), "it may mean another stack"


def store(place: Path, kafka: str = "127.0.0.1:1") -> Store:
    return Store(Route(Lookup(Settings(kafka=kafka)), place / "spool", 10**6), 100)


A, B = cluster_name("cluster-a", TOPIC), cluster_name("cluster-b", TOPIC)
OLD = [target_name("127.0.0.1:1", TOPIC)]


def test_what_waited_before_any_cluster_was_known_goes_to_the_one_that_is_reached(place: Path) -> None:
    made = store(place)
    made.append([(1, b"x")])
    assert waiting(place / "spool") == {OLD[0]: 1}
    made.reached(A, OLD)
    assert waiting(place / "spool") == {A: 1}
    made.append([(2, b"y")])
    assert [event.body for event in made.first(9)] == [b"x", b"y"]
    assert adopt(place / "spool", [A, *OLD], 10**6) is None, "its owner lives"
    made.close()
    left = adopt(place / "spool", [A], 10**6)
    assert left is not None
    assert len(left) == 2
    left.remove(left.first(9)[0][-1].row)
    left.close()
    assert list((place / "spool").iterdir()) == []


def test_what_waits_for_a_cluster_is_given_to_no_other(place: Path) -> None:
    made = store(place)
    made.reached(A, OLD)
    made.append([(1, b"x")])
    made.reached(A, OLD)
    assert len(made) == 1, "the same one, back again"
    made.reached(B, OLD)
    assert (len(made), made.elsewhere, made.first(9)) == (0, 1, [])
    made.append([(2, b"y")])
    assert waiting(place / "spool") == {A: 1, B: 1}
    assert made.adopt() is None
    other = store(place)
    other.reached(A, OLD)
    adopted = other.adopt()
    assert adopted is not None
    assert [event.body for event in adopted.first(9)[0]] == [b"x"]
    adopted.close()
    made.close()


def test_spools_of_before_are_read(place: Path) -> None:
    (place / "spool").mkdir()
    old = create(place / "spool", target_name("127.0.0.1:1", TOPIC), 10**6)
    old.append([(1, b"x")])
    old.close()
    made = store(place)
    made.reached(A, OLD)
    adopted = made.adopt()
    assert adopted is not None
    assert len(adopted) == 1
    adopted.close()
