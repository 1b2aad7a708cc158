"""Which rules about models hold for a call, and what follows: it passes, is made with another model, or is refused.

A key's rule always holds. A user's own rule wins whole over those of the organisation and his groups, as with limits;
without one all of those hold. A call must be allowed by every rule that holds, and so must what it is downgraded to.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from tollmeter.schemas.model_rules import ANY, ModelRule, spellings_of

Names = Callable[[str], frozenset[str]]
"""Returns every name by which rules know a model that is sent so; none for what is no name."""


class Holding(NamedTuple):
    """The rules that a call must meet, the key's first; and those that a user's own rule stands in place of."""

    rules: tuple[ModelRule, ...] = ()
    lost: tuple[ModelRule, ...] = ()


class Verdict(NamedTuple):
    """`broken` are the rules that do not allow the call. With `instead` it may be made with that model."""

    broken: tuple[ModelRule, ...] = ()
    instead: str = ""
    model: str = ""
    """The name that is not allowed, as it was sent; "" for one that cannot be read."""


def holding(
    rules: Iterable[ModelRule], user: str, groups: Collection[str], api_key: str, *, own_key: bool = False
) -> Holding:
    """Return which rules of an organisation hold. A call on the user's own key meets its key's rule alone."""
    found: dict[str, list[ModelRule]] = {"api_key": [], "user": [], "group": [], "org": []}
    for rule in sorted(rules, key=lambda rule: rule.key):
        named = {"api_key": rule.name == api_key, "user": rule.name == user, "group": rule.name in groups, "org": True}
        if named[rule.scope]:
            found[rule.scope].append(rule)
    keys, own, shared = found["api_key"], found["user"], [*found["group"], *found["org"]]
    if own_key:
        return Holding(tuple(keys))
    return Holding((*keys, *(own or shared)), tuple(shared if own else ()))


def judge(
    rules: Sequence[ModelRule], model: str, others: Iterable[str], names: Names, sold: Callable[[str], bool]
) -> Verdict:
    """Judge a call by the rules that hold for it. `others` are further models that it names: each must be allowed.

    Downgraded is only what every broken rule wants downgraded, to the first of their targets that all rules allow and
    that is `sold` where the call goes; nothing is downgraded twice.
    """
    for other in others:
        broken = _broken(rules, names(other))
        if broken:
            return Verdict(broken, "", other)
    broken = _broken(rules, names(model))
    targets = [rule.downgrade_to for rule in broken] if model.strip() and all(r.downgrade_to for r in broken) else []
    instead = next((one for one in targets if sold(one) and not _broken(rules, names(one))), "")
    return Verdict(broken, instead, model)


def allowed_by_all(rules: Sequence[ModelRule]) -> tuple[str, ...]:
    """Return the names that every rule allows, in the order of the first that names them."""
    named = dict.fromkeys(entry for rule in rules for entry in rule.allowed)
    met = [entry for entry in named if entry != ANY and not _broken(rules, spellings_of(entry))]
    everything = all(ANY in rule.allowed for rule in rules)
    return (ANY,) if everything else tuple(met)


def _broken(rules: Iterable[ModelRule], names: frozenset[str]) -> tuple[ModelRule, ...]:
    return tuple(rule for rule in rules if not rule.meets(names))
