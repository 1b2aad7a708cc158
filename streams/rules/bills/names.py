"""How a bill's words for keys and models are brought to ours: by the book, by their words, and by what was used."""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal

from tollmeter.streams.rules.bills.cells import ZERO, Cell, Ours
from tollmeter.streams.rules.bills.lines import OTHER, PROMPT, TOKENS, Line

ALIKE = Decimal("0.6")
"""A key of the bill is one of ours when they share so much of their use, and no other pair shares as much."""
_WORDS = re.compile(r"[a-z]+|\d+")
_DATE = re.compile(r"[-@:]?(?:20\d{2}-?\d{2}-?\d{2}|v\d+:\d+)\b")
Profile = Mapping[tuple[object, ...], Decimal]


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
    free = [key for key in own if key and key not in found.values()]
    pairs = ((_share(theirs[ref], own[key]), ref, key) for ref in theirs.keys() - found.keys() for key in free)
    scores = sorted((pair for pair in pairs if pair[0] >= ALIKE), key=lambda pair: (-pair[0], *pair[1:]))
    guessed: dict[str, str] = {}
    for _, ref, key in scores:
        if ref not in guessed and key not in guessed.values():
            guessed[ref] = key
    return found | guessed, sorted(guessed)


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


def _share(theirs: Profile, own: Profile) -> Decimal:
    """Return how much of the larger of two uses both have in common, 0 to 1; of tokens where the bill counts any."""
    kind = "tokens" if any(name[0] == "tokens" for name in theirs) else "money"
    mine = {name: count for name, count in theirs.items() if name[0] == kind}
    meters = {name[-1] for name in mine} if kind == "tokens" else None
    dates: set[object] = {name[1] for name in mine}
    other = {
        name: count
        for name, count in own.items()
        if name[0] == kind and name[1] in dates and (meters is None or name[-1] in meters)
    }
    total = max(sum(mine.values(), ZERO), sum(other.values(), ZERO))
    common = sum((min(count, other.get(name, ZERO)) for name, count in mine.items()), ZERO)
    return common / total if total else ZERO


def renamed(lines: Iterable[Line], models: Mapping[str, str], keys: Mapping[str, str]) -> list[Line]:
    """Return the lines with our names."""
    return [
        line._replace(model=models.get(line.model, line.model), key_ref=keys.get(line.key_ref, line.key_ref))
        for line in lines
    ]
