"""docs/http.md names every path that the router answers, with its methods, and no other."""

import re
from pathlib import Path

from starlette.routing import Route

from tollmeter.server import answers

TEXT = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")
LINE = re.compile(r"^\| `([A-Z, ]+) (/\S+)` \|", re.MULTILINE)
ELSEWHERE = {"/ping", "/health", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs"}


def test_the_page_names_every_answer() -> None:
    said = {(method.strip(), path) for methods, path in LINE.findall(TEXT) for method in methods.split(",")}
    found = [route for route in answers.routes() if isinstance(route, Route) and route.path not in ELSEWHERE]
    there = {(method, one.path) for one in found for method in (one.methods or {"GET"}) if method != "HEAD"}
    pages = {pair for pair in there if pair[1].startswith("/dashboard")}
    assert said == there - pages
