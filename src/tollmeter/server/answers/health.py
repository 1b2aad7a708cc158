"""Is it there, and can it take anything? For everybody, and under no limit."""

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tollmeter.server.asking import parts_of
from tollmeter.server.json_answer import JsonAnswer
from tollmeter.server.query import takes

API_VERSION = "1.0.0"


@takes(text=("text/plain",))
async def ping(request: Request) -> Response:
    """Say pong."""
    return PlainTextResponse("pong")


@takes(gives=dict.fromkeys(("status", "timestamp", "version"), str))
async def health(request: Request) -> Response:
    """Say that the process answers."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return JsonAnswer({"status": "healthy", "timestamp": at, "version": API_VERSION})


@takes(gives={"ok": bool, "problems": list[str]})
async def livez(request: Request) -> Response:
    """Say that the loop turns."""
    return JsonAnswer({"ok": True, "problems": []})


@takes(gives={"ok": bool, "problems": list[str], "kafka": bool, "spooled": int}, statuses=(200, 503))
async def readyz(request: Request) -> Response:
    """Say whether calls can be taken: 503 with the reason while neither broker nor disk can be written."""
    writer = parts_of(request).writer
    refuses = writer.refuses
    document = {
        "ok": not refuses,
        "problems": [refuses] if refuses else [],
        "kafka": not writer.problem,
        "spooled": writer.spooled,
    }
    return JsonAnswer(document, 503 if refuses else 200)


ROUTES = [
    Route("/ping", ping),
    Route("/health", health),
    Route("/livez", livez),
    Route("/readyz", readyz),
]
