"""What a call may cost, from the published price book alone: integer rates, plain Python, no table of models in here.

A name that the book lacks has the price that a second source states, PARTIAL. An unknown model costs as much as the
dearest of its family, else of its provider, else the default that the book states.
"""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from tollmeter.producers.guard.exchange import Exchange, InForce
from tollmeter.producers.guard.names import Catalogue, Key
from tollmeter.producers.guard.price_document import any_fits, conditional, conditional_names, exact_names
from tollmeter.producers.guard.price_rules import (
    Rule,
    Worst,
    cost_nano,
    days_of,
    read_rule,
    rule_at,
    tiers_at_most,
    worst_of,
)
from tollmeter.schemas.json_values import loads
from tollmeter.schemas.money import MAX_EVENT_NANO, round_half_even
from tollmeter.streams.rules.pricing.model_names import at_most_pct, tiers
from tollmeter.streams.rules.pricing.price_one import at_most_pico, without_price
from tollmeter.streams.rules.pricing.rates import DAY_SECONDS, LAST_DAY, SINGLE

REMEMBERED = 10_000


class Listing(NamedTuple):
    """How one model is priced: among the rules the last that fits wins."""

    rules: tuple[Rule, ...]
    relative: bool
    """Borrowed from a near relative: the name without its date."""
    dearest: tuple[Rule, ...]
    """Relatives, for what has no price; the last has the default for units that none of them prices."""
    worst: tuple[Worst, ...]
    """Of these the rates that an estimate can come to."""
    seller: str
    model_id: str
    tiers: Mapping[str, int]
    """What a listed tier makes of the standard price at most, in percent."""


class Quote(NamedTuple):
    """A price: `nano` None when nobody knows it; `at_risk_nano` is what it may be at most beyond that, as in PRICE."""

    nano: int | None
    status: str
    at_risk_nano: int | None = None
    rule_id: str = ""

    @property
    def worst_nano(self) -> int | None:
        """The price and what is at risk beside it; None where neither is known."""
        return self.at_risk_nano if self.nano is None else self.nano + (self.at_risk_nano or 0)


UNPRICED = Quote(None, "UNKNOWN_MODEL")


class Prices:
    """One price book. Immutable but for what it remembers; for any thread."""

    def __init__(self, document: dict[str, Any], now_s: Callable[[], int]) -> None:
        self.id = str(document["price_book"])
        self._now_s = now_s
        self._known: dict[Key, Listing] = {}
        self._hosts: dict[tuple[str, str, str], str] = {}
        self._models: dict[Key, list[Rule]] = {}
        self._tiers: dict[str, dict[Key, list[Rule]]] = {}
        self._patterns: list[tuple[str, tuple[str, ...], Rule]] = []
        """Who sells, which patterns a model's names must fit, and the rule."""
        names = document.get("names", {})
        listed = names.get("providers") or exact_names(document["rules"])
        self._catalogue = Catalogue(listed, names.get("also_called", {}))
        overrides = document.get("overrides", ())
        self._aliases = [alias for part in overrides for alias in part.get("aliases", ()) if not conditional(alias)]
        left_out = conditional_names(overrides)
        scaling = [rule for part in overrides for kind in ("fees", "factors") for rule in part.get(kind, ())]
        sold_by = {rule["name"]: rule.get("provider", "*") for rule in scaling}
        asks = {rule["name"]: rule.get("model", "*") for rule in scaling}
        for entry in document["rules"]:
            self._add(entry, left_out, sold_by, asks)
        self._listed: dict[Key, list[Rule]] = {}
        for provider, name, above, rates in document.get("listed", ()):
            rule_id = f"{SINGLE}:{provider}/{name}/standard"
            entry = {"rule_id": rule_id, "rate_pico": rates, "priced": list(rates), "above_input": above}
            self._listed.setdefault((provider, name), []).append(read_rule(entry))
        self._each: Mapping[str, int] = document.get("lacking", {})
        self._default = (read_rule(document["at_risk"]),) if "at_risk" in document else ()
        self._exchange = Exchange(document.get("fx", ()), document.get("fx_staleness"))

    def _add(
        self, entry: dict[str, Any], left_out: frozenset[str], sold_by: Mapping[str, str], asks: Mapping[str, str]
    ) -> None:
        rule = read_rule(entry)
        head, _, rest = rule.rule_id.partition(":")
        if head != "override":
            by_tier = self._models if not entry["context"] else self._tiers.setdefault(entry["context"], {})
            if not (entry["context"] and entry.get("partial")):
                by_tier.setdefault((entry["provider"], entry["model"]), []).append(rule)
            return
        names = rest.partition("/")[0].split("+")
        if entry["context"] in ("", "*") and not left_out.intersection(names):
            # a factor scales what a provider sells, also of other makers, whose name the scaled rule bears
            # and may ask for a name as it is sent, which no model of the book has
            named = entry["model"], *(asks[name] for name in names if name in asks)
            self._patterns.append((sold_by.get(names[-1], entry["provider"]), named, rule))

    def quote(self, provider: str, model: str, counts: Mapping[str, int], at_s: int | None = None) -> Quote:
        """Price reported counts (input_tokens, cache_read_tokens, output_tokens ...; inclusive) of one call."""
        listing = self._known.get((provider, model)) or self._listing(provider, model)
        tokens = counts.get("input_tokens", 0)
        has_tokens = tokens > 0 or counts.get("output_tokens", 0) > 0
        now = self._now_s() if at_s is None else at_s
        rule = rule_at(listing.rules, now, tokens, has_tokens)
        if rule is None or not (rule.free or rule.priced & {"requests", *(unit for unit, n in counts.items() if n)}):
            return _at_risk(listing.dearest, tokens, counts)
        if rule.free:
            return Quote(0, "FREE", rule_id=rule.rule_id)
        nano = cost_nano(rule.rates, counts)
        if not 0 <= nano <= MAX_EVENT_NANO:
            return Quote(None, "INVALID")
        lacking = without_price(rule.priced, [unit for unit, count in counts.items() if count])
        if not (lacking or listing.relative or rule.at_most_pct > 100):
            return Quote(nano, rule.status, rule_id=rule.rule_id)
        return Quote(nano, "PARTIAL", self._beyond(listing, rule, nano, counts, lacking), rule.rule_id)

    def _beyond(
        self, listing: Listing, rule: Rule, nano: int, counts: Mapping[str, int], lacking: Iterable[str]
    ) -> int | None:
        """Return what `price_one.beyond` does of a PARTIAL price."""
        more = -(-nano * (rule.at_most_pct - 100) // 100)
        if listing.relative and not rule.rule_id.startswith(SINGLE):
            worst = _at_risk(listing.dearest, counts.get("input_tokens", 0), counts)
            more = max(more, (worst.at_risk_nano or 0) - nano)
        pico = sum(counts[unit] * self._at_most(listing, rule, unit) for unit in lacking)
        return min(more + round_half_even(pico.numerator, pico.denominator * 1_000), MAX_EVENT_NANO) or None

    def _at_most(self, listing: Listing, rule: Rule, unit: str) -> int:
        known = max((relative.rates.get(unit, 0) for relative in listing.dearest), default=0)
        return at_most_pico(unit, rule.rates, {unit: known or self._each.get(unit, 0)})

    def estimate(
        self, provider: str, model: str, input_tokens: int, output_tokens: int, tier: str = ""
    ) -> tuple[int | None, str]:
        """Return `_estimate` under a tier that is asked for: at what it costs at most, where it is dearer."""
        nano, status = self._estimate(provider, model, input_tokens, output_tokens)
        asked = tiers(tier, "") if tier and nano else ()
        if not asked or nano is None:
            return nano, status
        listing = self._known.get((provider, model)) or self._listing(provider, model)
        listed = listing.tiers.get(asked[0])
        return -(-nano * max(listed or at_most_pct(asked), 100) // 100), status

    def _estimate(self, provider: str, model: str, input_tokens: int, output_tokens: int) -> tuple[int | None, str]:
        """Return nano-USD and price status of a call before it is made; the dearest relative's price where it has none.

        Unlike a quote it has no upper end: a cap must see how dear a call would be. A model that is priced by the image
        is expected to make one; what is priced by the second costs nothing that is known beforehand.
        """
        listing = self._known.get((provider, model)) or self._listing(provider, model)
        rules = listing.rules
        if rules:
            rule = rules[-1] if rules[-1].always else rule_at(rules, self._now_s(), input_tokens, True)
            if rule is not None:
                if rule.free:
                    return 0, "FREE"
                pico = input_tokens * rule.input_pico + output_tokens * rule.output_pico + rule.call_pico
                by_tokens = rule.input_pico or rule.output_pico  # else it bills seconds, or what else shows later
                if pico or not by_tokens or not (input_tokens or output_tokens):
                    whole = (pico or by_tokens) and (not output_tokens or "output_tokens" in rule.priced)
                    return (pico + 500) // 1_000, rule.status if whole and not listing.relative else "PARTIAL"
        return _worst_nano(listing.worst, input_tokens, output_tokens), "UNKNOWN_MODEL"

    def identity(self, provider: str, model: str) -> tuple[str, str]:
        """Return provider and model as the line counts calls with these names."""
        listing = self._known.get((provider, model)) or self._listing(provider, model)
        return listing.seller, listing.model_id

    def answered_as(self, provider: str, answered: str, sent: str) -> str:
        """Return the model that the line counts a call under whose answer names one; `provider` as it knows that."""
        return self._catalogue.identity(provider, answered, sent)

    def called(self, provider: str, model: str, host: str) -> str:
        """Return which provider the line counts a call to this host under: the host settles it, where it is known."""
        if not host:
            return provider
        found = self._hosts.get((provider, model, host))
        if found is None:
            if len(self._hosts) >= REMEMBERED:
                self._hosts = {}
            found = self._hosts[provider, model, host] = self._catalogue.provider_at(host, provider, model)
        return found

    def sells(self, provider: str, model: str) -> bool:
        """Say whether a provider may have a model of this name: not where another one makes it and nobody resells."""
        listing = self._known.get((provider, model)) or self._listing(provider, model)
        return bool(listing.rules) or self._catalogue.maker(model) in ("", listing.seller)

    def rates(self) -> Mapping[str, InForce]:
        """Return today's rate of each other currency; none where none is known: nothing can be set aside in it then."""
        return self._exchange.on(self._now_s() // DAY_SECONDS)

    def unrated(self, currency: str, since_s: int, spent: int, usd_nano: int) -> int:
        """Return what calls since then count that `spent` lacks for want of a rate (`Exchange.unrated`)."""
        return self._exchange.unrated(currency, since_s // DAY_SECONDS, self._now_s() // DAY_SECONDS, spent, usd_nano)

    def _listing(self, provider: str, model: str) -> Listing:
        seller = self._catalogue.provider(provider, model)
        owner, name = self._aliased(seller, model)
        key, relative = self._catalogue.model(owner, name)
        rules = [*self._models.get(key, ())] if key else []
        forms = {*self._catalogue.forms(model, seller), *((key[1],) if key else ())}
        # an override of the exact name stands before the book's reading of a shortened one
        own = [
            rule
            for of, named, rule in self._patterns
            if fnmatchcase(seller, of) and all(any_fits(forms, one) for one in named)
        ]
        single = () if own or (rules and not relative) else self._listed_as(seller, model)
        if single:
            rules, relative = [*single], True
        relatives = self._relatives(seller, model)
        found = Listing(
            (*rules, *own),
            relative and not own,
            relatives,
            worst_of(relatives),
            seller,
            self._catalogue.identity(seller, model),
            tiers_at_most(rules, {tier: models.get(key, ()) for tier, models in self._tiers.items()}) if key else {},
        )
        if len(self._known) >= REMEMBERED:
            self._known = {}
        self._known[provider, model] = found
        return found

    def _listed_as(self, seller: str, model: str) -> list[Rule]:
        forms = self._catalogue.forms(model, seller)
        return next((rules for form in forms if (rules := self._listed.get((seller, form)))), [])

    def _aliased(self, provider: str, model: str) -> Key:
        """Return whose model a name stands for: a rule's target, else the name itself."""
        today = self._now_s() // DAY_SECONDS
        forms = self._catalogue.forms(model, provider)
        for alias in reversed(self._aliases):
            first, last = days_of(alias)
            named = any(fnmatchcase(form, alias.get("model", "*")) for form in forms)
            if named and fnmatchcase(provider, alias.get("provider", "*")) and first <= today < last:
                target = forms[-1].rpartition("/")[2] if alias["to"] == "*" else str(alias["to"])
                return str(alias.get("to_provider") or provider), target
        return provider, model

    def _relatives(self, provider: str, model: str) -> tuple[Rule, ...]:
        keys = self._catalogue.family(provider, model, list(self._models))
        found = tuple(rule for key in keys for rule in self._models[key] if rule.days[1] == LAST_DAY)
        priced = {unit for rule in found for unit in rule.rates}
        return (*found, *(_without(rule, {*priced, "requests"}) if found else rule for rule in self._default))


def load_prices(value: bytes, now_s: Callable[[], int]) -> Prices:
    """Read a record of `usage.prices`. Raises `ValueError` for one that is no price book."""
    try:
        return Prices(loads(value), now_s)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no price book: {type(error).__name__} {error}") from None


def _without(rule: Rule, units: set[str]) -> Rule:
    """Return the rule for the other units alone."""
    return rule._replace(rates={unit: rate for unit, rate in rule.rates.items() if unit not in units})


def _at_risk(rules: tuple[Rule, ...], input_tokens: int, counts: Mapping[str, int]) -> Quote:
    if not any(counts.values()):
        return UNPRICED
    worst = max((cost_nano(rule.rates, counts) for rule in rules if input_tokens > rule.above_input), default=0)
    return UNPRICED._replace(at_risk_nano=min(worst, MAX_EVENT_NANO)) if worst else UNPRICED


def _worst_nano(rates: tuple[Worst, ...], input_tokens: int, output_tokens: int) -> int | None:
    """Return what `_at_risk` does of these tokens."""
    if not (input_tokens or output_tokens):
        return None
    pico = [
        input_tokens * rate.input_pico + output_tokens * rate.output_pico + rate.call_pico
        for rate in rates
        if input_tokens > rate.above_input
    ]
    return min(round_half_even(max(pico, default=0), 1_000), MAX_EVENT_NANO) or None
