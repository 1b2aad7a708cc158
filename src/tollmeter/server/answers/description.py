"""`GET /openapi.json`: what the server takes and answers; `GET /docs`: the same as a page, without a script."""

import base64
from functools import cache
from hashlib import sha256
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tollmeter.server import answers, doors, openapi
from tollmeter.server.json_answer import JsonAnswer
from tollmeter.server.query import takes
from tollmeter.server.shapes import OTHERS

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code,pre{font:14px/1.4 ui-monospace,monospace}pre{background:#f4f4f4;padding:1rem;overflow:auto}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ddd}"""
_PAGE = jinja2.Environment(autoescape=True).from_string(
    """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ info.title }} {{ info.version }}</title><style>{{ style | safe }}</style>
<h1>{{ info.title }} {{ info.version }}</h1><p>{{ info.summary }}.
Keys go in <code>X-API-Key</code>, <code>X-Ingest-Key</code> or <code>Authorization: Bearer</code>.
The description for programs: <a href="openapi.json">openapi.json</a>.</p>
<table><thead><tr><th>Method</th><th>Path</th><th>What it does</th><th>Key</th></tr></thead><tbody>
{% for path, methods in paths.items() %}{% for method, what in methods.items() %}
<tr><td><code>{{ method | upper }}</code></td><td><code>{{ path }}</code></td>
<td>{{ what.summary }}{% if what.deprecated %} (deprecated){% endif %}</td>
<td>{{ "yes" if what.security else "no" }}</td></tr>{% endfor %}{% endfor %}
</tbody></table>
{% for name, schema in components.schemas.items() %}<h2 id="{{ name }}">{{ name }}</h2>
<pre>{{ schema | tojson(indent=1) }}</pre>{% endfor %}</html>"""
)
_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(sha256(_STYLE.encode()).digest()).decode()
    + "'"
)


@cache
def _document() -> dict[str, Any]:
    return openapi.document(doors.ALL, answers.routes())


@takes(gives={"openapi": str, "info": {OTHERS: Any}, "paths": {OTHERS: Any}, "components": {OTHERS: Any}})
async def description(request: Request) -> Response:
    """Describe the server in OpenAPI 3.1."""
    return JsonAnswer(_document())


@takes(text=("text/html",))
async def page(request: Request) -> Response:
    """Show the description to people."""
    return HTMLResponse(_PAGE.render(style=_STYLE, **_document()), headers={"content-security-policy": _POLICY})


ROUTES = [Route("/openapi.json", description), Route("/docs", page)]
