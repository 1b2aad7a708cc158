"""Answers as providers give them, shortened to what counts, and the inclusive counters that each must become.

Shapes follow the providers' public API references (2025 and 2026). Input contains what was cached or written to a
cache, output contains reasoning, whatever the provider's own convention is.
"""

import json
from typing import Any

Case = tuple[tuple[str, ...], dict[str, Any] | str, dict[str, Any]]
"""Options of `quote`, the answer (text: a stream), what the event must say."""


def _chat(model: str, usage: dict[str, Any], **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "hi"}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": model, "choices": choices, "usage": usage} | more


def _provider(name: str, model: str) -> tuple[str, ...]:
    return ("--provider", name, "--model-sent", model)


_OPENAI = {
    "prompt_tokens": 1_000,
    "completion_tokens": 300,
    "total_tokens": 1_300,
    "prompt_tokens_details": {"cached_tokens": 400},
    "completion_tokens_details": {"reasoning_tokens": 120},
}
_OPENAI_COUNTS = {"input_tokens": 1_000, "cache_read_tokens": 400, "output_tokens": 300, "reasoning_tokens": 120}
_PLAIN = {"prompt_tokens": 1_000, "completion_tokens": 300, "total_tokens": 1_300}
_PLAIN_COUNTS = {"input_tokens": 1_000, "output_tokens": 300}
_CHUNK = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4o"}
_STREAM = "".join(
    f"data: {json.dumps(chunk)}\n\n"
    for chunk in (
        _CHUNK | {"choices": [{"index": 0, "delta": {"content": "hi"}}], "usage": None},
        _CHUNK | {"choices": [], "usage": _OPENAI},
    )
)

ANSWERS: dict[str, Case] = {
    "OpenAI chat": (_provider("openai", "gpt-4o"), _chat("gpt-4o", _OPENAI), _OPENAI_COUNTS),
    "OpenAI responses": (
        _provider("openai", "gpt-5"),
        {
            "id": "resp_1",
            "object": "response",
            "model": "gpt-5",
            "status": "completed",
            "output": [],
            "usage": {
                "input_tokens": 900,
                "input_tokens_details": {"cached_tokens": 100},
                "output_tokens": 80,
                "output_tokens_details": {"reasoning_tokens": 64},
                "total_tokens": 980,
            },
        },
        {"input_tokens": 900, "cache_read_tokens": 100, "output_tokens": 80, "reasoning_tokens": 64},
    ),
    "an OpenAI stream": (_provider("openai", "gpt-4o"), _STREAM + "data: [DONE]\n\n", _OPENAI_COUNTS),
    "OpenAI embeddings": (
        _provider("openai", "text-embedding-3-small"),
        {
            "object": "list",
            "model": "text-embedding-3-small",
            "usage": {"prompt_tokens": 20, "total_tokens": 20},
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
        },
        {"input_tokens": 20, "output_tokens": 0, "operation": "embeddings"},
    ),
    "OpenAI transcription": (
        (*_provider("openai", "whisper-1"), "--operation", "transcription"),
        {"text": "hello", "usage": {"type": "duration", "seconds": 12}},
        {"input_tokens": 0, "extra_units": {"audio_seconds": 12.0}},
    ),
    "OpenAI images": (
        (*_provider("openai", "dall-e-3"), "--operation", "image"),
        {"created": 1, "data": [{"url": "https://example.org/1.png"}]},
        {"input_tokens": 0, "output_tokens": 0, "extra_units": {"images": 1.0, "images_unstated": 1.0}},
    ),
    "Anthropic": (
        _provider("anthropic", "claude-sonnet-4-5"),
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-5-20250929",
            "content": [],
            "usage": {
                "input_tokens": 100,
                "cache_creation_input_tokens": 500,
                "cache_read_input_tokens": 2_000,
                "output_tokens": 70,
                "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 200},
            },
        },
        {
            "input_tokens": 2_600,
            "cache_read_tokens": 2_000,
            "cache_write_tokens": 500,
            "cache_write_1h_tokens": 200,
            "output_tokens": 70,
        },
    ),
    "Gemini": (
        _provider("google", "gemini-2.5-flash"),
        {
            "candidates": [{"content": {"parts": [{"text": "hi"}]}}],
            "modelVersion": "gemini-2.5-flash",
            "usageMetadata": {
                "promptTokenCount": 1_000,
                "cachedContentTokenCount": 600,
                "candidatesTokenCount": 200,
                "thoughtsTokenCount": 300,
                "totalTokenCount": 1_500,
            },
        },
        {"input_tokens": 1_000, "cache_read_tokens": 600, "output_tokens": 500, "reasoning_tokens": 300},
    ),
    "Bedrock": (
        _provider("aws", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
        {
            "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}},
            "stopReason": "end_turn",
            "usage": {
                "inputTokens": 100,
                "outputTokens": 70,
                "totalTokens": 670,
                "cacheReadInputTokens": 400,
                "cacheWriteInputTokens": 100,
            },
        },
        {"input_tokens": 600, "cache_read_tokens": 400, "cache_write_tokens": 100, "output_tokens": 70},
    ),
    "Mistral": (_provider("mistral", "mistral-small-2506"), _chat("mistral-small-2506", _PLAIN), _PLAIN_COUNTS),
    "Groq": (
        _provider("groq", "llama-3.3-70b-versatile"),
        _chat("llama-3.3-70b-versatile", _PLAIN | {"queue_time": 0.1, "total_time": 0.5}, x_groq={"id": "req_1"}),
        _PLAIN_COUNTS,
    ),
    "xAI, whose output leaves reasoning out": (
        _provider("x-ai", "grok-3-mini"),
        _chat(
            "grok-3-mini",
            {
                "prompt_tokens": 1_000,
                "completion_tokens": 300,
                "total_tokens": 1_420,
                "completion_tokens_details": {"reasoning_tokens": 120},
            },
        ),
        {"input_tokens": 1_000, "output_tokens": 420, "reasoning_tokens": 120},
    ),
    "Cohere": (
        _provider("cohere", "command-a-03-2025"),
        {
            "id": "c1",
            "finish_reason": "COMPLETE",
            "message": {"role": "assistant", "content": []},
            "usage": {
                "billed_units": {"input_tokens": 1_000, "output_tokens": 300},
                "tokens": {"input_tokens": 1_066, "output_tokens": 304},
            },
        },
        _PLAIN_COUNTS,
    ),
    "Hugging Face": (
        _provider("huggingface", "mistralai/Mistral-7B-Instruct-v0.3"),
        {
            "generated_text": "hi",
            "details": {"finish_reason": "length", "generated_tokens": 300, "prefill": [{"id": 1}] * 12, "tokens": []},
        },
        {"input_tokens": 12, "output_tokens": 300},
    ),
    "Ollama": (
        _provider("ollama", "llama3.2"),
        {
            "model": "llama3.2",
            "message": {"content": "hi"},
            "done": True,
            "prompt_eval_count": 1_000,
            "eval_count": 300,
        },
        _PLAIN_COUNTS,
    ),
    "vLLM": (_provider("vllm", "Qwen/Qwen3-8B"), _chat("Qwen/Qwen3-8B", _PLAIN, prompt_logprobs=None), _PLAIN_COUNTS),
    "OpenRouter, with the cost that it states": (
        _provider("openrouter", "openai/gpt-4o"),
        _chat("openai/gpt-4o", _OPENAI | {"cost": 0.0051}, provider="OpenAI"),
        _OPENAI_COUNTS | {"reported_cost_nano": 5_100_000},
    ),
    "LiteLLM": (_provider("openai", "gpt-4o"), _chat("gpt-4o", _OPENAI, service_tier=None), _OPENAI_COUNTS),
}
