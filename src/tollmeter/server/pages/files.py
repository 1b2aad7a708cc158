"""The style sheet, the script and the mark of the pages: the only files there are, by their names."""

from functools import cache
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.server.problems import Problem

KINDS = {"page.css": "text/css", "live.js": "text/javascript", "mark.svg": "image/svg+xml"}


@cache
def _read(name: str) -> bytes:
    return (resources.files("tollmeter.dashboards.web") / "static" / name).read_bytes()


async def static(request: Request) -> Response:
    """Return one of the files."""
    name = request.path_params["name"]
    if name not in KINDS:
        raise Problem(404, "not_found", "there is no such file")
    kind = f"{KINDS[name]}; charset=utf-8"
    return Response(_read(name), headers={"content-type": kind, "cache-control": "public, max-age=300"})


ROUTES = [Route("/dashboard/static/{name}", static)]
