"""What the budget report says beside figures: whether each provider answers, where a key of it is configured."""

from collections.abc import Iterable, Mapping

from tollmeter.producers.fallback.native import Target
from tollmeter.producers.fallback.probe import KNOWN, address_in, ask, key_in
from tollmeter.settings import Settings

TIMEOUT_S = 10.0


def answers(settings: Settings, providers: Iterable[str], environment: Mapping[str, str]) -> list[str]:
    """Ask each of these providers whose key is in the environment for one word; return a line for each.

    The calls are metered, for the organisation of TOLLMETER_ORG, as operation `probe`. Never raises.
    """
    named = set(providers)
    return [
        _line(settings, name, environment)
        for name, known in KNOWN.items()
        if named & {name, known.provider} and known.variables and key_in(known, environment)
    ]


def _line(settings: Settings, name: str, environment: Mapping[str, str]) -> str:
    known = KNOWN[name]
    try:
        url = address_in(name, known, environment)
        target = Target(known.speaks, url, key_in(known, environment), known.provider)
    except ValueError as error:
        return f"provider {known.provider} was not asked: {error}"
    found = ask(settings, target, known.model, TIMEOUT_S, settings.org)
    if not found["reachable"]:
        said = " ".join(str(found["error"]).split())[:200]
        return f"provider {known.provider} does not answer: {said}"
    tokens = f"{found['input_tokens']:,} tokens in, {found['output_tokens']:,} out"
    return f"provider {known.provider} answers: {found['model']}, {tokens}, {found['latency_ms']:,} ms"
