"""What pages make of what they are told: states of the line, lines of a table, answers that are kept."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tollmeter.admin.line_health import Behind, Letters, LineHealth, PublishedBook
from tollmeter.server.pages import health
from tollmeter.server.pages.kept import Kept
from tollmeter.server.pages.lives import Lives
from tollmeter.server.pages.site import usd
from tollmeter.server.pages.spend import sparkline
from tollmeter.server.parts import Parts

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
NO_LETTERS = Letters(0, {}, {})


@pytest.mark.parametrize(
    ("behind", "kind", "words"),
    [
        (Behind(0, 0.0), "fresh", "nothing waits"),
        (Behind(7, 3.0), "fresh", "7 records wait, the oldest for 3 s"),
        (Behind(7, 60.0), "late", "7 records wait, the oldest for 60 s"),
        (Behind(1_000, 600.0), "behind", "1,000 records wait, the oldest for 600 s"),
        (Behind(7, None), "unknown", "7 records wait"),
    ],
)
def test_a_stage_is_judged_by_how_long_its_oldest_record_waits(behind: Behind, kind: str, words: str) -> None:
    (check, _letters) = health.of_log(LineHealth({"price": behind}, NO_LETTERS), "")
    assert (check.name, check.kind, check.words) == ("PRICE", kind, words)


@pytest.mark.parametrize(
    ("letters", "kind", "words"),
    [
        (NO_LETTERS, "fresh", "none"),
        (Letters(3, {"waiting": 2, "exhausted": 1}, {"bad_json": 3}), "late", "3 not mended"),
        (Letters(2, {"retried": 2}, {"bad_json": 2}), "fresh", "all tried again"),
        (Letters(60_000, None, None), "late", "60,000 records"),
    ],
)
def test_dead_letters_are_late_until_they_are_tried_again(letters: Letters, kind: str, words: str) -> None:
    (check,) = health.of_log(LineHealth({}, letters), "")
    assert (check.kind, check.words) == (kind, words)


def test_what_does_not_answer_is_not_known() -> None:
    silent = [*health.of_log(None, "Kafka is away"), *health.of_ledger(None, NOW)]
    parts = cast("Parts", SimpleNamespace(line=SimpleNamespace(fx_max_age_days=7)))
    silent += health.of_prices(None, "", parts, NOW)
    assert {check.kind for check in silent} == {"unknown"}
    assert {check.words for check in silent} == {"not known"}
    assert all(check.more for check in silent)


def test_the_ledger_says_what_is_missing_and_what_differs() -> None:
    alerts = [{"kind": "verify_difference"}, {"kind": "gap"}, {"kind": "gap"}]
    newest, gaps, verify = health.of_ledger({"as_of": NOW, "gaps": 2, "alerts": alerts, "runs": {}}, NOW)
    assert (newest.words, gaps.kind, verify.kind, verify.words) == ("0 s old", "behind", "behind", "3 open")
    assert verify.more.startswith("gap, verify_difference: ")
    _, none, never = health.of_ledger({"as_of": None, "gaps": 0, "alerts": [], "runs": {}}, NOW)
    assert (none.kind, never.kind, never.words) == ("fresh", "late", "has not run yet")


@pytest.mark.parametrize(
    ("ran_min", "clean_min", "kind", "words"),
    [
        pytest.param(5, 5, "fresh", "no difference, 5 min old", id="clean"),
        pytest.param(5, 65, "late", "differences, 5 min old", id="found-something"),
        pytest.param(5, None, "late", "differences, 5 min old", id="never-clean"),
        pytest.param(185, 185, "late", "no difference, 3 h old", id="three-hours-overdue"),
    ],
)
def test_when_the_line_last_checked_itself_is_said(ran_min: int, clean_min: int | None, kind: str, words: str) -> None:
    runs = {"verify": NOW - timedelta(minutes=ran_min)}
    runs |= {} if clean_min is None else {"verify_clean": NOW - timedelta(minutes=clean_min)}
    *_, verify = health.of_ledger({"as_of": NOW, "gaps": 0, "alerts": [], "runs": runs}, NOW, 3_600.0)
    assert (verify.kind, verify.words) == (kind, words)


def test_a_rate_of_exchange_is_wrong_once_amounts_are_not_known() -> None:
    parts = cast("Parts", SimpleNamespace(line=SimpleNamespace(fx_max_age_days=7)))
    rates = {"EUR": date(2026, 11, 15), "RUB": date(2026, 11, 14), "XXX": None}
    book, eur, rub, none = health.of_prices(PublishedBook("b", NOW, rates), "", parts, NOW)
    assert (book.kind, book.words) == ("fresh", "b")
    assert [one.kind for one in (eur, rub, none)] == ["fresh", "behind", "behind"]
    assert rub.words == "of 2026-11-14, 8 days old"


def test_conflicts_and_the_spool_are_said() -> None:
    counters = SimpleNamespace(
        rejected=Counter({("ingest", "conflict"): 2, ("otlp", "conflict"): 1, ("ingest", "x"): 9})
    )
    registry = SimpleNamespace(problem="")

    def of(**writer: Any) -> list[tuple[str, str]]:
        told = SimpleNamespace(writer=SimpleNamespace(**writer), counters=counters, registry=registry)
        return [(one.kind, one.words) for one in health.of_server(cast("Parts", told))]

    fine = of(refuses="", problem="", spooled=0)
    assert fine == [("fresh", "0 events wait on disk"), ("late", "3"), ("fresh", "heard of")]
    assert of(refuses="", problem="away", spooled=5)[0] == ("late", "5 events wait on disk")
    assert of(refuses="full", problem="away", spooled=5)[0] == ("behind", "refuses calls")


def test_lines_have_a_point_a_step_and_each_its_own_height() -> None:
    steps = [{"name": name} for name in "123"]
    assert sparkline((["1", "3"], [10, 5], [0, 0], [1, 1]), steps) == "0.0,1.0 50.0,19.0 100.0,10.0"
    assert sparkline((["2"], [0], [1], [1]), steps) == "0.0,19.0 50.0,19.0 100.0,19.0"


def test_an_answer_is_kept_shared_and_asked_for_again_after_a_failure() -> None:
    asked: list[int] = []

    async def ask() -> int:
        asked.append(len(asked))
        await asyncio.sleep(0)
        if len(asked) == 1:
            raise ValueError
        return len(asked)

    async def work() -> None:
        kept = Kept(ask, 3_600.0, 60.0)
        failed = await asyncio.gather(kept.get(), kept.get(), return_exceptions=True)
        assert [type(one) for one in failed] == [ValueError, ValueError]
        assert [*await asyncio.gather(kept.get(), kept.get())] == [2, 2]
        assert await kept.get() == 2
        assert len(asked) == 2
        stale = Kept(ask, -1.0, 60.0)
        assert [await stale.get(), await stale.get()] == [3, 4]
        await stale.close()

    asyncio.run(work())


def test_whoever_looks_on_has_the_answer_of_before_while_a_new_one_is_made() -> None:
    asked: list[asyncio.Event] = []

    async def ask() -> int:
        number, let = len(asked), asyncio.Event()
        asked.append(let)
        await let.wait()
        return number

    async def work() -> None:
        kept, soon_over = Kept(ask, -1.0, 60.0, old_s=3_600.0), Kept(ask, -1.0, 60.0, old_s=-1.0)
        first = asyncio.create_task(kept.get())
        await asyncio.sleep(0.01)
        assert not first.done(), "there is none of before"
        asked[0].set()
        assert await first == 0
        assert [await kept.get(), await kept.get()] == [0, 0], "two look on, one question more"
        await asyncio.sleep(0.01)
        assert len(asked) == 2
        asked[1].set()
        await asyncio.sleep(0.01)
        assert await kept.get() == 1, "the third question is under way"
        waiting = asyncio.create_task(soon_over.get())
        await asyncio.sleep(0.01)
        asked[-1].set()
        last = await waiting
        again = asyncio.create_task(soon_over.get())
        await asyncio.sleep(0.01)
        assert not again.done(), "what was before is too old"
        asked[-1].set()
        assert await again == last + 1
        await kept.close()

    asyncio.run(work())


@pytest.mark.parametrize(
    ("nano", "places", "said"),
    [
        (None, 4, "—"),
        (0, 4, "0.0000"),
        (1, 4, "<0.0001"),
        (50_000, 4, "<0.0001"),  # half to even is 0
        (50_001, 4, "0.0001"),
        (150_000, 4, "0.0002"),
        (-1, 4, ">-0.0001"),
        (-60_000, 4, "-0.0001"),
        (4_999_999, 2, "<0.01"),
        (1, 9, "0.000000001"),
        (1_234_567_800_000, 4, "1,234.5678"),
    ],
)
def test_an_amount_on_a_page_never_reads_zero(nano: int | None, places: int, said: str) -> None:
    assert usd(nano, places) == said


def test_what_many_look_at_is_made_once_for_all_who_may_see_it() -> None:
    made: list[str] = []

    def making(whose: str) -> Callable[[], Awaitable[str]]:
        async def make() -> str:
            made.append(whose)
            await asyncio.sleep(0)
            return whose

        return make

    async def work() -> None:
        lives = Lives()
        looking = [lives.of(("calls", one), making(one), 3_600.0) for one in ("ann", "bob", "ann", "ann", "bob")]
        assert await asyncio.gather(*looking) == ["ann", "bob", "ann", "ann", "bob"]
        assert sorted(made) == ["ann", "bob"]

    asyncio.run(work())
