"""A web service behind the door: who calls is known to every model call, and blocked or hasty callers are refused.

    uvicorn examples.asgi_app:app

Any ASGI application goes in place of `answer`: Starlette, FastAPI ... For Flask and Django: MeterWSGI.
"""

import json
from typing import Any

import httpx2
import openai

from tollmeter import Guard, MeterASGI, UsageProducer, metered

producer = UsageProducer(service="shop", org_id="demo")
guard = Guard(producer=producer)
client = openai.AsyncOpenAI(http_client=metered(httpx2.AsyncClient(), guard=guard, producer=producer))


def caller(request: Any) -> dict[str, Any]:
    """Your own sign-in goes here; this takes a header's word."""
    return {"user_id": dict(request["headers"]).get(b"x-user", b"").decode("latin-1")}


async def answer(_request: Any, _receive: Any, send: Any) -> None:
    try:
        reply = await client.chat.completions.create(
            model="gpt-4o-mini", max_tokens=100, messages=[{"role": "user", "content": "Say hello"}]
        )
        status, said = 200, {"said": reply.choices[0].message.content}
    except openai.APIStatusError as refused:
        status, said = refused.status_code, refused.response.json()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})


app = MeterASGI(answer, guard=guard, identify=caller, trusted_proxies=["127.0.0.1"])
