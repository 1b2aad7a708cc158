"""A company's November at one provider, call by call, and the bill that the provider makes of it: differences put in on
purpose, of all nine kinds, each with the amount that it is.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

METERS = ("input", "cache_read", "cache_write", "output")
FIRST, DAYS = date(2026, 11, 1), 30
FETCHED = datetime(2026, 12, 1, 1, tzinfo=UTC)
"""The bill is fetched so early that its last two days are open."""
OPEN = {date(2026, 11, 29), date(2026, 11, 30)}
ITEMS = {"input": "input", "cache_read": "cached input", "cache_write": "cache write", "output": "output"}
RATES = {  # nano-USD per token: openai.com/api/pricing, anthropic.com/pricing
    "gpt-4o": (2_500, 1_250, 0, 10_000),
    "gpt-4o-mini": (150, 75, 0, 600),
    "gpt-4.1": (2_000, 500, 0, 8_000),
    "o3": (2_000, 500, 0, 8_000),
}
KINDS = (
    "provider_only",
    "ours_only",
    "price",
    "rounding",
    "day_border",
    "late",
    "retries_aborted",
    "fee",
)
Place = tuple[str, date, str]
"""Kind, day, key ("" where a kind names none)."""


@dataclass(frozen=True)
class Call:
    """One call as one side knows it; `day` is the one it is counted on."""

    at: datetime
    key: str
    model: str
    tokens: tuple[int, int, int, int]
    status: str = "OK"
    usage: str = "PROVIDER"
    day: date = FIRST

    @property
    def nano(self) -> int:
        return sum(count * rate for count, rate in zip(self.tokens, RATES[self.model], strict=True))


@dataclass
class November:
    """Both sides, and what was put in: USD by kind, day and key, theirs minus ours."""

    ours: list[Call] = field(default_factory=list)
    theirs: list[Call] = field(default_factory=list)
    fees: list[tuple[date, str, Decimal]] = field(default_factory=list)
    factors: dict[tuple[str, date], Decimal] = field(default_factory=dict)
    """The provider's rate as a multiple of ours, by model and day."""
    places: int = 12
    """Decimals of the bill's amounts."""
    truth: dict[Place, Decimal] = field(default_factory=lambda: defaultdict(Decimal))

    def put(self, kind: str, call: Call, sign: int) -> None:
        self.truth[kind, call.day, call.key] += sign * Decimal(call.nano) / 10**9


def november(seed: int, kinds: tuple[str, ...] = KINDS, calls: int = 4_000) -> November:
    """Return a month with these kinds of differences; the same for the same seed."""
    rng = random.Random(f"november-{seed}")
    keys = [f"{rng.getrandbits(32):08x}" for _ in range(rng.randint(3, 7))]
    made = November(places=rng.choice((2, 4, 6, 9)) if "rounding" in kinds else 12)
    uses = {key: rng.sample(sorted(RATES), rng.randint(1, 3)) for key in keys}
    all_calls = [_call(rng, key, rng.choice(uses[key])) for key in rng.choices(keys, k=calls)]
    free = [(key, FIRST + timedelta(days=number)) for key in keys for number in range(0, DAYS - 3, 3)]
    rng.shuffle(free)
    taken: dict[tuple[str, date], str] = {}
    for kind in ("ours_only", "day_border", "retries_aborted", "more"):
        if kind in kinds or (kind == "more" and "provider_only" in kinds):
            for _ in range(rng.randint(1, 3)):
                if free:
                    taken[free.pop()] = kind
    for call in all_calls:
        _both(rng, made, call, taken.get((call.key, call.day), ""), late="late" in kinds)
    if "day_border" in kinds:
        _borders(rng, made, taken, uses)
    if "provider_only" in kinds:
        _shadow(rng, made, taken, uses)
    if "price" in kinds:
        _price(rng, made, uses)
    if "fee" in kinds:
        for _ in range(rng.randint(1, 4)):
            usd = Decimal(rng.randint(1, 4_000)) / 100 * rng.choice((1, 1, 1, -1))
            day = FIRST + timedelta(days=rng.randrange(DAYS))
            made.fees.append((day, rng.choice(("web search", "code interpreter", "file storage")), usd))
            made.truth["fee", day, ""] += usd
    return made


def _call(rng: random.Random, key: str, model: str) -> Call:
    at = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange(DAYS * 86_400))
    tokens = (rng.randint(200, 40_000), rng.choice((0, 0, 5_000)), 0, rng.randint(1, 4_000))
    return Call(at, key, model, tokens, day=at.date())


def _both(rng: random.Random, made: November, call: Call, kind: str, *, late: bool) -> None:
    """Put a call on both sides, or where its kind of difference has it."""
    mine, other = call, call
    if late and call.day in OPEN and rng.random() < 0.4:
        made.ours.append(call)
        made.put("late", call, -1)
        return
    if kind == "ours_only" and rng.random() < 0.3:
        made.ours.append(replace(call, status=_failed(call), usage="PROVIDER"))
        made.put("ours_only", call, -1)
        return
    if kind == "retries_aborted" and rng.random() < 0.3:
        mine = replace(call, status="CANCELLED", usage="ESTIMATED", tokens=(*call.tokens[:3], call.tokens[3] // 4))
        made.put("retries_aborted", other, 1)
        made.put("retries_aborted", mine, -1)
    made.ours.append(mine)
    made.theirs.append(other)


def _failed(call: Call) -> str:
    """Half of the days: failed calls that we counted; else another account's."""
    return "ERROR" if call.day.toordinal() % 2 else "OK"


def _borders(
    rng: random.Random, made: November, taken: dict[tuple[str, date], str], uses: dict[str, list[str]]
) -> None:
    """Calls that begin before midnight and end after it: ours on one day, theirs on the next."""
    for key, day in [place for place, kind in taken.items() if kind == "day_border"]:
        model = rng.choice(uses[key])
        for _ in range(rng.randint(1, 6)):
            at = datetime(day.year, day.month, day.day, 23, 59, rng.randrange(60), tzinfo=UTC)
            call = replace(_call(rng, key, model), at=at, day=day)
            moved = replace(call, day=day + timedelta(days=1))
            made.ours.append(call)
            made.theirs.append(moved)
            made.put("day_border", call, -1)
            made.put("day_border", moved, 1)


def _shadow(rng: random.Random, made: November, taken: dict[tuple[str, date], str], uses: dict[str, list[str]]) -> None:
    """Calls that only the provider knows: on a key that nobody here has, and on a known one."""
    places = [("key_shadow", FIRST + timedelta(days=rng.randrange(DAYS))) for _ in range(rng.randint(1, 5))]
    for key, day in [*places, *(place for place, kind in taken.items() if kind == "more")]:
        for _ in range(rng.randint(3, 40)):
            model = rng.choice(uses.get(key, sorted(RATES)))
            call = replace(_call(rng, key, model), day=day)
            made.theirs.append(call)
            made.put("provider_only", call, 1)


def _price(rng: random.Random, made: November, uses: dict[str, list[str]]) -> None:
    """Another rate for one model from a day on: the truth is the difference of rates times their tokens."""
    model = rng.choice(sorted({name for names in uses.values() for name in names}))
    factor = rng.choice((Decimal("0.5"), Decimal("1.1"), Decimal("0.8"), Decimal(2)))
    begin = FIRST + timedelta(days=rng.randrange(5, 25))
    made.factors = {(model, begin + timedelta(days=number)): factor for number in range(rng.randint(2, 5))}
    known = {(call.key, call.model, call.day) for call in made.ours}
    for call in made.theirs:
        share = made.factors.get((call.model, call.day))
        if share is not None:
            # a cell that is theirs alone costs what they charge
            alone = (call.key, call.model, call.day) not in known
            place = ("provider_only" if alone else "price", call.day, call.key)
            made.truth[place] += Decimal(call.nano) / 10**9 * (share - 1)


def usage_page(made: November) -> dict[str, Any]:
    """Return the month as OpenAI's usage report by key and model."""
    counts: dict[tuple[date, str, str], list[int]] = defaultdict(lambda: [0] * 5)
    for call in made.theirs:
        total = counts[call.day, call.key, call.model]
        for place, count in enumerate(call.tokens):
            total[place] += count
        total[4] += 1
    results: dict[date, list[dict[str, Any]]] = defaultdict(list)
    for (day, key, model), (fresh, read, write, output, requests) in counts.items():
        results[day].append(
            {
                "object": "organization.usage.completions.result",
                "input_tokens": fresh + read + write,
                "input_cached_tokens": read,
                "input_cache_write_tokens": write,
                "output_tokens": output,
                "num_model_requests": requests,
                "project_id": f"proj_{key[:4]}",
                "api_key_id": key,
                "model": f"{model}-2024-08-06" if model == "gpt-4o" else model,
            }
        )
    return _page(results)


def costs_page(made: November) -> dict[str, Any]:
    """Return the month as OpenAI's cost report by key and line item; the truth of rounding is noted on the way."""
    for place in [place for place in made.truth if place[0] == "rounding"]:
        del made.truth[place]
    exact: dict[tuple[date, str, str, str], Decimal] = defaultdict(Decimal)
    for call in made.theirs:
        factor = made.factors.get((call.model, call.day), Decimal(1))
        for meter, count, rate in zip(METERS, call.tokens, RATES[call.model], strict=True):
            if count and rate:
                exact[call.day, call.key, call.model, meter] += Decimal(count * rate) / 10**9 * factor
    results: dict[date, list[dict[str, Any]]] = defaultdict(list)
    for (day, key, model, meter), usd in exact.items():
        amount = usd.quantize(Decimal(1).scaleb(-made.places), ROUND_HALF_EVEN)
        if amount != usd:
            made.truth["rounding", day, key] += amount - usd
        results[day].append(_cost(key, f"{model}, {ITEMS[meter]}", amount))
    for day, item, usd in made.fees:
        results[day].append(_cost("", item, usd))
    return _page(results)


def _cost(key: str, item: str, usd: Decimal) -> dict[str, Any]:
    return {
        "object": "organization.costs.result",
        "amount": {"value": usd, "currency": "usd"},
        "line_item": item,
        "project_id": f"proj_{key[:4]}" if key else None,
        "api_key_id": key or None,
    }


def _page(results: dict[date, list[dict[str, Any]]]) -> dict[str, Any]:
    def buckets() -> Iterator[dict[str, Any]]:
        for number in range(DAYS):
            day = FIRST + timedelta(days=number)
            start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
            yield {"object": "bucket", "start_time": start, "end_time": start + 86_400, "results": results.get(day, [])}

    return {"object": "page", "data": list(buckets()), "has_more": False, "next_page": None}
