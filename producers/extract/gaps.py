"""What a total holds and its parts leave out: reasoning where the model is known for it, else tokens unexplained."""

from typing import NamedTuple

from tollmeter.producers.extract.usage import UNEXPLAINED_TOKENS


class Explained(NamedTuple):
    """Output with reasoning in it, reasoning, and what nobody can explain."""

    output: int
    reasoning: int
    extra: dict[str, float]


def explain(model: str, provider: str, total: int, input_: int, output: int, reasoning: int) -> Explained:
    """Return the output that a total of OpenAI's shape implies."""
    gap = total - input_ - output
    if reasoning > output or (reasoning and gap == reasoning):
        return Explained(output + reasoning, reasoning, {})  # they lie outside: xAI, Gemini through gateways
    if gap <= 0:
        return Explained(output, reasoning, {})
    if provider == "x-ai" and reasoning:
        # xAI leaves reasoning out of completion_tokens: https://docs.x.ai/docs/guides/reasoning (2026-11-29)
        return Explained(output + reasoning, reasoning, _unexplained(gap - reasoning))
    if provider == "google" or "gemini" in model.lower():
        # the total of Gemini holds its thoughts: https://ai.google.dev/gemini-api/docs/openai (2026-11-29)
        return Explained(output + gap, reasoning + gap, {})
    return Explained(output, reasoning, _unexplained(gap))


def _unexplained(gap: int) -> dict[str, float]:
    return {UNEXPLAINED_TOKENS: float(gap)} if gap > 0 else {}
