"""Every question of the boards on the real engine as the read-only user, and its numbers beside plain Python's."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests import grafana_rows
from tests.databases import Databases
from tests.grafana import Range, Values, expanded
from tests.grafana_rows import DAY, Money, between, groups, made, store, store_line
from tollmeter.dashboards.grafana.alerts import RULES, Rule
from tollmeter.dashboards.grafana.generate import BOARDS
from tollmeter.dashboards.grafana.model import Board, Panel
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect, connect_existing

if TYPE_CHECKING:
    from tollmeter.embedded.stack import Stack

pytestmark = pytest.mark.stack

PANELS = [(board, panel) for board in BOARDS for panel in board.panels]
NOW = datetime.now(UTC).replace(microsecond=0)
NOW_MS = int(NOW.timestamp() * 1000)
HOUR_MS = 3_600_000
RANGES = {
    "an hour": Range(NOW_MS - HOUR_MS, NOW_MS, 10),
    "two days": Range(NOW_MS - 48 * HOUR_MS, NOW_MS, 600),
    "thirty days": Range((NOW_MS - 720 * HOUR_MS) // 60_000 * 60_000, NOW_MS // 60_000 * 60_000, 7_200),
}
ONE: Values = {
    "org": ("acme",),
    "provider": ("openai", "google"),
    "model": ("o3", "gemini-2.5-pro"),
    "key": ("key-1", "key-2", "key-3", "it's"),
    "user": ("user-1", "user-2", "user-3"),
    "feature": ("search",),
}
ROWS = made(NOW)


def reader_of(stack: "Stack", database: str) -> ClickHouse:
    """Connect as the user who only reads, as Grafana does."""
    from tollmeter.embedded.environment import passwords

    password = passwords(stack.data_dir)["reader"]
    changed = {"clickhouse_user": "reader", "clickhouse_password": password, "clickhouse_database": database}
    return connect_existing(Settings.model_validate({**stack.settings.model_dump(), **changed}))


@pytest.fixture(scope="module", name="reader")
def seeded(stack: "Stack", ledger_settings: Settings) -> Iterator[ClickHouse]:
    writer = connect(ledger_settings)
    store(writer, ROWS)
    store_line(writer, NOW)
    writer.close()
    client = reader_of(stack, ledger_settings.clickhouse_database)
    yield client
    client.close()


def panel(title: str) -> Panel:
    (found,) = [one for _, one in PANELS if one.title == title]
    return found


def ask(reader: ClickHouse, title: str, over: str | Range, values: Values | None = None) -> list[dict[str, Any]]:
    span = RANGES[over] if isinstance(over, str) else over
    return reader.query(expanded(panel(title).sql, span, {"zone": "UTC", **(values or {})}))


@pytest.mark.parametrize("over", RANGES)
@pytest.mark.parametrize("chosen", ["All", "one value"])
@pytest.mark.parametrize(("board", "one"), PANELS, ids=[f"{b.uid}-{p.title}" for b, p in PANELS])
def test_every_question_runs(reader: ClickHouse, board: Board, one: Panel, chosen: str, over: str) -> None:
    values: Values = {"zone": "Asia/Kolkata", **(ONE if chosen == "one value" else {})}
    rows = reader.query(expanded(one.sql, RANGES[over], values))
    if one.kind == "stat":
        assert len(rows) == 1
    for row in rows:
        assert one.kind == "table" or any(isinstance(value, int | float | None) for value in row.values()), row
        if one.kind == "series":
            assert isinstance(row["time"], datetime)
        assert set(one.shown()) <= set(row), "a column that is named for people is not shown"
        assert set(one.columns) <= set(row), "a link of a column that is not there"


def nano(value: float | None) -> int | None:
    return None if value is None else round(value * 1_000_000_000)


def seen(over: str, days: float | None = None) -> list[dict[str, Any]]:
    """Return the rows that a range shows; `days`: at most of its last days."""
    since, until = (grafana_rows.instant(ms) for ms in (RANGES[over].from_ms, RANGES[over].to_ms))
    return between(ROWS, max(since, until - DAY * days) if days else since, until)


def doubts(money: Money) -> tuple[int, int]:
    return money.unpriced, money.at_risk


def shown_doubts(row: dict[str, Any]) -> tuple[int, int | None]:
    return row["unpriced"], nano(row["USD at risk"])


def dearest(found: dict[Any, Money], count: int) -> list[tuple[Any, Money]]:
    return sorted(found.items(), key=lambda one: (-one[1].nano, one[0]))[:count]


@pytest.mark.parametrize("over", RANGES)
@pytest.mark.parametrize(
    ("title", "columns", "days", "count", "where"),
    [
        ("In the range", (), None, 1, None),
        ("Model and key", ("provider", "model", "key"), None, 50, None),
        ("Dearest pairs of model and key", ("provider", "model", "key"), None, 100, None),
        ("Organisations", ("organisation",), None, 20, None),
        ("Users", ("organisation", "user"), 2, 20, None),
        ("Features", ("feature",), 2, 20, None),
        ("Addresses", ("address",), 2, 30, None),
        ("New keys", ("name",), None, 20, "api_key_id"),
        ("New models", ("name",), None, 20, "model"),
    ],
)
def test_sums_by_name(
    reader: ClickHouse,
    title: str,
    columns: tuple[str, ...],
    days: float | None,
    count: int,
    where: str | None,
    over: str,
) -> None:
    """Cost, what is not in it, and the order, to the nano-USD."""
    of_row = {
        "provider": "provider",
        "model": "model",
        "key": "api_key_id",
        "organisation": "org_id",
        "user": "user_id",
        "feature": "operation_name",
        "address": "client_ip",
        "name": where or "",
    }
    rows = seen(over, days)
    if where:
        begin = grafana_rows.instant(RANGES[over].from_ms)
        old = {one[where] for one in between(ROWS, begin - 30 * DAY, begin.replace(second=0, microsecond=0))}
        rows = [one for one in rows if one[where] not in old]
    wanted = dearest(groups(rows, lambda one: tuple(one[of_row[name]] for name in columns)), count)
    got = ask(reader, title, over)
    assert [tuple(row[name] for name in columns) for row in got] == [name for name, _ in wanted]
    assert [(nano(row["USD"]), *shown_doubts(row)) for row in got] == [(m.usd, *doubts(m)) for _, m in wanted]
    if "calls" in panel(title).sql and got and "calls" in got[0]:
        assert [row["calls"] for row in got] == [money.calls for _, money in wanted]


@pytest.mark.parametrize("over", RANGES)
@pytest.mark.parametrize(
    ("title", "column", "measures"),
    [
        ("Cost by model", "model", {"USD": "usd"}),
        ("Cost by provider", "provider", {"USD": "usd"}),
        ("Cost by key", "api_key_id", {"USD": "usd"}),
        ("At risk", None, {"USD at risk": "at_risk", "unpriced": "unpriced"}),
        ("Tokens", None, {"output": "outputs"}),
    ],
)
def test_series(reader: ClickHouse, title: str, column: str | None, measures: dict[str, str], over: str) -> None:
    """Steps of the graph beside sums per step; names beyond the eight dearest are one."""
    step = RANGES[over].step_s
    rows = seen(over)
    top = {name for name, _ in dearest(groups(rows, lambda one: one[column]), 8)} if column else set()

    def group(one: dict[str, Any]) -> tuple[int, str]:
        name = "" if column is None else one[column] if one[column] in top else "(other)"
        return int(one["event_time"].timestamp()) // step * step, name

    wanted = groups(rows, group)
    got = {(int(row["time"].timestamp()), row.get("name", "")): row for row in ask(reader, title, over)}
    assert got.keys() == wanted.keys()
    for place, money in wanted.items():
        for name, attribute in measures.items():
            value = nano(got[place][name]) if "USD" in name else got[place][name]
            assert value == getattr(money, attribute), (place, name)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/New_York", "Europe/Berlin", "Pacific/Auckland"])
def test_today_and_month_begin_with_the_local_day(reader: ClickHouse, zone: str) -> None:
    """Half-hour zones and zones with daylight saving, too."""
    from zoneinfo import ZoneInfo

    local = NOW.astimezone(ZoneInfo(zone)).replace(hour=0, minute=0, second=0)
    for title, name, begin in (("Today", "USD today", local), ("This month", "USD this month", local.replace(day=1))):
        rows = [one for one in ROWS if one["event_time"] >= begin.astimezone(UTC)]
        (money,) = groups(rows, lambda _: 0).values() if rows else (Money(),)
        (got,) = ask(reader, title, "an hour", {"zone": zone})
        assert (nano(got[name]), *shown_doubts(got)) == (money.usd, *doubts(money)), (title, zone)


def test_the_forecast_is_the_mean_pace(reader: ClickHouse) -> None:
    (month,) = ask(reader, "This month", "an hour")
    (got,) = ask(reader, "Forecast for the month", "an hour")
    begin = NOW.replace(day=1, hour=0, minute=0, second=0)
    end = (begin + 32 * DAY).replace(day=1)
    passed = datetime.now(UTC) - begin
    if passed < (end - begin) * 0.02:
        assert got["USD at its end"] is None
    else:
        wanted = month["USD this month"] * (end - begin) / passed
        assert got["USD at its end"] == pytest.approx(wanted, rel=0.01)


def test_filters_are_conditions(reader: ClickHouse) -> None:
    """One value of each, and names that need quoting; beyond two days a filter by user reads calls, not minutes."""
    for over in RANGES:
        rows = [
            one
            for one in seen(over)
            if one["org_id"] in ONE["org"]
            and one["provider"] in ONE["provider"]
            and one["model"] in ONE["model"]
            and one["api_key_id"] in ONE["key"]
            and one["user_id"] in ONE["user"]
            and one["operation_name"] in ONE["feature"]
        ]
        money = groups(rows, lambda _: 0).get(0, Money())
        (got,) = ask(reader, "In the range", over, ONE)
        assert (nano(got["USD"]), got["calls"], *shown_doubts(got)) == (money.usd, money.calls, *doubts(money))
        assert over != "thirty days" or money.calls


@pytest.mark.parametrize("over", RANGES)
def test_movers(reader: ClickHouse, over: str) -> None:
    since, until = (grafana_rows.instant(ms) for ms in (RANGES[over].from_ms, RANGES[over].to_ms))
    more: dict[tuple[str, ...], int] = {}
    for begin, end, sign in ((since, until, 1), (since - (until - since), since, -1)):
        for one in between(ROWS, begin, end):
            name = (one["provider"], one["model"], one["api_key_id"])
            more[name] = more.get(name, 0) + sign * (one["cost_nano"] or 0)
    wanted = sorted(more.items(), key=lambda one: (-abs(one[1]), one[0]))[:20]
    got = [((row["provider"], row["model"], row["key"]), nano(row["USD more"])) for row in ask(reader, "Movers", over)]
    assert got == wanted


def test_hours_of_the_week(reader: ClickHouse) -> None:
    from zoneinfo import ZoneInfo

    zone = ZoneInfo("America/New_York")

    def cell(one: dict[str, Any]) -> tuple[int, str]:
        local = one["event_time"].astimezone(zone)
        return local.hour, ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[local.weekday()]

    wanted = {place: money.nano for place, money in groups(seen("thirty days"), cell).items() if money.nano}
    rows = ask(reader, "Hours of the week", "thirty days", {"zone": "America/New_York"})
    got = {(row["hour"], day): nano(row[day]) for row in rows for day in row if len(day) == 3}
    assert {place: value for place, value in got.items() if value} == wanted


@pytest.mark.parametrize("over", RANGES)
def test_single_calls_and_shares(reader: ClickHouse, over: str) -> None:
    rows = seen(over, 2)
    known = [one for one in rows if one["cost_nano"] is not None]
    top = sorted(known, key=lambda one: -one["cost_nano"])[:20]
    got = ask(reader, "The 20 dearest calls", over)
    assert [nano(row["USD"]) for row in got][: len(top)] == [one["cost_nano"] for one in top]
    assert {row["id"] for row in got} >= {one["request_id"] for one in top if one["cost_nano"]}
    estimated = [one for one in rows if one["usage_source"] == "ESTIMATED"]
    (shown,) = ask(reader, "Estimated", over)
    assert shown["calls"] == len(estimated)
    assert nano(shown["USD estimated"]) == sum(one["cost_nano"] or 0 for one in estimated)
    everything = seen(over)
    (share,) = ask(reader, "Served by the cache", over)
    cached, inputs = (sum(one[name] for one in everything) for name in ("cache_read_tokens", "input_tokens"))
    assert share["cached"] == pytest.approx(100 * cached / inputs)
    failed = groups(rows, lambda one: int(one["event_time"].timestamp()) // RANGES[over].step_s * RANGES[over].step_s)
    for row in ask(reader, "Errors and refusals", over):
        calls = failed[int(row["time"].timestamp())].rows
        assert row["share failed"] == pytest.approx(100 * sum(one["status"] == "ERROR" for one in calls) / len(calls))
        assert row["share refused"] == pytest.approx(
            100 * sum(one["status"] == "BLOCKED" for one in calls) / len(calls)
        )


def test_what_is_odd(reader: ClickHouse) -> None:
    keys = groups(seen("two days"), lambda one: one["api_key_id"])
    much = {key: money for key, money in keys.items() if money.inputs >= 100_000}
    got = {row["key"]: row for row in ask(reader, "Input without output", "two days")}
    assert got.keys() == much.keys()
    for key, money in much.items():
        assert got[key]["input for one output"] == pytest.approx(money.inputs / money.outputs)
    several = {key: {one["client_ip"] for one in money.rows} for key, money in keys.items()}
    rows = ask(reader, "One key, many addresses", "two days")
    assert {row["key"]: row["addresses"] for row in rows} == {k: len(v) for k, v in several.items() if len(v) > 1}
    until = grafana_rows.instant(RANGES["two days"].to_ms)
    before = {one["client_ip"] for one in between(ROWS, until - 8 * DAY, until - DAY)}
    new = {one["client_ip"] for one in between(ROWS, until - DAY, until)} - before
    assert {row["address"] for row in ask(reader, "New addresses", "an hour")} == new >= {"203.0.113.9"}


def test_a_day_of_the_time_picker_is_whole(reader: ClickHouse) -> None:
    """Grafana ends a day with its last millisecond: calls of that very millisecond belong to it."""
    end = NOW.replace(hour=0, minute=0, second=0)
    day = Range(int((end - DAY).timestamp() * 1000), int(end.timestamp() * 1000) - 1)
    (got,) = ask(reader, "In the range", day, {"org": ("edge",)})
    assert (nano(got["USD"]), got["calls"]) == (1, 1)


def test_budgets(reader: ClickHouse) -> None:
    """Money with what is at risk, tokens as counts, the period that is over left out, forecasts by the mean pace."""
    limits = {(row["name"], row["period"], row["unit"]): row for row in ask(reader, "Limits", "an hour")}
    day, month = limits["", "day", "USD"], limits["", "month", "USD"]
    assert (day["limit"], day["used of it"], day["percent"], day["at risk"]) == (2.0, 3.5, 175.0, 0.5)
    assert (month["limit"], month["used of it"], month["percent"]) == (100.0, 9.5, 9.5)
    assert (limits["ann", "day", "tokens"]["limit"], limits["ann", "day", "tokens"]["used of it"]) == (1_000, 800)
    begin = NOW.replace(day=1, hour=0, minute=0, second=0)
    length, passed = (begin + 32 * DAY).replace(day=1) - begin, datetime.now(UTC) - begin
    assert month["ends"] == begin + length
    if passed > length * 0.02:
        assert month["forecast"] == pytest.approx(9.5 * (length / passed), rel=0.01)
    (over,) = ask(reader, "Over their limit", "an hour")
    assert over == {"spent": 1, "almost spent": 1, "limits": 3}
    shares = {row["budget"]: row["used"] for row in ask(reader, "Used", "an hour")}
    assert shares == {"acme day USD": 175.0, "acme month USD": 9.5, "acme user ann day tokens": 80.0}
    (user,) = ask(reader, "Users this month", "an hour")
    assert (user["user"], user["USD"], user["unpriced"], nano(user["USD at risk"])) == ("ann", None, 1, 4_000_000)
    refused = [one for one in seen("two days") if one["status"] == "BLOCKED"]
    (shown,) = ask(reader, "Refused", "two days")
    assert shown["refused"] == len(refused)
    assert shown["keys"] == len({one["api_key_id"] for one in refused})
    assert sum(row["refused"] for row in ask(reader, "Refusals by cause", "two days")) == len(refused)
    assert [row["text"] for row in ask(reader, "Thresholds that were crossed", "an hour")] == ["budget"]


def test_pipeline(reader: ClickHouse) -> None:
    (records,) = ask(reader, "Records", "an hour")
    assert records == {"read": 110, "dead letters": 4, "rows": 106}
    assert sum(row["rows"] for row in ask(reader, "Records over time", "an hour")) == 106
    (gaps,) = ask(reader, "Gaps", "an hour")
    assert gaps == {"gaps": 1, "records lost": 5}
    (behind,) = ask(reader, "Behind", "an hour")
    assert behind["ledger"] == pytest.approx((datetime.now(UTC) - NOW).total_seconds() + 720, abs=30)
    places = {row["partition"]: row for row in ask(reader, "Partitions", "an hour")}
    assert (places[0]["records behind"], places[1]["records behind"]) == (6, None)
    assert {row["kind"] for row in ask(reader, "What the line says of itself", "an hour")} == {"verify_difference"}
    assert {row["kind"] for row in ask(reader, "Open findings", "an hour")} == {
        *("verify_difference", "ingest_loop", "spend_spike"),
    }
    states = groups(seen("two days"), lambda one: one["price_status"])
    shown = {row["price"]: row["calls"] for row in ask(reader, "Calls by state of their price", "two days")}
    assert shown == {state: money.calls for state, money in states.items()}
    services = groups(seen("two days"), lambda one: one["service"])
    assert {row["service"]: row["calls"] for row in ask(reader, "Services", "two days")} == {
        service: money.calls for service, money in services.items()
    }
    delays = sorted((one["received_at"] - one["event_time"]).total_seconds() for one in seen("an hour"))
    assert all(0 <= row["median"] <= row["p99"] <= 2 for row in ask(reader, "From the call to its arrival", "an hour"))
    assert delays[-1] < 2


def test_bills_beside_the_ledger(reader: ClickHouse) -> None:
    """Yesterday was billed 123.50 USD: the ledger's calls of that UTC day, by any key of ours, stand beside it."""
    end = NOW.replace(hour=0, minute=0, second=0)
    rows = [
        one
        for one in between(ROWS, end - DAY, end)
        if one["provider_id"] == "openai" and one["billing_scope"] != "USER" and one["status"] != "BLOCKED"
    ]
    (money,) = groups(rows, lambda _: 0).values()
    for title in ("Bills and the ledger", "Days"):
        (got,) = ask(reader, title, "thirty days")
        assert (got["USD billed"], nano(got["USD ours"]), *shown_doubts(got)) == (123.5, money.nano, *doubts(money))
        assert nano(got["USD difference"]) == 123_500_000_000 - money.nano
    (line,) = ask(reader, "Lines of the bills", "thirty days")
    assert (line["provider"], line["billed USD"]) == ("openai", 123.5)
    (step,) = ask(reader, "Difference by day", "thirty days")
    assert (step["time"], nano(step["USD"])) == (end - DAY, 123_500_000_000 - money.nano)


def test_coding_agents(reader: ClickHouse) -> None:
    rows = [one for one in seen("thirty days", 7) if one["agent"]]
    (total,) = ask(reader, "Agents", "thirty days")
    (money,) = groups(rows, lambda _: 0).values()
    assert (nano(total["USD"]), total["calls"], *shown_doubts(total)) == (money.usd, money.calls, *doubts(money))
    assert total["sessions"] == len({one["session_id"] for one in rows})
    names = {
        "Developers": lambda one: (one["user_id"], one["agent"]),
        "Repositories": lambda one: (one["tags"][0]["value"] if one["tags"] else "",),
        "Sessions": lambda one: (one["session_id"], one["user_id"], one["agent"]),
        "Agents' models": lambda one: (one["agent"], one["model"]),
    }
    columns = {
        "Developers": ("developer", "agent"),
        "Repositories": ("repository",),
        "Sessions": ("session", "developer", "agent"),
        "Agents' models": ("agent", "model"),
    }
    for title, name in names.items():
        wanted = dearest(groups(rows, name), 50)
        got = ask(reader, title, "thirty days")
        assert [tuple(row[column] for column in columns[title]) for row in got] == [key for key, _ in wanted]
        assert [nano(row["USD"]) for row in got] == [found.usd for _, found in wanted]


def fired(ledger: ClickHouse, rule: Rule) -> list[float]:
    """Return the numbers above the threshold, as Grafana's expressions compare them."""
    now_ms = int(datetime.now(UTC).timestamp() * 1000) + 1_000
    over = Range(now_ms - rule.since_s * 1000, now_ms)
    rows = ledger.query(expanded(rule.sql, over))
    for row in rows:
        numbers = [name for name, value in row.items() if isinstance(value, int | float)]
        assert numbers == ["v"], "one number beside its labels"
    return [row["v"] for row in rows if row["v"] > rule.above]


@pytest.fixture(scope="module", name="leaking")
def leak(stack: "Stack", databases: Databases) -> Iterator[ClickHouse]:
    yield from filled(stack, databases, grafana_rows.leaking, store_line)


@pytest.fixture(scope="module", name="calm")
def clean(stack: "Stack", databases: Databases) -> Iterator[ClickHouse]:
    yield from filled(stack, databases, grafana_rows.steady, grafana_rows.store_calm_line)


def filled(
    stack: "Stack",
    databases: Databases,
    rows: Callable[[datetime], list[dict[str, Any]]],
    line: Callable[[ClickHouse, datetime], None],
) -> Iterator[ClickHouse]:
    """Rules ask what is true now: the rows are as young as their test, however long others took before it."""
    now = datetime.now(UTC).replace(microsecond=0)
    name = databases.take()
    writer = connect(stack.settings.model_copy(update={"clickhouse_database": name}))
    store(writer, rows(now))
    line(writer, now)
    reader = reader_of(stack, name)
    yield reader
    reader.close()
    writer.close()
    databases.give_back(name)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.uid)
def test_an_alert_fires_on_a_leak(leaking: ClickHouse, rule: Rule) -> None:
    assert fired(leaking, rule), rule.title


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.uid)
def test_no_alert_fires_on_steady_traffic(calm: ClickHouse, rule: Rule) -> None:
    assert fired(calm, rule) == []
