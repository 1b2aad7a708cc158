"""Whose model is meant: the names that services write, matched by the price book's own rules, which travel with it."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from tollmeter.schemas.names import model_id, without_date
from tollmeter.streams.rules.pricing.model_names import provider_word, spellings, words

Test = Callable[[str], bool]
Key = tuple[str, str]
"""Provider and model id in the book."""

KEPT, LONGEST = 4_096, 512
"""So many answers about names are kept, of names no longer than that: services write few, strangers anything."""
_COMPACT_DATE = re.compile(r"^(.*)-(\d{4})(\d{2})(\d{2})$")


def test_of(clause: object) -> Test:
    """Return the test that a clause stands for: equals, starts_with, ends_with, contains, regex, or, and."""
    if not isinstance(clause, Mapping) or len(clause) != 1:
        raise ValueError(f"no such clause: {str(clause)[:80]}")
    ((kind, value),) = clause.items()
    if kind in ("or", "and"):
        tests = [test_of(part) for part in value]
        return (
            (lambda name: any(test(name) for test in tests))
            if kind == "or"
            else (lambda name: all(test(name) for test in tests))
        )
    if kind == "regex":
        pattern = re.compile(value)
        return lambda name: pattern.search(name) is not None
    text = value.lower()
    tests_of: dict[str, Test] = {
        "equals": lambda name: name.lower() == text,
        "starts_with": lambda name: name.lower().startswith(text),
        "ends_with": lambda name: name.lower().endswith(text),
        "contains": lambda name: text in name.lower(),
    }
    if kind not in tests_of:
        raise ValueError(f"no such clause: {kind}")
    return tests_of[kind]


class Seller:
    """One provider of the book: which names are its own, whose models it sells too."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.id = str(entry["id"])
        self.serves = re.compile(entry["host"]) if entry.get("host") else None
        self.makes = test_of(entry["makes"]) if entry.get("makes") else None
        self.sells_of: Sequence[str] = tuple(entry.get("sells_of", ()))
        self.models = [(str(model), test_of(clause)) for model, clause in entry.get("models", {}).items()]


class Catalogue:
    """Finds provider and model id of the book for the names of a call. A name that nobody knows stays unknown."""

    def __init__(self, entries: Sequence[dict[str, Any]], also_called: Mapping[str, str]) -> None:
        self.sellers = {seller.id: seller for seller in map(Seller, entries)}
        self._also_called = also_called
        self._found = lru_cache(KEPT)(self._find)
        self._makers = lru_cache(KEPT)(self._maker)
        self._identities = lru_cache(KEPT)(self._identity)

    def provider_at(self, host: str, stated: str, model: str) -> str:
        """Return the provider's id: whose host was called, whatever was stated; else as `provider` does."""
        plain = host.strip().lower().removeprefix("https://").removeprefix("http://")
        known = self.provider(stated, model)
        named = self.sellers.get(known) if stated.strip().lower() not in ("", "litellm") or "/" in model else None
        if plain and not (named and named.serves and named.serves.match(f"https://{plain}")):
            at = (one.id for one in self.sellers.values() if one.serves and one.serves.match(f"https://{plain}"))
            return next(at, known)
        return known

    def provider(self, stated: str, model: str) -> str:
        """Return the provider's id: as stated, else the model's maker; "" for neither."""
        name = self._named(stated)
        if name in ("", "litellm"):
            prefix = self._named(model.partition("/")[0])
            name = prefix if prefix in self.sellers else ""
        return name or self.maker(model)

    def _named(self, stated: str) -> str:
        return self._also_called.get(provider_word(stated), stated.strip().lower())

    def maker(self, model: str) -> str:
        """Return who makes a model; "" when its name does not say."""
        return self._makers(model) if len(model) <= LONGEST else self._maker(model)

    def _maker(self, model: str) -> str:
        name = (spellings(model, "") or [""])[-1]
        return next((seller.id for seller in self.sellers.values() if seller.makes and seller.makes(name)), "")

    def model(self, provider: str, name: str) -> tuple[Key | None, bool]:
        """Return the model of a name as the provider sells it, and whether only without the date of its version."""
        for form in self.forms(name, provider):
            if found := self._sold(provider, form):
                return found, False
        shorter = without_date((spellings(name, provider) or [""])[-1])
        return (self._sold(provider, shorter), True) if shorter else (None, False)

    def identity(self, provider: str, *names: str) -> str:
        """Return which model the line counts a call under: by its first name that is known, the answered one first."""
        short = sum(map(len, names)) <= LONGEST
        return self._identities(provider, *names) if short else self._identity(provider, *names)

    def _identity(self, provider: str, *names: str) -> str:
        def known(name: str) -> bool:
            sellers = dict.fromkeys((provider, self.maker(name)))
            return any(self.model(seller, name)[0] is not None for seller in sellers)

        def by_maker(name: str) -> str | None:
            found = self._sold(self.maker(name), name)
            return None if found is None else found[1]

        return model_id(names, known, by_maker)

    def forms(self, name: str, provider: str) -> list[str]:
        """Return the spellings of a name to look up, last the one without any other word for the seller in front."""
        forms = spellings(name, provider) or [""]
        first, _, rest = forms[-1].partition("/")
        return [*forms, rest] if rest and self._named(first) == provider else forms

    def _sold(self, provider: str, name: str) -> Key | None:
        return self._found(provider, name) if len(name) <= LONGEST else self._find(provider, name)

    def _find(self, provider: str, name: str) -> Key | None:
        seller = self.sellers.get(provider)
        if seller is None:
            return None
        dated = _COMPACT_DATE.sub(r"\1-\2-\3-\4", name)
        for form in dict.fromkeys((name, dated)):
            for owner in (provider, *seller.sells_of):
                for model, test in self.sellers[owner].models if owner in self.sellers else ():
                    if test(form):
                        return owner, model
        return None

    def family(self, provider: str, name: str, models: Sequence[Key]) -> list[Key]:
        """Return the book's nearest relatives of a name: those that share its first words, else all of the provider."""
        pool = provider if provider in self.sellers else self.maker(name)
        if not pool:
            return []
        owners = {pool, *self.sellers[pool].sells_of}
        own = words((spellings(name, provider) or [""])[-1])
        sold = [(key, words(key[1])) for key in models if key[0] in owners]
        for length in range(len(own), 0, -1):
            close = [key for key, known in sold if known[:length] == own[:length]]
            if close:
                return close
        return [key for key, _ in sold if key[0] == pool] if provider in self.sellers else []
