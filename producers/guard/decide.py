"""The order of decision: blocks, models, cap, rate limits, budgets. One snapshot is read, nothing slow waited for."""

from collections.abc import Callable, Iterable, Mapping

from tollmeter.producers.guard import refusals
from tollmeter.producers.guard.accounts import UNITS, Bound, Refusal, Reservation
from tollmeter.producers.guard.decision import Allow, Deny
from tollmeter.producers.guard.exchange import InForce
from tollmeter.producers.guard.limits import MONEY, Caller
from tollmeter.producers.guard.prices import UNPRICED, Prices
from tollmeter.producers.guard.question import Question
from tollmeter.producers.guard.snapshot import Snapshot
from tollmeter.schemas.addresses import caller_form, normal_address
from tollmeter.schemas.names import plain_model, plain_provider
from tollmeter.settings import Settings

NO_RATES: Mapping[str, InForce] = {}


class Decider:
    """Decides by what is known. `trusting`: as long as nobody has said how fresh spend is, it is taken to be."""

    def __init__(
        self, known: Snapshot, settings: Settings, max_nano: int, monotonic_ns: Callable[[], int], trusting: bool
    ) -> None:
        self._known = known
        self._max_nano = max_nano
        self._monotonic_ns = monotonic_ns
        self._trusting = trusting
        self._http_status = settings.guard_http_status
        self._closed = settings.guard_fail == "closed"
        self._stale_ms = round(settings.guard_stale_s * 1_000)

    def admit(self, org: str, user: str, api_key: str, client_ip: str, kept_ip: str) -> Deny | None:
        """Decide about a request before any model is named, by blocks and rate limits alone.

        `kept_ip` is what events keep of the address: the hash of one may be blocked by what reports show.
        """
        mono_ns = self._monotonic_ns()
        wall_ms = mono_ns // 1_000_000 + self._known.clock.offset_ms
        paying = (("api_key", api_key), ("client_ip", caller_form(client_ip)))
        hashed = "" if normal_address(kept_ip) else kept_ip
        blockable = (*paying, ("client_ip", hashed), ("user", user))
        block = self._known.access.blocked(org, blockable, wall_ms)
        if block is not None:
            return refusals.blocked(block)
        paced = self._known.access.take(org, paying, wall_ms, mono_ns)
        return None if paced is None else refusals.paced(paced)

    def decide(self, question: Question, tokens: int, output: int) -> Allow | Deny:
        """Decide about one call of so many prompt and output tokens."""
        mono_ns, prices = self._monotonic_ns(), self._known.prices
        wall_ms = mono_ns // 1_000_000 + self._known.clock.offset_ms
        if self._known.access.blocks:
            callers = (
                ("api_key", question.api_key_id or ""),
                ("client_ip", question.address),
                ("user", question.user or ""),
            )
            block = self._known.access.blocked(question.org or "", callers, wall_ms)
            if block is not None:
                return refusals.blocked(block)
        if question.api_host and prices is not None:
            known = prices.called(question.provider or "", question.model, question.api_host)
            question = question._replace(provider=known)
        instead = self._known.models.check(question, prices) if self._known.models else ""
        if isinstance(instead, Deny):
            return instead
        decided = self._pay(question._replace(model=instead or question.model), tokens, output, wall_ms, mono_ns)
        if instead and isinstance(decided, Allow):
            decided.downgrade_to = instead
        return decided

    def _pay(self, question: Question, tokens: int, output: int, wall_ms: int, mono_ns: int) -> Allow | Deny:
        """Ask the cap, the rate limits and the budgets."""
        known, org, model, access = self._known, question.org or "", question.model, self._known.access
        prices, provider = known.prices, question.provider or ""
        estimated: tuple[int | None, str] = None, UNPRICED.status
        if prices is not None:
            estimated = prices.estimate(provider, model, tokens, output, question.service_tier or "")
        est, status = estimated
        if est is None:
            if self._closed:
                return refusals.price_unknown(model)
        elif est > self._max_nano:
            return refusals.cost_cap(self._http_status, self._max_nano, est)
        if access.rates:
            paced = access.take(org, question.paying, wall_ms, mono_ns)
            if paced is not None:
                return refusals.paced(paced)
        if question.billing_scope == "USER":
            return Allow(est, Reservation(None), status)
        if prices is None:
            provider, model = plain_provider(provider), plain_model(model)
        else:
            provider, model = prices.identity(provider, model)
        version, model = known.answers.of(provider, question.api_host or "", question.model, model)
        caller = question.caller(provider, model, version)
        return self._reserve(org, caller, estimated, tokens + output, wall_ms, mono_ns // 1_000_000)

    def _reserve(
        self, org: str, caller: Caller, estimated: tuple[int | None, str], tokens: int, wall_ms: int, mono_ms: int
    ) -> Allow | Deny:
        """Ask the budgets and set the estimate (nano-USD and price status) aside in all of them."""
        known, (est, status) = self._known, estimated
        binding = known.limits.find(org, caller, wall_ms)
        bounds = binding.counted if status == "FREE" else binding.bounds
        partition = known.partition(org)
        as_of_ms = known.spend.known_until(partition)
        stale = not self._trusting if as_of_ms is None else wall_ms - as_of_ms > self._stale_ms
        rates = known.prices.rates() if binding.foreign and known.prices is not None else NO_RATES
        unrated, fx_stale = _rated(bounds, rates) if binding.foreign else (False, False)
        if rates and _count_unrated(bounds, known.prices):
            fx_stale = True
        if (stale or unrated) and self._closed and (bounds or not known.loaded):
            return refusals.budget_unknown(known.staleness_ms(org), refusals.UNHEARD if stale else refusals.UNRATED)
        if not bounds:
            return Allow(est, Reservation(None), status, stale=not known.loaded)
        nano = est or 0
        amounts = (nano, 0, 0, tokens, 1)
        if rates:
            eur, rub = (rates[name].convert(nano) if name in rates else 0 for name in ("EUR", "RUB"))
            amounts = (nano, eur, rub, tokens, 1)
        now_s = wall_ms // 1_000
        found = known.accounts.reserve(bounds, amounts, partition or 0, now_s, mono_ms, not stale)
        if isinstance(found, Refusal):
            unit = UNITS[found.bound.unit]
            old = unit in rates and (rates[unit].stale or found.bound.account.unrated > 0)
            return refusals.over_budget(self._http_status, found, now_s, old)
        return Allow(est, found, status, stale or unrated, fx_stale)


def _rated(bounds: Iterable[Bound], rates: Mapping[str, InForce]) -> tuple[bool, bool]:
    """Tell whether some limit has no rate, so that nothing is set aside for it, and whether some has one too old."""
    foreign = {UNITS[bound.unit] for bound in bounds if bound.unit < MONEY} - {UNITS[0]}
    return not foreign <= rates.keys(), any(name in rates and rates[name].stale for name in foreign)


def _count_unrated(bounds: Iterable[Bound], prices: Prices | None) -> bool:
    """Let calls that had no rate when they were priced count by the last one known; tell whether there are any."""
    found = False
    for account, _, unit, _ in bounds:
        if prices is not None and 0 < unit < MONEY:
            account.unrated = prices.unrated(UNITS[unit], account.starts_s, account.spent, account.usd_nano)
            found = found or account.unrated > 0
    return found
