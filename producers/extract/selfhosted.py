"""Servers of one's own and of Hugging Face: Ollama, Text Generation Inference, and embedding services with one count.

Where their documentation puts usage: https://github.com/ollama/ollama/blob/main/docs/api.md,
https://huggingface.github.io/text-generation-inference and https://docs.voyageai.com/reference (read 2026-11-29).
"""

from tollmeter.producers.extract.totals import usage_of
from tollmeter.producers.extract.usage import UNEXPLAINED_TOKENS, Counts, Usage, get, items

OLLAMA = ("prompt_eval_count", "eval_count")
LLAMA_CPP = ("tokens_evaluated", "tokens_predicted")
GENERATED = "details.generated_tokens"
"""Of /generate; the last event of /generate_stream has it too, with `input_length`."""


def is_ollama(body: object) -> bool:
    return get(body, *OLLAMA) is not None


def ollama(body: object, _provider: str) -> Usage:
    counts = Counts(body)
    return usage_of(
        counts,
        input_tokens=counts.take(OLLAMA[0]),
        output_tokens=counts.take(OLLAMA[1]),
        operation="embeddings" if get(body, "embeddings", "embedding") is not None else "chat",
    )


def is_llama_cpp(body: object) -> bool:
    return get(body, *LLAMA_CPP) is not None


def llama_cpp(body: object, _provider: str) -> Usage:
    """llama.cpp's own /completion: https://github.com/ggml-org/llama.cpp, tools/server/README.md (2026-11-30)."""
    counts = Counts(body)
    return usage_of(counts, input_tokens=counts.take(LLAMA_CPP[0]), output_tokens=counts.take(LLAMA_CPP[1]))


def is_tgi(body: object) -> bool:
    return get(body, GENERATED) is not None


def tgi(body: object, _provider: str) -> Usage:
    """The prompt's tokens are counted only where they were asked for (`decoder_input_details`)."""
    counts = Counts(body)
    best = [Counts(other) for other in items(body, "details.best_of_sequences")]
    output = counts.take(GENERATED) + sum(other.take("generated_tokens") for other in best)
    problem = counts.problem or next((other.problem for other in best if other.problem), "")
    counts.problem = problem
    prompt = counts.take("details.input_length") or len(items(body, "details.prefill"))
    return usage_of(counts, input_tokens=prompt, output_tokens=output)


def is_watsonx(body: object) -> bool:
    results = items(body, "results")
    return bool(results) and get(results[0], "generated_token_count", "input_token_count") is not None


def watsonx(body: object, _provider: str) -> Usage:
    """watsonx.ai: https://cloud.ibm.com/apidocs/watsonx-ai (text generation, 2026-11-29)."""
    parts = [Counts(result) for result in items(body, "results")]
    made = [(part.take("input_token_count"), part.take("generated_token_count")) for part in parts]
    counts = Counts(None)
    counts.found = any(part.found for part in parts)
    counts.problem = next((part.problem for part in parts if part.problem), "")
    return usage_of(counts, input_tokens=sum(one[0] for one in made), output_tokens=sum(one[1] for one in made))


def is_total_only(body: object) -> bool:
    return get(body, "usage.total_tokens") is not None


def total_only(body: object, _provider: str) -> Usage:
    """Voyage and Jina: embeddings and rerank have input alone. Of anything else a total says too little: unpriced."""
    counts = Counts(get(body, "usage"))
    data = items(body, "data", "results")
    if not data:
        return usage_of(counts, {UNEXPLAINED_TOKENS: float(counts.take("total_tokens"))})
    ranked = bool(data) and get(data[0], "relevance_score") is not None
    images = Counts(counts.block).take("image_pixels")
    # a total holds the pixels, too, 560 for a token: they have a price of their own
    # (https://docs.voyageai.com/docs/multimodal-embeddings, 2026-11-30)
    told = "text_tokens" if images and counts.has("text_tokens") else "total_tokens"
    return usage_of(
        counts,
        {"input_pixels": float(images)},
        input_tokens=counts.take(told),
        operation="rerank" if ranked else "embeddings",
    )
