"""Which models a caller may use: rules of `usage.policies`, asked before anything else is reckoned with the model."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from tollmeter.producers.guard import refusals
from tollmeter.producers.guard.decision import Deny
from tollmeter.producers.guard.prices import Prices
from tollmeter.producers.guard.question import Question
from tollmeter.schemas.model_rules import ModelRule, spellings_of
from tollmeter.schemas.names import exact_model
from tollmeter.streams.rules.limits.models import Verdict, holding, judge

REMEMBERED, REMEMBERED_OF_ONE = 10_000, 16
GroupsOf = Callable[[str, str, Collection[str]], tuple[str, ...]]
"""Returns all groups of a user: (organisation, user, groups that the call names) -> names."""
_Caller = tuple[str, str, tuple[str, ...], str, bool]


class ModelView:
    """The rules and what was resolved from them. `apply` and `forget` are for one thread, `check` for any."""

    def __init__(self, groups_of: GroupsOf) -> None:
        self._groups_of = groups_of
        self._rules: dict[str, dict[str, ModelRule]] = {}
        self._org_of: dict[str, str] = {}
        self._known: dict[_Caller, _Held] = {}

    def __bool__(self) -> bool:
        return bool(self._org_of)

    def forget(self) -> None:
        """What was resolved no longer holds: a rule or a membership changed."""
        self._known = {}

    def apply(self, key: str, value: bytes | None) -> None:
        """Take over a row, or its end. Raises `ValueError` for one that cannot be read; then nothing changes."""
        rule = None if value is None else ModelRule.model_validate_json(value)
        gone = self._org_of.pop(key, None)
        if gone is not None:
            self._put(gone, key, None)
        if rule is not None:
            self._org_of[key] = rule.org_id
            self._put(rule.org_id, key, rule)
        self.forget()

    def _put(self, org: str, key: str, rule: ModelRule | None) -> None:
        """Put a new dict in place: another thread may be reading the old one."""
        rest = {known: one for known, one in self._rules.get(org, {}).items() if known != key}
        self._rules[org] = {**rest, key: rule} if rule is not None else rest

    def check(self, question: Question, prices: Prices | None) -> Deny | str:
        """Return the refusal; else the model to call instead, "" for the one that was asked."""
        held = self._held(question)
        if not held.rules:
            return ""
        provider, model = question.provider or "", question.model
        book, verdict = held.verdicts.get((provider, model), _UNHEARD)
        if verdict is None or book is not prices or question.models:
            verdict = judged(held.rules, question, prices)
            if not question.models:
                if len(held.verdicts) >= REMEMBERED_OF_ONE:
                    held.verdicts.clear()
                held.verdicts[provider, model] = prices, verdict
        if verdict.instead and question.downgrades:
            return verdict.instead
        return refusals.model_not_allowed(verdict, held.rules) if verdict.broken else ""

    def _held(self, question: Question) -> "_Held":
        known = self._known  # before the rules are read: what `forget` lets go of may hold what was before
        org, user = question.org or "", question.user or ""
        rules = self._rules.get(org)
        if not rules:
            return _FREE
        own_key = question.billing_scope == "USER"
        caller = (org, user, tuple(question.groups), question.api_key_id or "", own_key)
        found = known.get(caller)
        if found is None:
            groups = () if own_key else self._groups_of(org, user, caller[2])
            found = _Held(holding(rules.values(), user, groups, caller[3], own_key=own_key).rules, {})
            if len(known) >= REMEMBERED:
                known.clear()
            known[caller] = found
        return found


class _Held(NamedTuple):
    """The rules that hold for a caller, and what they said of each provider and model by which price book."""

    rules: tuple[ModelRule, ...]
    verdicts: dict[tuple[str, str], tuple[Prices | None, Verdict | None]]


_FREE = _Held((), {})
_UNHEARD: tuple[Prices | None, Verdict | None] = None, None


def judged(rules: Sequence[ModelRule], question: Question, prices: Prices | None) -> Verdict:
    """Judge a question by the rules that hold for it."""
    provider = question.provider or ""

    def names(model: str) -> frozenset[str]:
        return names_of(prices, provider, model)

    def sold(model: str) -> bool:
        return prices is None or prices.sells(provider, model)

    return judge(rules, question.model, question.models, names, sold)


def names_of(prices: Prices | None, provider: str, model: str) -> frozenset[str]:
    """Return every name by which rules know a model that is sent so to a provider; none for what is no name."""
    plain = spellings_of(model)
    if prices is None or not plain:
        return plain
    by_book = (prices.identity(provider, model)[1], prices.identity("", exact_model(model))[1])
    return plain.union(name for name in by_book if name)
