"""Answers of providers as they document them, whole and streamed; the real SDKs read each (`test_sdks.py`)."""

from typing import Any

CHAT_USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 300,
    "total_tokens": 1300,
    "prompt_tokens_details": {"cached_tokens": 400, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 120, "audio_tokens": 0},
}
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "gpt-5",
    "status": "completed",
    "output": [],
    "parallel_tool_calls": False,
    "tool_choice": "auto",
    "tools": [],
    "service_tier": "flex",
    "usage": {
        "input_tokens": 900,
        "output_tokens": 80,
        "total_tokens": 980,
        "input_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 64},
    },
}
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-test",
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "content": [{"type": "text", "text": "hi"}],
    "usage": {
        "input_tokens": 100,
        "cache_creation_input_tokens": 500,
        "cache_read_input_tokens": 2000,
        "output_tokens": 70,
        "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 200},
        "service_tier": "standard",
    },
}
GEMINI_USAGE = {
    "promptTokenCount": 1000,
    "candidatesTokenCount": 200,
    "thoughtsTokenCount": 300,
    "cachedContentTokenCount": 600,
    "totalTokenCount": 1500,
    "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 300}],
}
CONTENT = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "hi"}]}, "finishReason": "STOP", "index": 0}]
}


def chat_chunk(**fields: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", **fields}


CHAT_STREAM = [
    chat_chunk(choices=[{"index": 0, "delta": {"role": "assistant", "content": "h"}}], usage=None),
    chat_chunk(choices=[{"index": 0, "delta": {"content": "i"}, "finish_reason": "stop"}], usage=None),
    chat_chunk(choices=[], usage=CHAT_USAGE),
]
RESPONSE_STREAM = [
    {"type": "response.created", "sequence_number": 0, "response": {**RESPONSE, "status": "queued", "usage": None}},
    {
        "type": "response.output_text.delta",
        "sequence_number": 1,
        "item_id": "i",
        "output_index": 0,
        "content_index": 0,
        "delta": "hi",
        "logprobs": [],
    },
    {"type": "response.completed", "sequence_number": 2, "response": RESPONSE},
]
MESSAGE_STREAM = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "usage": {**MESSAGE["usage"], "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
    {"type": "message_delta", "delta": {"stop_reason": None, "stop_sequence": None}, "usage": {"output_tokens": 40}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 70}},
    {"type": "message_stop"},
]
GEMINI_STREAM = [
    {
        **CONTENT,
        "modelVersion": "gemini-2.5-flash",
        "usageMetadata": {"promptTokenCount": 1000, "totalTokenCount": 1000},
    },
    {**CONTENT, "modelVersion": "gemini-2.5-flash", "responseId": "r1", "usageMetadata": GEMINI_USAGE},
]
