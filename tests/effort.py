"""How much a run tries: a commit's share, or the long form that `-m nightly` selects.

A test whose long form is another parameter is marked `nightly` there; a law asks here how many examples it shall have.
"""

LONG = 20
"""So many times as many examples has a law at night."""

_wanted = {"long": False}


def lengthen() -> None:
    """Make the laws that are loaded from now on try their long form."""
    _wanted["long"] = True


def examples(count: int) -> int:
    """Return how many examples a law tries that has `count` in a commit's run."""
    return count * LONG if _wanted["long"] else count
