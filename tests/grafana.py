"""What Grafana and its ClickHouse plug-in 4.20 make of a panel's SQL: variables, `$__conditionalAll`, macros.

Exactly the macros whose expansion is known from the plug-in's source; any other `$` in a text is an error, where
Grafana would leave it as it is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime


class UnknownMacroError(Exception):
    """A text uses what the plug-in does not know."""


@dataclass(frozen=True, slots=True)
class Range:
    """The time picker: from and to in milliseconds since 1970, and the step of a graph in seconds."""

    from_ms: int
    to_ms: int
    step_s: int = 60

    def day(self, at_ms: int) -> str:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d")


ALL = "$__all"
Values = Mapping[str, str | tuple[str, ...]]
_CONDITIONAL = "$__conditionalAll("
_VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}|\$(?!__)(\w+)")
_MACRO = re.compile(r"\$__(\w+)")


def expanded(sql: str, over: Range, values: Values | None = None) -> str:
    """Return the statement that ClickHouse gets. `values`: of each variable, `ALL` where it is not named."""
    chosen = values or {}
    text = _variables(_conditional(sql, chosen), chosen)
    text = _macros(text, over)
    if "$" in text:
        raise UnknownMacroError(text[max(0, text.index("$") - 20) :][:60])
    return text


def _conditional(sql: str, values: Values) -> str:
    """As `applyConditionalAll` of the plug-in's front end: from the last one to the first."""
    while (place := sql.rfind(_CONDITIONAL)) >= 0:
        arguments, end = _arguments(sql, place + len(_CONDITIONAL) - 1)
        if len(arguments) != 2:
            raise UnknownMacroError(sql[place:end])
        name = arguments[1].strip().strip("${}")
        every = values.get(name, ALL) in (ALL, "", ("",))
        sql = sql[:place] + ("1=1" if every else arguments[0]) + sql[end:]
    return sql


def _arguments(text: str, opening: int) -> tuple[list[str], int]:
    """Split what stands in parentheses by its outer commas; return it with the place behind."""
    depth, begin, found = 0, opening + 1, []
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if (depth == 1 and text[place] == ",") or depth == 0:
            found.append(text[begin:place])
            begin = place + 1
        if depth == 0:
            return found, place + 1
    raise UnknownMacroError(text[opening:][:60])


def _variables(text: str, values: Values) -> str:
    def shown(match: re.Match[str]) -> str:
        name, form = match[1] or match[3], match[2] or ""
        value = values.get(name)
        if value is None or value == ALL:
            raise UnknownMacroError(f"${name} has no value")
        parts = (value,) if isinstance(value, str) else value
        if form == "singlequote":
            return ",".join("'" + part.replace("'", "\\'") + "'" for part in parts)
        if form == "sqlstring":
            return ",".join("'" + part.replace("'", "''") + "'" for part in parts)
        raise UnknownMacroError(f"${{{name}:{form}}}")

    return _VARIABLE.sub(shown, text)


def _macros(text: str, over: Range) -> str:
    """Expand innermost first, as a macro may be the argument of a function but not of another macro."""
    while match := _MACRO.search(text):
        arguments: list[str] = []
        end = match.end()
        if text[end : end + 1] == "(":
            arguments, end = _arguments(text, end)
        text = text[: match.start()] + _macro(match[1], [one.strip() for one in arguments], over) + text[end:]
    return text


def _macro(name: str, arguments: list[str], over: Range) -> str:
    f, t = over.from_ms // 1000, over.to_ms // 1000
    plain = {
        "fromTime": f"toDateTime({f})",
        "toTime": f"toDateTime({t})",
        "fromTime_ms": f"fromUnixTimestamp64Milli({over.from_ms})",
        "toTime_ms": f"fromUnixTimestamp64Milli({over.to_ms})",
        "interval_s": str(max(1, over.step_s)),
        "interval_ms": str(max(1, over.step_s) * 1000),
    }
    if name in plain and not arguments:
        return plain[name]
    if len(arguments) == 1:
        (c,) = arguments
        of_column = {
            "timeFilter": f"{c} >= toDateTime({f}) AND {c} <= toDateTime({t})",
            "timeFilter_ms": f"{c} >= {plain['fromTime_ms']} AND {c} <= {plain['toTime_ms']}",
            "dateFilter": f"{c} >= toDate('{over.day(over.from_ms)}') AND {c} <= toDate('{over.day(over.to_ms)}')",
            "timeInterval": f"toStartOfInterval(toDateTime({c}), INTERVAL {max(1, over.step_s)} second)",
            "timeInterval_ms": f"toStartOfInterval(toDateTime64({c}, 3), INTERVAL {plain['interval_ms']} millisecond)",
            "timeFrom": f"{c} >= {plain['fromTime']}",
            "timeTo": f"{c} <= {plain['toTime']}",
        }
        if name in of_column:
            return of_column[name]
    raise UnknownMacroError(f"$__{name} with {len(arguments)} arguments")
