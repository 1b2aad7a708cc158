"""How much a run tries: a commit's share, or the long form that `-m nightly` selects.

A commit's run tries the same examples each time, so that it fails for what was changed; new ones are drawn at night.
A test whose long form is another parameter is marked `nightly` there; a law has `examples(count)`, or as many as
hypothesis gives it. No law has a deadline: how long an example takes says how busy the machine is.
"""

from hypothesis import HealthCheck, settings

LONG = 20
"""So many times as many examples has a law at night."""
_USUAL = 100

_wanted = {"factor": 1}


def prepare(*, long: bool) -> None:
    """Set what the laws try that are loaded from now on."""
    _wanted["factor"] = LONG if long else 1
    settings.register_profile(
        "tollmeter",
        max_examples=examples(_USUAL),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        derandomize=not long,
    )
    settings.load_profile("tollmeter")


def examples(count: int) -> int:
    """Return how many examples a law tries that has `count` in a commit's run."""
    return count * _wanted["factor"]
