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
    perplexity,
    selfhosted,
    xai,
)
from tollmeter.producers.extract.streams import Merged
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
    (openai.is_media, openai.media),
    (openai.is_images, openai.images),
    (openai.is_video, openai.video),
    (selfhosted.is_ollama, selfhosted.ollama),
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


def _completed(usage: Usage, body: object) -> Usage:
    heard = openai.transcribed(body) if openai.is_session(body) else ()
    others = tuple(Part(part.model, whole(part.usage)) for part in (*usage.others, *heard))
    return replace(usage, reported_cost_nano=reported_cost(body), others=others)
