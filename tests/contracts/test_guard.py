"""The guard on the real topics: what is written there decides in another process within a moment, with no restart."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import guard_rows as rows
from tests.patience import Patience
from tests.workers import alerts
from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.guard.guard import Allow, Deny, Guard
from tollmeter.producers.guard.price_cache import PriceCache
from tollmeter.schemas import topics
from tollmeter.schemas.access import Block, RateLimit
from tollmeter.schemas.policy import Policy
from tollmeter.settings import Settings

pytestmark = pytest.mark.stack

CALL: dict[str, Any] = {
    "prompt_tokens": 1_000,
    "max_output_tokens": 100,
    "org": "acme",
    "user": "ann",
    "provider": "openai",
    "client_ip": "10.1.2.3",
    "api_key_id": "key1",
}
LIMIT = Policy(org_id="acme", daily_limit_micro=1_000_000)
Eventually = Callable[..., Any]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def guard(line_settings: Settings, tmp_path: Path) -> Iterator[Guard]:
    line_settings = line_settings.model_copy(update={"spool_dir": str(tmp_path / "spool")})
    rows.publish(line_settings, [rows.real_book(), rows.policy(LIMIT), rows.as_of(now_ms())])
    producer = UsageProducer(service="shop", mode="memory")
    with Guard(settings=line_settings, producer=producer) as made:
        assert made.ready(600.0), made.problem
        yield made


def spent(settings: Settings, nano: int, stamp: int) -> None:
    at = time.time()
    rows.publish(settings, [rows.spend(nano, at_s=int(at), stamp=stamp), rows.as_of(now_ms(), stamp=stamp)])


def test_prices_policies_and_spend_arrive(line_settings: Settings, guard: Guard, eventually: Eventually) -> None:
    allowed = guard.check("gpt-4o", **CALL)
    assert isinstance(allowed, Allow)
    assert allowed.est_nano == 1_000 * 2_500 + 100 * 10_000
    assert not allowed.stale
    allowed.reservation.release()

    spent(line_settings, 1_000_000_000, stamp=2)
    denied = refused(guard, eventually)
    assert denied.body["message"] == "llm cost limit exceeded: daily cost limit reached"
    assert guard.staleness_s < 10

    raised = LIMIT.model_copy(update={"daily_limit_micro": 9_000_000})
    rows.publish(line_settings, [rows.policy(raised)])
    assert eventually(lambda: guard.check("gpt-4o", **CALL), 10.0)
    key = rows.policy(LIMIT)[1]
    spent(line_settings, 20_000_000_000, stamp=3)
    refused(guard, eventually)
    rows.publish(line_settings, [(topics.POLICIES, key, None)])
    assert eventually(lambda: guard.check("gpt-4o", **CALL), 10.0)


def test_blocks_and_rates_change_without_restart(line_settings: Settings, guard: Guard, eventually: Eventually) -> None:
    block = Block(scope="client_ip", name="10.1.2.3", reason="leak")
    rows.publish(line_settings, [rows.access(block)])
    denied = refused(guard, eventually)
    assert (denied.http_status, denied.body["error"], denied.body["reason"]) == (403, "blocked", "leak")
    rows.publish(line_settings, [(topics.POLICIES, block.key, None)])
    assert eventually(lambda: guard.check("gpt-4o", **CALL), 10.0)

    rows.publish(line_settings, [rows.access(RateLimit(scope="client_ip", requests=1, window_s=60))])
    denied = refused(guard, eventually)
    assert denied.http_status == 429
    assert 1 <= int(denied.headers["Retry-After"]) <= 60


def refused(guard: Guard, eventually: Eventually) -> Deny:
    """Wait for the guard to refuse the call. A `Deny` is false, hence the list around it."""

    def denied() -> list[Deny]:
        decided = guard.check("gpt-4o", **CALL)
        return [decided] if isinstance(decided, Deny) else []

    found: list[Deny] = eventually(denied, 10.0)
    return found[0]


def test_refusals_are_events_and_one_alert(line_settings: Settings, guard: Guard, eventually: Eventually) -> None:
    for _ in range(3):
        denied = guard.check("gpt-4o", **{**CALL, "prompt_tokens": 100_000})
        assert isinstance(denied, Deny)
        assert denied.event_id
    assert guard._producer is not None
    assert [(event.status, event.error_type) for event in guard._producer.events] == [("BLOCKED", "cost_cap")] * 3
    (alert,) = eventually(lambda: alerts(line_settings, "cap_refused"), 15.0)
    assert (alert["source"], alert["data"]["kind"], alert["data"]["scope"]) == (
        "tollmeter/guard",
        "cap_refused",
        "user",
    )


def test_two_guards_know_of_each_other(line_settings: Settings, guard: Guard, eventually: Eventually) -> None:
    assert guard._known.accounts.guards == 1
    with Guard(settings=line_settings) as other:
        assert other.ready(600.0)
        eventually(lambda: other._known.accounts.guards == 2 and guard._known.accounts.guards == 2, 15.0)
    eventually(lambda: guard._known.accounts.guards == 1, 15.0)


def test_a_forked_child_reads_for_itself(line_settings: Settings, guard: Guard, eventually: Eventually) -> None:
    held = guard.check("gpt-4o", **CALL)
    assert held
    child = os.fork()
    if not child:
        code = 1
        try:
            assert guard._known.accounts.in_flight == 0
            assert guard.check("gpt-4o", **CALL)  # knows what the parent knew, and starts a thread of its own
            patience = Patience(20)
            while guard.check("gpt-4o", **CALL) and not patience.ended():
                time.sleep(0.05)
            code = 0 if patience.left_s > 0 else 2
        finally:
            os._exit(code)
    eventually(lambda: guard._known.accounts.in_flight == 1, 1.0)
    time_s = time.monotonic()
    while time.monotonic() < time_s + 1.0:  # the child's thread is at work before the news comes
        assert guard.check("gpt-4o", **{**CALL, "org": "other"})
    spent(line_settings, 1_000_000_000, stamp=5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_broker_killed_in_between_is_found_again(
    stack: Any, line_settings: Settings, guard: Guard, eventually: Eventually
) -> None:
    stack.kill("broker", signal.SIGKILL, restart=False)
    eventually(lambda: guard.problem, 60.0)
    assert guard.check("gpt-4o", **CALL)
    stack.resume("broker")
    eventually(lambda: not guard.problem, 60.0)
    spent(line_settings, 1_000_000_000, stamp=2)
    refused(guard, eventually)


def test_without_a_broker_it_says_why_and_lets_pass(tmp_path: Path) -> None:
    nowhere = Settings(spool_dir=str(tmp_path))
    with Guard("127.0.0.1:9", settings=nowhere) as guard:
        allowed = guard.check("gpt-4o", **CALL)
        assert isinstance(allowed, Allow)
        assert (allowed.est_usd, allowed.stale) == (None, True)
        assert not guard.ready(1.0)
        assert guard.problem
        assert guard.staleness_s == float("inf")
    shut = Settings(guard_fail="closed", spool_dir=str(tmp_path))
    with Guard("127.0.0.1:9", settings=shut) as guard:
        denied = guard.check("gpt-4o", **CALL)
        assert isinstance(denied, Deny)
        assert (denied.http_status, denied.error) == (503, "price_unknown")


def test_the_last_book_is_known_when_it_starts_without_a_broker(
    line_settings: Settings, guard: Guard, eventually: Eventually
) -> None:
    """The cap on one call holds from the first moment, though nobody answers."""
    allowed = guard.check("gpt-4o", **CALL)
    assert isinstance(allowed, Allow)
    kept = list(Path(guard.settings.spool_dir).glob("*.prices.json"))
    assert len(kept) == 1
    away = guard.settings.model_copy(update={"kafka": "127.0.0.1:9"})
    cache = PriceCache(away)
    cache.save(kept[0].read_bytes())
    with Guard(settings=away) as other:
        other.check("gpt-4o")

        def priced() -> Allow | None:
            found = other.check("gpt-4o", **CALL)
            return found if isinstance(found, Allow) and found.est_nano else None

        assert eventually(priced, 10.0).est_nano == allowed.est_nano
        assert not other.check("gpt-4o", prompt_tokens=1_000_000, provider="openai")
        assert other.staleness_s == float("inf")
