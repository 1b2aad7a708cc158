"""Mistral: audio by the second, documents by the page, and the connectors of a conversation.

Where its documentation puts usage: https://docs.mistral.ai/api (read 2026-11-29).
"""

from dataclasses import replace

from tollmeter.producers.extract import openai
from tollmeter.producers.extract.grown import plain
from tollmeter.producers.extract.totals import usage_of
from tollmeter.producers.extract.usage import UNEXPLAINED_TOKENS, Counts, Usage, get, items

AUDIO_SECONDS = "usage.prompt_audio_seconds"  # UsageInfo of chat and of /audio/transcriptions
PAGES = "usage_info.pages_processed"  # OCRUsageInfo of /ocr
CONNECTORS = "usage.connectors"  # ConversationUsageInfo of /conversations
CONNECTOR_TOKENS = "usage.connector_tokens"
CONNECTOR_UNITS = {"web_search": "web_searches", "web_search_premium": "premium_web_searches"}


def is_pages(body: object) -> bool:
    return get(body, PAGES) is not None


def pages(body: object, _provider: str) -> Usage:
    """Pages that were read; annotated ones are dearer."""
    counts = Counts(body)
    read = counts.amount(PAGES)
    annotated = get(body, "document_annotation") is not None or any(
        get(image, "image_annotation") is not None for page in items(body, "pages") for image in items(page, "images")
    )
    units = {"input_document_pages": read, "input_annotated_document_pages": read if annotated else 0.0}
    return usage_of(counts, units, operation="ocr")


def is_own(body: object) -> bool:
    return get(body, AUDIO_SECONDS, CONNECTORS, CONNECTOR_TOKENS) is not None


def chat(body: object, provider: str) -> Usage:
    """Chat with audio, transcription, conversations."""
    usage = openai.chat(body, provider)
    counts = Counts(body)
    seconds, tokens = counts.amount(AUDIO_SECONDS), counts.take(CONNECTOR_TOKENS)
    extra = dict(usage.extra_units)
    if seconds:
        extra["input_audio_seconds"] = seconds
        extra.pop(UNEXPLAINED_TOKENS, None)  # the total holds tokens for the audio, which is billed by the second
    if tokens and extra.get(UNEXPLAINED_TOKENS, 0) <= tokens:
        extra.pop(UNEXPLAINED_TOKENS, None)
    used = plain(get(body, CONNECTORS))
    for name in used if isinstance(used, dict) else ():
        unit = CONNECTOR_UNITS.get(str(name), "connector_calls")
        extra[unit] = extra.get(unit, 0.0) + counts.take(f"{CONNECTORS}.{name}")
    heard = seconds and get(body, "text") is not None and not items(body, "choices")
    return replace(
        usage,
        input_tokens=usage.input_tokens + tokens,
        extra_units=extra,
        operation="transcription" if heard else usage.operation,
        problem=usage.problem or counts.problem,
    )
