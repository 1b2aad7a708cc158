"""A cost that nobody can be named for is shared by those who can, in proportion; the shares are whole and add up.

The remainder that rounding leaves goes to the largest fractions, among equals by name: the same shares in any order.
"""

from collections.abc import Mapping


def allocate(weights: Mapping[str, int], shared_nano: int) -> dict[str, int]:
    """Return the share of each name in nano-units. Weights that are all zero share evenly; without names it is {}.

    Raises ValueError for a negative weight.
    """
    if any(weight < 0 for weight in weights.values()):
        raise ValueError("a weight below zero has no share")
    if not weights:
        return {}
    total = sum(weights.values())
    parts = weights if total else dict.fromkeys(weights, 1)
    total = total or len(parts)
    amount, sign = abs(shared_nano), -1 if shared_nano < 0 else 1
    shares = {name: amount * weight // total for name, weight in parts.items()}
    rest = amount - sum(shares.values())
    by_fraction = sorted(parts, key=lambda name: (-(amount * parts[name] % total), name))
    for name in by_fraction[:rest]:
        shares[name] += 1
    return {name: sign * share for name, share in shares.items()}
