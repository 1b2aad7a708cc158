"""The same door as most would write it: FastAPI (or Starlette) and pydantic, one acknowledged Kafka record per call."""

import asyncio
import hmac
import json
import os
import sys
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any
from uuid import uuid4

import uvicorn
from aiokafka import AIOKafkaProducer
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

KEY, TOPIC = "ingest-key", os.environ.get("PLAIN_TOPIC", "plain.events")


class Usage(BaseModel):
    """One call's counts."""

    model_sent: str = Field(max_length=256)
    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)
    user_id: str = Field("", max_length=256)
    event_id: str | None = None


_usages = TypeAdapter(list[Usage])


@asynccontextmanager
async def _producing(app: Any) -> Any:
    async with AIOKafkaProducer(bootstrap_servers=sys.argv[1], acks="all", linger_ms=2) as producer:
        app.state.producer = producer
        yield


async def _store(producer: AIOKafkaProducer, calls: list[Usage]) -> None:
    bodies = [json.dumps({**call.model_dump(), "event_id": call.event_id or str(uuid4())}).encode() for call in calls]
    await asyncio.gather(*[await producer.send(TOPIC, body) for body in bodies])


def framework() -> str:
    """Return which of the two this is here."""
    return "fastapi" if find_spec("fastapi") else "starlette"


def fastapi_app() -> Any:
    """Return the application in FastAPI's usual way."""
    from fastapi import FastAPI, Header, HTTPException, Request

    app = FastAPI(lifespan=_producing)

    def check(key: str) -> None:
        if not hmac.compare_digest(key, KEY):
            raise HTTPException(401)

    @app.post("/ingest", status_code=201)
    async def one(call: Usage, request: Request, x_ingest_key: str = Header("")) -> dict[str, str]:
        check(x_ingest_key)
        await _store(request.app.state.producer, [call])
        return {"status": "stored"}

    @app.post("/batch", status_code=202)
    async def many(calls: list[Usage], request: Request, x_ingest_key: str = Header("")) -> dict[str, int]:
        check(x_ingest_key)
        await _store(request.app.state.producer, calls)
        return {"accepted": len(calls)}

    return app


def starlette_app() -> Any:
    """Return the same without FastAPI."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def take(request: Request) -> JSONResponse:
        if not hmac.compare_digest(request.headers.get("x-ingest-key", ""), KEY):
            return JSONResponse({}, 401)
        body = await request.body()
        try:
            many = request.url.path == "/batch"
            calls = _usages.validate_json(body) if many else [Usage.model_validate_json(body)]
        except ValidationError as error:
            return JSONResponse({"detail": str(error)}, 422)
        await _store(request.app.state.producer, calls)
        return JSONResponse({"accepted": len(calls)}, 201)

    return Starlette(
        routes=[Route(path, take, methods=["POST"]) for path in ("/ingest", "/batch")], lifespan=_producing
    )


if __name__ == "__main__":
    made = fastapi_app() if framework() == "fastapi" else starlette_app()
    uvicorn.run(made, host="127.0.0.1", port=int(sys.argv[2]), access_log=False, log_level="error", loop="uvloop")
