"""Laws of the guard, each beside an oracle that adds up anew: accounts, overshoot, buckets, stamps, prices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from itertools import count, cycle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import guard_rows as rows
from tests.effort import examples
from tests.exchange import dated
from tests.guard_rows import NOON, Time
from tollmeter.producers.guard.access import AccessView
from tollmeter.producers.guard.account import Account
from tollmeter.producers.guard.accounts import Accounts, Bound, Refusal, Reservation
from tollmeter.producers.guard.buckets import Buckets, HostBuckets, ProcessBuckets
from tollmeter.producers.guard.guard import overshoot_bound
from tollmeter.producers.guard.prices import Prices, load_prices
from tollmeter.producers.guard.spend import SpendView
from tollmeter.schemas.access import RateLimit
from tollmeter.schemas.policy import Limit
from tollmeter.streams.price.book.book import PriceBook, load
from tollmeter.streams.rules.limits.policies import Budget
from tollmeter.streams.rules.pricing.model_names import Names
from tollmeter.streams.rules.pricing.price_one import Call, price_one

LEASE_MS, SLACK_MS = 50, 7
BUDGET = Budget("o", "org", "", Limit(period="day", amount=1), "USD", "UTC", (), None, "p")

# ---------------------------------------------------------------- accounts


@dataclass
class Entry:
    """What the oracle knows of one call."""

    accounts: tuple[int, ...]
    amount: int
    partition: int
    expires_ms: int
    state: str = "open"
    settled_ms: int = 0


@dataclass
class Oracle:
    """Adds up every call anew for each question."""

    limits: Sequence[int]
    spent: list[int]
    guards: int
    now: int = 0
    as_of: dict[int, int] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)

    def held(self, account: int) -> int:
        total = 0
        for entry in self.entries:
            passed = entry.settled_ms < self.as_of.get(entry.partition, -(10**9)) - SLACK_MS
            if account in entry.accounts and (entry.state == "open" or (entry.state == "settled" and not passed)):
                total += entry.amount
        return total

    def reason(self, accounts: tuple[int, ...], amount: int) -> str:
        """Return why a call is refused, "" when it is not, by the definitions alone."""
        for account in accounts:
            if self.spent[account] + self.held(account) >= self.limits[account]:
                return "used"
        for account in accounts:
            if self.spent[account] + self.held(account) + amount > self.limits[account]:
                return "reserved"
        for account in accounts:
            remaining, held = self.limits[account] - self.spent[account], self.held(account)
            if self.guards > 1 and held > 0 and Fraction(held + amount) > Fraction(remaining, 2 * self.guards):
                return "share"
        return ""


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.sets(st.integers(0, 2), min_size=1), st.integers(0, 40), st.integers(0, 1)),
        st.tuples(st.just("settle"), st.integers(0, 5), st.none() | st.integers(0, 60)),
        st.tuples(st.just("release"), st.integers(0, 5)),
        st.tuples(st.just("spend"), st.integers(0, 2), st.integers(0, 120)),
        st.tuples(st.just("as_of"), st.integers(0, 1), st.sampled_from([-20, 0, SLACK_MS, SLACK_MS + 1])),
        st.tuples(st.just("wait"), st.sampled_from([1, SLACK_MS, LEASE_MS - 1, LEASE_MS])),
    ),
    min_size=25,
    max_size=60,
)


@settings(max_examples=examples(200), deadline=None)
@given(st.tuples(*[st.integers(1, 150)] * 3), st.integers(1, 4), STEPS)
def test_accounts_agree_with_adding_up(limits: tuple[int, ...], guards: int, steps: list[tuple[Any, ...]]) -> None:
    oracle = Oracle(limits, [0, 0, 0], guards)
    accounts = Accounts(guards, LEASE_MS, SLACK_MS, lambda: oracle.now)
    all_ = [accounts.account(str(number)) for number in range(3)]
    for account in all_:
        account.ends_s = 10**9
    made: list[tuple[Reservation, Entry]] = []
    for step, *how in steps:
        if step == "reserve":
            of, amount, partition = tuple(sorted(how[0])), how[1], how[2]
            bounds = tuple(Bound(all_[number], limits[number], 0, BUDGET) for number in of)
            found = accounts.reserve(bounds, (amount, 0, 0, 0, 1), partition, 0, oracle.now)
            assert (found.reason if isinstance(found, Refusal) else "") == oracle.reason(of, amount)
            if isinstance(found, Reservation):
                entry = Entry(of, amount, partition, oracle.now + LEASE_MS)
                oracle.entries.append(entry)
                made.append((found, entry))
        elif step in ("settle", "release") and how[0] < len(made):
            reservation, entry = made[how[0]]
            if step == "release":
                reservation.release()
                entry.state = "released" if entry.state == "open" else entry.state
            else:
                reservation.settle(how[1])
                if entry.state in ("open", "expired"):
                    entry.amount = entry.amount if how[1] is None else how[1]
                    entry.state, entry.settled_ms = "settled", oracle.now
        elif step == "spend":
            oracle.spent[how[0]] = all_[how[0]].spent = how[1]
        elif step == "as_of":
            oracle.as_of[how[0]] = max(oracle.now + how[1], oracle.as_of.get(how[0], -(10**9)))
            accounts.passed(how[0], oracle.as_of[how[0]])
        elif step == "wait":
            oracle.now += how[0]
            accounts.expire()
            for entry in oracle.entries:
                if entry.state == "open" and entry.expires_ms <= oracle.now:
                    entry.state = "expired"
        for partition in (0, 1):  # what was settled in the shadow of an as_of goes with the next one
            if partition in oracle.as_of:
                accounts.passed(partition, oracle.as_of[partition])
        assert [account.held for account in all_] == [oracle.held(number) for number in range(3)]
        assert [reservation.state for reservation, _ in made] == [entry.state for _, entry in made]


# ---------------------------------------------------------------- overshoot


@settings(max_examples=examples(300), deadline=None)
@given(
    st.integers(2, 6),
    st.integers(1, 30),
    st.integers(20, 300),
    st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 30)), max_size=30), min_size=1, max_size=12),
    st.lists(st.booleans(), min_size=72, max_size=72),
)
def test_overshoot_stays_within_the_bound(
    guards: int, dearest: int, limit: int, rounds: list[list[tuple[int, int]]], late: list[bool]
) -> None:
    """Guards spend as fast as they may; between two rounds each hears the truth of this round or of the one before."""
    now, total, before = 0, 0, 0
    accounts_of = [Accounts(guards, 10**9, 0, lambda: now) for _ in range(guards)]
    delayed = iter(late)
    for calls in [*rounds, *rounds]:
        for who, amount in calls * 3:
            if who >= guards:
                continue
            account = accounts_of[who].account("x")
            account.ends_s = 10**9
            cost = min(amount, dearest)
            found = accounts_of[who].reserve((Bound(account, limit, 0, BUDGET),), (cost, 0, 0, 0, 1), 0, 0, now)
            if isinstance(found, Reservation):
                found.settle()
                total += cost
        heard, now = total, now + 10
        for accounts in accounts_of:
            if next(delayed, False):
                accounts.account("x").spent = before
                accounts.passed(0, now - 15)
            else:
                accounts.account("x").spent = heard
                accounts.passed(0, now - 5)
        before = heard
    assert total <= limit + overshoot_bound(limit, guards, dearest)


# ---------------------------------------------------------------- buckets


_orgs = count()


@pytest.fixture(scope="module", params=["process", "host"])
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], list[Buckets]]:
    """Return what makes the buckets of one process, or those of three that share a file."""
    if request.param == "process":
        return lambda: [ProcessBuckets()]
    path = tmp_path_factory.mktemp("rates") / "t.rates"
    shared: list[Buckets] = [HostBuckets(path) for _ in range(3)]
    return lambda: shared


@settings(max_examples=examples(300), deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 90),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 1)), max_size=40),
)
def test_buckets_agree_with_counting_tokens(
    places: Callable[[], list[Buckets]], requests: int, window_s: int, burst: int, calls: list[tuple[int, int]]
) -> None:
    """One process counts, or several take turns, at one file: the same calls pass."""
    limit = RateLimit(scope="client_ip", requests=requests, window_s=window_s, burst=burst)
    views = [AccessView(buckets) for buckets in places()]
    for view in views:
        view.apply(limit.key, limit.model_dump_json().encode())
    org, turns = f"org-{next(_orgs)}", cycle(views)
    step_ns = window_s * 10**9 // requests
    tokens = {"a": Fraction(burst), "b": Fraction(burst)}
    seen = {"a": 10**12, "b": 10**12}
    now = 10**12
    for pause_ms, which in calls:
        name = "ab"[which]
        now += pause_ms * 1_000_000
        tokens[name] = min(Fraction(burst), tokens[name] + Fraction(now - seen[name], step_ns))
        seen[name] = now
        view = next(turns)
        found = view.take(org, (("client_ip", name), ("api_key", "k")), 0, now)
        assert (found is None) == (tokens[name] >= 1)
        if found is None:
            tokens[name] -= 1
        else:
            assert found.wait_ns == (1 - tokens[name]) * step_ns
            assert view.take(org, (("client_ip", name),), 0, now + found.wait_ns - 1) is not None


# ---------------------------------------------------------------- stamps


@given(
    st.permutations([(stamp, spent) for stamp, spent in enumerate([5, 9, 0, 7, 3])]),
    st.permutations(list(enumerate([1_000, 2_000, 3_000, 4_000]))),
)
def test_spend_is_that_of_the_highest_stamp_in_any_order(
    order: list[tuple[int, int]], clocks: list[tuple[int, int]]
) -> None:
    accounts = Accounts(1, 10, 0, lambda: 0)
    view = SpendView(accounts, lambda at_ms: at_ms)
    for stamp, spent in order:
        view.apply(*_bare(rows.spend(spent, stamp=stamp)))
    for stamp, at_ms in clocks:
        view.apply(*_bare(rows.as_of(at_ms, stamp=stamp)))
    account: Account = accounts.account(rows.spend(0)[1])
    assert (account.spent, account.stamp, view.rows) == (3, 4, 1)
    reached = max(
        at_ms for place, (stamp, at_ms) in enumerate(clocks) if stamp >= max(s for s, _ in clocks[: place + 1])
    )
    assert set(view.as_of_ms.values()) == {reached}


def _bare(record: rows.Record) -> tuple[str, bytes | None]:
    return record[1], record[2]


# ---------------------------------------------------------------- prices


@lru_cache(maxsize=1)
def books() -> tuple[PriceBook, Prices]:
    value = rows.real_book()[2]
    assert value is not None
    return load(dated()), load_prices(value, lambda: NOON)


MODELS = (
    "gpt-4o",
    "gpt-4o-2024-08-06",
    "gpt-4o-20240806",
    "gpt-5",
    "gpt-5-mini",
    "gpt-4-turbo",
    "chatgpt-4o-latest",
    "claude-sonnet-4-20250514",
    "claude-3-5-haiku-latest",
    "claude-opus-4-1",
    "gemini-2.5-pro",
    "gemini-2.0-flash",
    "mistral-large-latest",
    "o3-mini",
    "deepseek-chat",
    "grok-4",
    "gpt-4o-mini",
    "text-embedding-3-large",
    "anthropic/claude-sonnet-4",
    "openai/gpt-4o",
    "command-r",
    "llama3",
    "my-own-model",
    "gpt-77-giant",
    "claude-99",
    "ft:gpt-4o-2024-08-06:acme::x",
    "kimi-k2",
    "GPT-4o",
)
PROVIDERS = (
    "",
    "openai",
    "anthropic",
    "azure",
    "google",
    "ollama",
    "openrouter",
    "mistral",
    "azure_openai",
    "x-ai",
    "nobody",
)


def agrees(provider: str, model: str, tokens: int, output: int, cached: int, later_s: int) -> None:
    book, prices = books()
    counts = (tokens, min(cached, tokens), 0, 0, output, 0)
    at_s = NOON + later_s
    plan = book.planner.plan(Names(provider, "", model, "", "", "", "chat", "", "REALTIME"))
    truth = price_one(plan, Call(at_s * 1_000_000, "OK", counts))
    found = prices.quote(
        provider, model, {"input_tokens": tokens, "cache_read_tokens": counts[1], "output_tokens": output}, at_s
    )
    if truth.price_status == "NO_USAGE":
        assert found.worst_nano in (0, None)
        return
    assert (found.nano, found.status) == (truth.cost_nano, truth.price_status)
    if later_s == 0 and not counts[1]:
        est, status = prices.estimate(provider, model, tokens, output)
        assert est == (truth.at_risk_nano if truth.cost_nano is None else truth.cost_nano)
        assert status == truth.price_status
    if truth.at_risk_nano is not None:
        assert found.at_risk_nano == truth.at_risk_nano


@pytest.mark.parametrize("provider", PROVIDERS)
def test_quotes_of_every_pair_are_what_price_will_say(provider: str) -> None:
    for model in MODELS:
        for tokens, output in ((0, 1), (1, 0), (1, 1), (1_000, 1_000), (250_000, 10)):
            agrees(provider, model, tokens, output, 0, 0)


@settings(max_examples=examples(400), deadline=None)
@given(
    st.sampled_from(PROVIDERS),
    st.sampled_from(MODELS),
    st.integers(0, 300_000),
    st.integers(0, 20_000),
    st.integers(0, 1_000),
    st.integers(0, 40 * 86_400),
)
def test_quotes_are_what_price_will_say(
    provider: str, model: str, tokens: int, output: int, cached: int, later_s: int
) -> None:
    agrees(provider, model, tokens, output, cached, later_s)


@pytest.mark.parametrize("provider", ["", "openai"])
@pytest.mark.parametrize("model", MODELS)
def test_estimates_are_what_price_will_say(provider: str, model: str) -> None:
    book, prices = books()
    plan = book.planner.plan(Names(provider, "", model, "", "", "", "chat", "", "REALTIME"))
    truth = price_one(plan, Call(NOON * 1_000_000, "OK", (1_000, 0, 0, 0, 200, 0)))
    est, status = prices.estimate(provider, model, 1_000, 200)
    assert est == (truth.at_risk_nano if truth.cost_nano is None else truth.cost_nano)
    assert (status == "UNKNOWN_MODEL") == (truth.price_status == "UNKNOWN_MODEL")


def test_the_clock_of_a_test_moves_both_hands() -> None:
    time_ = Time()
    guard = time_.guard()
    before = guard._known.clock.wall_ms()
    time_.pass_(1.5)
    assert guard._known.clock.wall_ms() == before + 1_500
