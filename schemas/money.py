"""Money is an integer with its unit in the name; it is rounded in one place, once, half to even.

pico = 1e-12 USD per unit (rates), nano = 1e-9 USD (amounts), micro = 1e-6 of a policy's currency (limits).
"""

from decimal import ROUND_HALF_EVEN, Decimal

PICO_PER_USD = 10**12
NANO_PER_USD = 10**9
NANO_PER_MICRO = 1_000
MAX_EVENT_NANO = 10**12
"""No single call costs more than 1,000 USD; beyond it an event is INVALID, so that sums of Int64 cannot wrap."""

FX_COLUMNS = ("day", "currency", "usd_per_unit", "units_per_usd", "source")
"""The columns of a file of exchange rates."""


def round_half_even(numerator: int, denominator: int) -> int:
    """Return numerator / denominator as the nearest integer, ties to the even one. `denominator` must be positive."""
    quotient, rest = divmod(numerator, denominator)
    doubled = 2 * rest
    return quotient + (doubled > denominator or (doubled == denominator and quotient % 2 == 1))


def nano_to_text(nano: int | None, places: int = 4) -> str:
    """Show an amount with `places` decimals, half to even; unknown is an em dash, never 0."""
    if nano is None:
        return "—"
    step = Decimal(1).scaleb(-places)
    return f"{(Decimal(nano) / NANO_PER_USD).quantize(step, ROUND_HALF_EVEN):,f}"


def limit_text(nano: int) -> str:
    """Show a limit as it was set: two decimals, or as many as it has. Rounded, one of half a cent reads as nothing."""
    places = 2
    while nano % 10 ** (9 - places):
        places += 1
    return nano_to_text(nano, places)


def used_text(nano: int) -> str:
    """Show an amount with two decimals, a small one with as many as it needs: 4.10, 0.0032."""
    return nano_to_text(nano, 2 if not nano or abs(nano) >= 10**8 else 4 if abs(nano) >= 10**5 else 9)
