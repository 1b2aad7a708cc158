"""The routes file: who is told what. Broken, it is refused whole, with line and reason."""

import re
from datetime import time
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails

from tollmeter.schemas.alert import Severity
from tollmeter.schemas.policy import TimeZone
from tollmeter.sinks.channels.config import Chat, Count, Email, Log, Span, Strict, Webhook, Words, words


class RoutesError(Exception):
    """The routes file cannot be used; the text names the file, the line and what was expected."""


ChannelConfig = Annotated[Log | Webhook | Email | Chat, Field(discriminator="type")]


class Match(Strict):
    """What a route takes: everything that it does not restrict. Several words are alternatives."""

    kind: Words = ()
    severity: Annotated[tuple[Severity, ...], BeforeValidator(words)] = ()
    org: Words = ()
    scope: Words = ()
    name: Words = ()


class Route(Strict):
    """Alerts that match go to these consumers; the following routes are asked too, unless `stop`."""

    match: Match = Match()
    to: Annotated[Words, Field(min_length=1)]
    stop: bool = False


class Limits(Strict):
    """How much reaches people one by one; what is more goes into digests. Everything stays in `alerts list`."""

    cooldown: Span = 6 * 3_600.0
    """An anomaly of one kind and scope is told again only after so long, or when it is more severe."""
    quiet: Span = 2 * 3_600.0
    """An anomaly is over when it was not raised again for so long."""
    per_scope_per_hour: Count = 10
    per_hour: Count = 100
    storm_per_minute: Count = 20
    digest: Span = 600.0


class Retry(Strict):
    """How a consumer that fails is tried again."""

    first: Span = 1.0
    longest: Span = 300.0
    give_up: Span = 48 * 3_600.0


def _clock(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
        raise ValueError('write the hour in quotes, "09:00"')  # without quotes YAML reads 09:00 as a number
    return time.fromisoformat(value)


class Report(Strict):
    """The daily budget report: an alert of kind `report` that goes through the routes like any other."""

    at: Annotated[time, BeforeValidator(_clock)] = time(9, 0)
    timezone: TimeZone = "UTC"
    enabled: bool = True


class Routes(Strict):
    """Consumers by name, routes in order."""

    consumers: Annotated[dict[str, ChannelConfig], Field(min_length=1)]
    routes: Annotated[tuple[Route, ...], Field(min_length=1)]
    limits: Limits = Limits()
    retry: Retry = Retry()
    report: Report = Report()

    def consumers_for(self, kind: str, severity: str, org: str, scope: str, name: str) -> tuple[str, ...]:
        """Return the consumers of an alert, in the order of the routes, each once."""
        asked = (kind, severity, org, scope, name)
        chosen: dict[str, None] = {}
        for route in self.routes:
            match = route.match
            wanted = (match.kind, match.severity, match.org, match.scope, match.name)
            if all(not words or word in words for words, word in zip(wanted, asked, strict=True)):
                chosen.update(dict.fromkeys(route.to))
                if route.stop:
                    break
        return tuple(chosen)


def read(file: Path) -> Routes:
    """Return the routes of a file. Raises `RoutesError` with every mistake and its line."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RoutesError(f"routes file {file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return parse(text, str(file))


def parse(text: str, where: str) -> Routes:
    """Return the routes in a text; `where` names it in errors. Raises `RoutesError`."""
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RoutesError(f"{where}{at}: {getattr(error, 'problem', None) or 'this is no YAML'}") from None
    if not isinstance(document, dict):
        raise RoutesError(f"{where}: expected `consumers:` and `routes:`")
    try:
        routes = Routes.model_validate(document)
    except ValidationError as error:
        raise RoutesError("; ".join(_place(where, node, problem) for problem in error.errors())) from None
    for index, route in enumerate(routes.routes):
        for name in route.to:
            if name not in routes.consumers:
                line = _line(node, ("routes", index, "to"))
                raise RoutesError(f"{where} line {line}: no consumer {name!r}; there is {', '.join(routes.consumers)}")
    return routes


def _place(where: str, node: yaml.Node | None, problem: ErrorDetails) -> str:
    words = problem["msg"].removeprefix("Value error, ")
    path = ".".join(str(part) for part in problem["loc"])
    return f"{where} line {_line(node, problem['loc'])}: {path}: {words}"


def _line(node: yaml.Node | None, path: tuple[int | str, ...]) -> int:
    """Return the line (from 1) of the deepest part of a path that the text has."""
    for part in path:
        if isinstance(node, yaml.MappingNode):
            inside = next((value for key, value in node.value if key.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            inside = node.value[part]
        else:
            inside = None
        node = inside or node  # a union's tag stands in the path but not in the text
    return 1 if node is None else int(node.start_mark.line) + 1
