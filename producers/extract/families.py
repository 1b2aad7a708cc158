"""Which family an answer belongs to, and the inclusive counters that it states. Pure: objects or dicts in."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tollmeter.producers.extract import (
    anthropic,
    bedrock,
    cohere,
    deepseek,
    gateways,
    gemini,
    mistral,
    openai,
    openai_media,
    perplexity,
    selfhosted,
    xai,
)
from tollmeter.producers.extract.streams import Merged, speaks
from tollmeter.producers.extract.totals import summed, whole
from tollmeter.producers.extract.usage import Part, Usage, reported_cost

Belongs = Callable[[Any], bool]
Read = Callable[[Any, str], Usage]

FAMILIES: tuple[tuple[Belongs, Read], ...] = (
    (gateways.is_langchain, gateways.langchain),
    (gemini.is_gemini, gemini.gemini),
    (cohere.is_cohere, cohere.cohere),
    (gateways.is_by_model, gateways.by_model),
    (gateways.is_ai_sdk, gateways.ai_sdk),
    (bedrock.is_converse, bedrock.converse),
    (mistral.is_pages, mistral.pages),
    (mistral.is_own, mistral.chat),
    (perplexity.is_own, perplexity.read),
    (xai.is_own, xai.read),
    (deepseek.is_own, deepseek.read),
    (openai.is_chat, openai.chat),
    (openai.is_responses, openai.responses),
    (anthropic.is_anthropic, anthropic.messages),
    (anthropic.is_span, anthropic.span),
    (openai_media.is_media, openai_media.media),
    (openai_media.is_images, openai_media.images),
    (openai_media.is_video, openai_media.video),
    (selfhosted.is_ollama, selfhosted.ollama),
    (selfhosted.is_llama_cpp, selfhosted.llama_cpp),
    (selfhosted.is_tgi, selfhosted.tgi),
    (bedrock.is_sonic, bedrock.sonic),
    (selfhosted.is_watsonx, selfhosted.watsonx),
    (bedrock.is_native, bedrock.native),
    (bedrock.is_in_headers, bedrock.in_headers),
    (gemini.is_embedded, gemini.embedded),
    (gemini.is_prediction, gemini.prediction),
    (gateways.is_replicate, gateways.replicate),
    (selfhosted.is_total_only, selfhosted.total_only),
)
"""How shapes are told apart, first that fits."""


def read_usage(body: object, provider: str = "") -> Usage:
    """Return the usage that an answer states. `provider` settles what its shape leaves open. Never raises.

    A stream that held several answers gives their sum, whatever models they name: `extract_all` tells them apart.
    """
    if isinstance(body, Merged) and len(body.answers) > 1:
        return summed([_read_one(answer, provider) for answer in body.answers])
    return _read_one(body, provider)


def _read_one(body: object, provider: str) -> Usage:
    for belongs, read in FAMILIES:
        try:
            if belongs(body):
                return _completed(whole(read(body, provider)), body)
        except Exception as error:  # an SDK's object may do anything when it is looked at
            return Usage(stated=False, problem=f"unreadable: {type(error).__name__}")
    return _completed(Usage(stated=False), body)


def _says_nothing(usage: Usage) -> bool:
    """Say whether a chat states counts that are all 0: servers that do not count write so."""
    told = usage.input_tokens or usage.output_tokens or usage.extra_units or usage.others
    return usage.stated and not told and not usage.problem and usage.operation in ("chat", "responses")


def _completed(usage: Usage, body: object) -> Usage:
    if _says_nothing(usage) and (body.spoke if isinstance(body, Merged) else speaks(body)):
        return replace(usage, stated=False, problem="usage: 0 of an answer with text")
    heard = openai_media.transcribed(body) if openai_media.is_session(body) else ()
    others = tuple(Part(part.model, whole(part.usage)) for part in (*usage.others, *heard))
    return replace(usage, reported_cost_nano=reported_cost(body), others=others)
