"""How a bill's words for keys and models are brought to ours: by the book, by their words, and by what was used."""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

from tollmeter.streams.rules.bills.cells import ZERO, Cell, Ours
from tollmeter.streams.rules.bills.lines import OTHER, PROMPT, TOKENS, Line

ALIKE = Decimal("0.6")
"""A key of the bill is one of ours when they share so much of their use, and no other pair shares as much."""
NEAR = Decimal("0.01")
WITNESSES = 3
"""... and when so many of their days, models and meters agree within a hundredth: a stranger's may, one at a time."""
_WORDS = re.compile(r"[a-z]+|\d+")
_DATE = re.compile(r"[-@:]?(?:20\d{2}-?\d{2}-?\d{2}|v\d+:\d+)\b")
Profile = Mapping[tuple[object, ...], Decimal]
View = tuple[str, frozenset[object], frozenset[object]]


class Use(NamedTuple):
    """What of a key's use can be compared, and its sum."""

    counts: Profile
    total: Decimal


def model_names(lines: Iterable[Line], ours: Collection[str], book: Callable[[str], str]) -> dict[str, str]:
    """Return our name for each model of a bill: the book's if calls have it, else one of ours with its words."""
    names = {}
    for name in {line.model for line in lines if line.model}:
        known = book(name)
        names[name] = known if known in ours else _by_words(name, ours) or known or name
    return names


def _by_words(name: str, ours: Collection[str]) -> str:
    """Return the longest of our names all of whose words are in this one ("Claude4.6Sonnet" has those of ours)."""
    words = _words(name)
    found = [(len(own), own) for own in ours if own and (wanted := _words(own)) and _contains(words, wanted)]
    return max(found)[1] if found else ""


def _words(name: str) -> list[str]:
    return sorted(_WORDS.findall(_DATE.sub("", name.lower())))


def _contains(words: list[str], wanted: list[str]) -> bool:
    left = list(words)
    for word in wanted:
        if word not in left:
            return False
        left.remove(word)
    return True


def key_names(
    lines: Iterable[Line], ours: Mapping[Cell, Ours], stated: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Return our key for keys of a bill, and those recognised by their use alone.

    `stated` is what the user says, theirs to ours. Else the same name is the same key; else the pair that shares the
    most tokens (or money, where tokens are not billed by key) of day, model and meter, each side's best.
    """
    theirs = _billed(lines)
    own = _used(ours)
    found = {ref: key for ref, key in stated.items() if ref in theirs}
    found |= {ref: ref for ref in theirs if ref in own and ref not in found}
    free = {key: profile for key, profile in own.items() if key and key not in found.values()}
    left = {ref: profile for ref, profile in theirs.items() if ref not in found}
    guessed = _pairs(left, free)
    return found | guessed, sorted(guessed)


def _pairs(theirs: Mapping[str, Profile], own: Mapping[str, Profile]) -> dict[str, str]:
    """Return the pairs that share the most, each name once."""
    made = _equal(theirs, own)
    theirs = {ref: profile for ref, profile in theirs.items() if ref not in made}
    own = {key: profile for key, profile in own.items() if key not in made.values()}
    views: dict[View, dict[str, Use]] = {}
    scores = []
    for ref, billed in theirs.items():
        view = _view(billed)
        if view not in views:
            views[view] = {key: _seen(profile, view) for key, profile in own.items()}
        mine = _seen(billed, view)
        scores += [(_share(mine, other), ref, key) for key, other in views[view].items()]
    taken: set[str] = set()
    for score, ref, key in sorted(scores, key=lambda pair: (-pair[0], *pair[1:])):
        if score >= ALIKE and ref not in made and key not in taken:
            made[ref] = key
            taken.add(key)
    return made


def _billed(lines: Iterable[Line]) -> dict[str, Profile]:
    counts: dict[str, dict[tuple[object, ...], Decimal]] = defaultdict(lambda: defaultdict(lambda: ZERO))
    for line in lines:
        if not line.key_ref:
            continue
        profile = counts[line.key_ref]
        if line.meter in (*TOKENS, PROMPT) and line.quantity is not None:
            profile["tokens", line.day, line.model, line.meter] += line.quantity
        elif line.meter != OTHER and line.amount_usd is not None:
            profile["money", line.day, line.model] += line.amount_usd
    return dict(counts)


def _used(ours: Mapping[Cell, Ours]) -> dict[str, Profile]:
    counts: dict[str, dict[tuple[object, ...], Decimal]] = defaultdict(lambda: defaultdict(lambda: ZERO))
    for (key, model, day), own in ours.items():
        profile = counts[key]
        for meter, tokens in zip(TOKENS, own.tokens, strict=True):
            profile["tokens", day, model, meter] += tokens
        profile["tokens", day, model, PROMPT] += sum(own.tokens[:3])
        profile["money", day, model] += own.usd
    return dict(counts)


def _equal(theirs: Mapping[str, Profile], own: Mapping[str, Profile]) -> dict[str, str]:
    """Return the pairs of which nothing differs that can be compared: found without trying each with each."""
    seen: dict[View, dict[frozenset[object], list[str]]] = {}
    made: dict[str, str] = {}
    for ref, billed in theirs.items():
        view = _view(billed)
        if view not in seen:
            seen[view] = {}
            for key, profile in own.items():
                seen[view].setdefault(_signature(_seen(profile, view)), []).append(key)
        signature = _signature(_seen(billed, view))
        alike = seen[view].get(signature, [])
        if signature and len(alike) == 1 and alike[0] not in made.values():
            made[ref] = alike[0]
    return made


def _signature(use: Use) -> frozenset[object]:
    return frozenset((name, count) for name, count in use.counts.items() if count)


def _view(theirs: Profile) -> View:
    """Return what of two uses can be compared: tokens where the bill counts any, else money; its meters; its days."""
    kind = "tokens" if any(name[0] == "tokens" for name in theirs) else "money"
    names = [name for name in theirs if name[0] == kind]
    return kind, frozenset(name[3] for name in names if kind == "tokens"), frozenset(name[1] for name in names)


def _seen(profile: Profile, view: View) -> Use:
    kind, meters, days = view
    seen = {
        name: count
        for name, count in profile.items()
        if name[0] == kind and name[1] in days and (kind == "money" or name[3] in meters)
    }
    return Use(seen, sum(seen.values(), ZERO))


def _share(mine: Use, other: Use) -> Decimal:
    """Return how much of the larger of two uses both have in common, 0 to 1; 0 for what cannot be alike."""
    smaller, larger = sorted((mine.total, other.total))
    if not larger or smaller < ALIKE * larger:
        return ZERO
    pairs = [(count, other.counts[name]) for name, count in mine.counts.items() if name in other.counts]
    if sum(0 < max(pair) * (1 - NEAR) <= min(pair) for pair in pairs) < WITNESSES:
        return ZERO
    return sum(map(min, pairs), ZERO) / larger


def renamed(lines: Iterable[Line], models: Mapping[str, str], keys: Mapping[str, str]) -> list[Line]:
    """Return the lines with our names."""
    return [
        line._replace(model=models.get(line.model, line.model), key_ref=keys.get(line.key_ref, line.key_ref))
        for line in lines
    ]
