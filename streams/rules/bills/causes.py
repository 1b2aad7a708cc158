"""What a difference likely means, and what to do next, in words for whoever pays the bill."""

from decimal import Decimal
from typing import NamedTuple

from tollmeter.streams.rules.bills.compare import Difference

FACTORS = (
    (Decimal(100), "100 times ours: cents read as dollars?"),
    (Decimal("0.01"), "a hundredth of ours: dollars read as cents?"),
    (Decimal("0.5"), "half of ours: billed as batch or flex, and the calls do not say so"),
    (Decimal(2), "twice ours: billed without the batch or flex discount, or at a priority tier"),
    (Decimal("1.1"), "1.1 times ours: a regional endpoint"),
)
NEAR = Decimal("0.004")


class Words(NamedTuple):
    """Likely cause and next step."""

    cause: str
    step: str


CAUSES = {
    "unknown_key": Words(
        "calls on key {key}, which no call of ours names: a shadow or leaked key, or one that is not mapped yet",
        "ask who made {key}: revoke it, or name it with 'tollmeter reconcile --key {key}=OUR_KEY_ID'",
    ),
    "unmetered": Words(
        "a service uses {what} without the meter",
        "find the service that calls {what} and put the meter in front of it",
    ),
    "more_requests": Words(
        "the provider counts more requests than we do: a service uses {what} without the meter",
        "find the second user of {what}, or import its log with 'tollmeter import'",
    ),
    "failed": Words(
        "calls that failed are in our ledger with tokens, and the provider does not bill them",
        "look at the calls: 'tollmeter correct EVENT_ID --set input_tokens=0 --set output_tokens=0'",
    ),
    "not_on_bill": Words(
        "the bill lacks these calls: another account of the provider pays them, or the bill is not complete",
        "import the bill of the other account, or fetch this day again",
    ),
    "units": Words(
        "searches, images or other units that we priced and the bill does not show",
        "import the provider's usage report of these units",
    ),
    "rate": Words(
        "the same tokens at another rate: {rates}",
        "compare with 'tollmeter prices show {model}'; a contract's rate goes into the override file, then 'reprice'",
    ),
    "unpriced": Words(
        "our price book knows no price for {model}: the calls count as unknown",
        "add a price for {model} to the override file, then 'reprice'",
    ),
    "cache_share": Words(
        "the same tokens, but the provider counts another share of them as cached",
        "check whether the service reads the cache counters of the answers: 'tollmeter quote FILE' shows what is read",
    ),
    "no_counts": Words(
        "the bill has no token counts: other use or another rate ({rates})",
        "import the provider's usage report of these days",
    ),
    "rounding": Words("amounts are rounded", "nothing to do"),
    "earlier": Words(
        "calls just after midnight that the provider counts on the day before",
        "nothing to do: over both days it cancels out",
    ),
    "later": Words(
        "calls just before midnight that the provider counts on the day after",
        "nothing to do: over both days it cancels out",
    ),
    "open": Words(
        "the provider had not finished the day when the bill was fetched",
        "fetch and import the bill again two days after {day}",
    ),
    "aborted": Words(
        "streams that broke off, time-outs and retries: the provider bills what we could not see",
        "look at the calls; 'tollmeter correct EVENT_ID --set output_tokens=N' writes in what was billed",
    ),
    "same_requests": Words(
        "the same requests with more tokens than their answers told us",
        "check with 'tollmeter quote FILE' that the usage of these answers is read in full",
    ),
    "estimates_high": Words(
        "usage that we estimated, because the answer did not state it, is higher than what was billed",
        "look at the calls; let streams include their usage",
    ),
    "item": Words(
        "{item}: a fee that no call of ours shows",
        "book it as a fee; web searches and code sessions can be metered as extra units of a call",
    ),
    "credit": Words("{item}: a credit or discount on the bill", "book it beside the calls"),
}


def words(one: Difference) -> Words:
    """Return cause and next step of a difference."""
    known = CAUSES[one.cause]
    parts = {
        "key": one.cell.key or "(no key)",
        "model": one.cell.model or "the model",
        "what": " on key ".join(name for name in (one.cell.model, one.cell.key) if name) or "the provider",
        "day": f"{one.cell.day}",
        "item": one.item,
        "rates": _rates(one),
    }
    return Words(known.cause.format(**parts), known.step.format(**parts))


def _rates(one: Difference) -> str:
    if not one.theirs_usd or not one.expected_usd:
        return "no comparison is possible"
    ratio = one.theirs_usd / one.expected_usd
    for factor, text in FACTORS:
        if abs(ratio / factor - 1) < NEAR:
            return text
    return f"{ratio:.4f} times ours"
