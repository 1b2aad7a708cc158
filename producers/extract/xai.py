"""xAI: reasoning lies outside the completion, and searches are billed by the source or by the call.

Where its documentation puts usage: https://docs.x.ai/docs/api-reference, /docs/guides/live-search and
/docs/guides/tools/overview (read 2026-11-29). Its cost in ticks is read with the other stated costs.
"""

from dataclasses import replace

from tollmeter.producers.extract import openai
from tollmeter.producers.extract.usage import Counts, Usage, get

SOURCES = "usage.num_sources_used"
TOOLS = ("usage.server_side_tool_usage_details", "server_side_tool_usage_details", "server_side_tool_usage")
TOOL_UNITS = {
    "web_search_calls": "web_searches",
    "SERVER_SIDE_TOOL_WEB_SEARCH": "web_searches",
    "x_search_calls": "social_searches",
    "SERVER_SIDE_TOOL_X_SEARCH": "social_searches",
    "code_interpreter_calls": "code_executions",
    "SERVER_SIDE_TOOL_CODE_EXECUTION": "code_executions",
    "file_search_calls": "storage_searches",
    "SERVER_SIDE_TOOL_COLLECTIONS_SEARCH": "storage_searches",
    "document_search_calls": "document_search_calls",  # of attached files, perhaps: dearer, so PARTIAL
    "SERVER_SIDE_TOOL_ATTACHMENT_SEARCH": "document_search_calls",
}


def is_own(body: object) -> bool:
    return get(body, SOURCES, *TOOLS) is not None


def read(body: object, _provider: str) -> Usage:
    """Chat or responses, with what was searched."""
    usage = (openai.chat if openai.is_chat(body) else openai.responses)(body, "x-ai")
    counts, extra = Counts(body), dict(usage.extra_units)
    extra["search_sources"] = float(counts.take(SOURCES))
    tools = Counts(get(body, *TOOLS))
    for name, unit in TOOL_UNITS.items():
        if tools.has(name):
            extra[unit] = max(extra.get(unit, 0.0), float(tools.take(name)))
    problem = usage.problem or counts.problem or tools.problem
    return replace(usage, extra_units={name: value for name, value in extra.items() if value}, problem=problem)
