"""Rules about models are rows of the compacted topic that guards read; what their names stand for is said when set."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from tollmeter.admin.names import identity, is_known
from tollmeter.broker.policies import Change, entries, write
from tollmeter.broker.unreadable import readable
from tollmeter.producers.guard.models import names_of
from tollmeter.producers.guard.prices import Prices, load_prices
from tollmeter.schemas.model_rules import ANY, ModelRule, allowed_form
from tollmeter.schemas.names import without_date
from tollmeter.settings import Settings
from tollmeter.streams.rules.limits.models import Holding, Verdict, allowed_by_all, holding, judge

Document = dict[str, object]


class Resolved(NamedTuple):
    """A rule with its names as calls are known by; what was written otherwise, and what the price book lacks."""

    rule: ModelRule
    meant: Mapping[str, str]
    unknown: Sequence[str]

    @property
    def document(self) -> Document:
        """The rule as it is shown to whoever set it."""
        return {**shown(self.rule), "meant": dict(self.meant), "unknown": list(self.unknown)}


def resolved(settings: Settings, rule: ModelRule, written: Sequence[str]) -> Resolved:
    """Return the rule under the names of the price book in use. Raises `OverridesError` or `FxError` for a wrong file.

    A name that the book lacks may be right (a deployment, a model of one's own): it is kept, and named in `unknown`.
    """
    meant = {name: _by_book(settings, allowed_form(name)) for name in written}
    asked = [*written, *([rule.downgrade_to] if rule.downgrade_to else [])]
    unknown = [name for name in dict.fromkeys(asked) if name.strip() != ANY and not is_known(settings, name)]
    other = {name: known for name, known in meant.items() if known != name}
    return Resolved(rule.model_copy(update={"allowed": tuple(dict.fromkeys(meant.values()))}), other, unknown)


def _by_book(settings: Settings, name: str) -> str:
    """Return the book's name; a version stays one, and so does every model."""
    return name if name == ANY or without_date(name) else identity(settings, "", name).model or name


def put(settings: Settings, rule: ModelRule) -> None:
    """Return when the rule is on the log, in place of any of its scope. Raises `PolicyError`."""
    write(settings, [rule_set(rule)])


def rule_set(rule: ModelRule) -> Change:
    """Return the change that puts a rule in force, in place of any of its scope."""
    return Change(rule.org_id, rule.key.encode(), rule.model_dump_json().encode())


def take_away(settings: Settings, rule: ModelRule) -> bool:
    """Return when the rule of that scope is gone, and whether there was one. Raises `PolicyError`."""
    there = rule.key.encode() in entries(settings)
    write(settings, [Change(rule.org_id, rule.key.encode(), None)])
    return there


def model_rules(settings: Settings, org: str | None = None) -> list[ModelRule]:
    """Return all rules in order of their keys. Raises `PolicyError`."""
    return [rule for rule in readable(entries(settings), ModelRule) if org in (None, rule.org_id)]


def shown(rule: ModelRule) -> Document:
    """Return a rule as --json and the server have it."""
    return {"rule": rule.key, **rule.model_dump(mode="json")}


class Call(NamedTuple):
    """What a call says of itself; `groups` are all of the user's."""

    user: str = ""
    groups: Collection[str] = ()
    api_key: str = ""
    provider: str = ""
    model: str = ""


class Explained(NamedTuple):
    """Which rules hold for a call, and what becomes of the model that it names. `verdict` None: it names none."""

    held: Holding
    model: str
    verdict: Verdict | None

    @property
    def said(self) -> str:
        """The verdict in a word; "" without one."""
        found = self.verdict
        return "" if found is None else "downgraded" if found.instead else "refused" if found.broken else "allowed"

    @property
    def document(self) -> Document:
        """The same as --json and assistants have it. `allowed` null: no rule holds."""
        found = self.verdict or Verdict()
        return {
            "allowed": list(allowed_by_all(self.held.rules)) if self.held.rules else None,
            "rules": [shown(rule) for rule in self.held.rules],
            "lost": [{"rule": rule.key, "reason": "own_rule"} for rule in self.held.lost],
            "model": self.model or None,
            "verdict": self.said or None,
            "downgrade_to": found.instead or None,
            "refused_by": [rule.key for rule in found.broken],
        }

    @property
    def lines(self) -> list[str]:
        """The same in sentences; none where no rule holds."""
        if not self.held.rules:
            return []
        by = ", ".join(rule.key for rule in self.held.rules)
        lines = [
            f"models allowed by {by}: {', '.join(allowed_by_all(self.held.rules)) or 'none that all of them allow'}"
        ]
        lines += [f"{rule.key} does not hold: the user's own rule wins whole" for rule in self.held.lost]
        if self.verdict is not None:
            broken = ", ".join(rule.key for rule in self.verdict.broken)
            to = f" to {self.verdict.instead}" if self.verdict.instead else ""
            because = f" by {broken}" if broken else ""
            lines.append(f"model {self.model} is {self.said}{to}{because}")
        return lines


def explained(settings: Settings, rules: Sequence[ModelRule], call: Call) -> Explained:
    """Say which rules of one organisation hold for a call, and what becomes of its model."""
    held = holding(rules, call.user, call.groups, call.api_key)
    if not call.model:
        return Explained(held, "", None)
    prices = prices_of(settings)

    def names(model: str) -> frozenset[str]:
        return names_of(prices, call.provider, model)

    verdict = judge(held.rules, call.model, (), names, lambda model: prices.sells(call.provider, model))
    return Explained(held, call.model, verdict)


def prices_of(settings: Settings) -> Prices:
    """Return the prices as guards have them: names are compared by the same rules."""
    from tollmeter.streams.price.book.book import load  # the help of a command needs no price book
    from tollmeter.streams.price.book.publish import document

    return load_prices(document(load(settings))[1], lambda: int(time.time()))
