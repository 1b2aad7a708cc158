"""Answers that cost nothing are no events: counted tokens, listings, files, moderation, things that are only created.

https://developers.openai.com/api/reference, https://platform.claude.com/docs/en/api, https://ai.google.dev/api and
https://docs.cohere.com/reference, read 2026-11-29.
"""

from collections.abc import Mapping

from tollmeter.producers.extract.usage import get, items, text

OBJECTS = frozenset(
    (
        *("assistant", "assistant.deleted", "thread", "thread.deleted", "thread.message", "file", "file.deleted"),
        *("vector_store", "vector_store.file", "vector_store.deleted", "upload", "upload.part", "model", "batch"),
        *("response.input_tokens", "response.deleted", "conversation", "conversation.deleted", "container", "skill"),
        *("chat.completion.deleted", "realtime.session", "realtime.client_secret", "organization.project", "eval"),
        *("page", "bucket", "video.deleted", "prompt", "chat_session", "container.file", "vector_store.files_batch"),
        *("fine_tuning.job", "fine_tuning.job.event", "fine_tuning.job.checkpoint", "eval.run", "conversation.item"),
    )
)
"""`object` of OpenAI's answers. A batch only sums up what its lines state one by one."""
TYPES = frozenset(("model", "file", "message_batch", "message_batch_deleted", "file_deleted", "session.created"))
"""`type` of Anthropic's answers."""
OPERATIONS = frozenset(
    ("count_tokens", "counttokens", "tokenize", "moderation", "moderations", "list", "files", "models", "assistants")
)
"""What a caller may say that he did."""
_BESIDE = frozenset(("input_tokens", "inputTokens", "context_management", "object", "_request_id", "ResponseMetadata"))
_COUNTED = ("totalTokens", "total_tokens", "totalBillableCharacters", "cachedContentTokenCount", "promptTokensDetails")
_LISTS = ("data", "models", "files", "batches", "cachedContents", "tunedModels", "operations")


def is_unbilled(body: object, operation: str = "") -> bool:
    """Say whether an answer is of a call that bills nothing."""
    if operation.lower() in OPERATIONS:
        return True
    kind = text(get(body, "object"))
    if kind in OBJECTS or text(get(body, "type")) in TYPES:
        return True
    if not isinstance(body, Mapping) and not hasattr(body, "__dict__"):
        return False
    if _states_usage(body):
        return False
    return _is_count(body) or _is_listing(body, kind) or _is_moderation(body) or _is_thing(body)


def _is_thing(body: object) -> bool:
    """Something that was stored, shown or deleted: Gemini's files, Ollama's models, answers of deletions."""
    stored = text(get(body, "name", "file.name")).startswith(
        ("files/", "fileSearchStores/", "corpora/", "tunedModels/", "batches/")
    )
    return stored or get(body, "deleted") is True or get(body, "modelfile", "modelSummaries") is not None


def _states_usage(body: object) -> bool:
    names = ("usage", "usageMetadata", "usage_metadata", "meta", "usage_info", "eval_count", "prompt_eval_count")
    return get(body, *names) is not None


def _is_count(body: object) -> bool:
    """Token counts of Anthropic and OpenAI, Gemini's countTokens, Cohere's tokenize."""
    counted = get(body, "input_tokens", "inputTokens") is not None
    if counted and _names(body) <= _BESIDE:
        return True
    kind = type(body).__name__
    if kind in ("MessageTokensCount", "BetaMessageTokensCount", "CountTokensResponse", "InputTokenCountResponse"):
        return True
    counted = get(body, "totalTokens", "total_tokens") is not None
    if get(body, "token_ids") is not None:
        return True
    if counted and _names(body) <= {*_COUNTED, "sdkHttpResponse"}:
        return True
    return bool(items(body, "tokens")) and get(body, "token_strings") is not None


def _names(body: object) -> set[str]:
    """Return the names of what a body says, of a dict or an object."""
    if isinstance(body, Mapping):
        return {str(name) for name in body}
    try:
        return {name for name, value in vars(body).items() if value is not None and not name.startswith("_")}
    except Exception:  # an SDK's object may do anything when it is looked at
        return {""}


def _is_listing(body: object, kind: str) -> bool:
    data = next((get(body, name) for name in _LISTS if isinstance(get(body, name), list)), None)
    if data is None:
        return False
    made = bool(data) and get(data[0], "embedding", "b64_json", "url", "revised_prompt", "relevance_score") is not None
    return not made and (kind == "list" or get(body, "has_more", "nextPageToken") is not None or _only(body))


def _only(body: object) -> bool:
    return _names(body) <= {*_LISTS, "object", "first_id", "last_id", "has_more"}


def _is_moderation(body: object) -> bool:
    results = items(body, "results")
    return bool(results) and get(results[0], "flagged") is not None
