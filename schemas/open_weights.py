"""Models whose weights are open are sold by many, each in a spelling of his own; one name stands for one model.

Only what sellers document is here: other spellings of the same weights, and how they are served (quantised, as a
service). What two makers or sizes might share stays apart, and so do a base model and what was tuned from it.
"""

import re

_RULES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        # Fireworks writes a point as p: https://docs.fireworks.ai/models (2026-11-30)
        (r"((?:llama-v|qwen|deepseek-v|glm-|kimi-k|minimax-m)\d+)p(\d)(.*)", r"\1.\2\3"),
        # Meta-Llama-3.1-8B (Azure, Together), llama3-1-8b (Bedrock), llama-3-3-70b (watsonx, Databricks)
        (r"(?:databricks-)?(?:meta-)?llama-?v?(\d)[.-](\d)-(?!\d*e-)(.+)", r"llama-\1.\2-\3"),
        (r"(?:databricks-)?(?:meta-)?llama-?v?(\d)-(?!\d-)(.+)", r"llama-\1-\2"),
        # https://console.groq.com/docs/model/llama-3.3-70b-versatile and /llama-3.1-8b-instant (2026-11-30)
        (r"(llama-3\.[13]-\d+b)-(?:versatile|instant)", r"\1-instruct"),
        # of 3.3 there is one model, and it is tuned: https://github.com/meta-llama/llama-models (2026-11-30)
        (r"llama-3\.3-70b", "llama-3.3-70b-instruct"),
        (r"llama-4-scout(?:-17b)?(?:-16e)?-instruct(.*)", r"llama-4-scout-17b-16e-instruct\1"),
        (r"llama-4-maverick(?:-17b)?(?:-128e)?-instruct(.*)", r"llama-4-maverick-17b-128e-instruct\1"),
        # how the weights are served: Together's Turbo and Lite, Fireworks' basic, the precision, Vertex AI's service
        (r"(.+-instruct(?:-\d{4})?)(?:-(?:turbo|lite|basic|tput|fp8|fp16|bf16|hf))+", r"\1"),
        (r"(.+)-maas", r"\1"),
        (r"deepseek-chat-(v3.*)", r"deepseek-\1"),  # OpenRouter's name for what is published as DeepSeek-V3...
        (r"qwen-(\d.*)", r"qwen\1"),
        (r"gemma(\d)-(.+)", r"gemma-\1-\2"),
        (r"gpt-oss:(20b|120b)", r"gpt-oss-\1"),
        # there is one version of each: https://docs.mistral.ai/getting-started/models (2026-11-30)
        (r"(mixtral-8x(?:7|22)b-instruct)-v0\.1", r"\1"),
    )
)


def one_spelling(name: str) -> str:
    """Return the one spelling of a model's plain name; a name that is nobody's here as it is."""
    for pattern, form in _RULES:
        found = pattern.fullmatch(name)
        if found is not None:
            name = found.expand(form)
    return name
