"""What nobody may keep is found nowhere: canaries through every door of the stack, then every byte that it has written.

A canary stands where real senders put such a thing by mistake or by design: a key as a name, a label or in an error's
text, a prompt in the messages of a call, a token in a header, an address that the service cuts or hashes.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiokafka import AIOKafkaConsumer

from tests.acceptance.beside import ALONE
from tests.acceptance.checks import ROW
from tests.acceptance.shop import Shop
from tests.acceptance.stack import KEYS, Done, Line
from tests.otlp_bodies import logs, record, span, traces

pytestmark = ROW

PROMPT = "canaryprompt"
"""Begins every prompt and every answer of a model."""
SECRETS = {
    "openai": "sk-proj-canarykeyaaaaaaaaaaaaaa{door}",
    "anthropic": "sk-ant-api03-canarykeybbbbbbbb{door}",
    "google": "AIzaSycanarykeycccccccccccccccccccc{door}",
    "aws": "AKIACANARYKEYDDDDDDD",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnlrZXkifQ.canarykeysignature{door}",
}
HIDDEN = re.compile(rb"canary(?:key|prompt)|CANARYKEY|198\.18\.77\.(?:77|78)(?!\d)", re.IGNORECASE)
"""Whatever of a canary must not be written: a cut one as well."""
ORG = "privacy"
INGEST = {"x_ingest_key": KEYS["INGEST_KEY"]}
SERVICE = """
import asyncio, os, sys
import httpx
import openai
import tollmeter
from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.client.scope import calling
from tollmeter.producers.middleware.asgi import MeterASGI

producer = UsageProducer(service="privacy", org_id="privacy")
tollmeter.instrument(producer=producer, org="privacy")
client = openai.OpenAI(api_key=os.environ["CANARY"], base_url=os.environ["PROVIDER"] + "/v1", max_retries=0)
ask = dict(model="gpt-4o", messages=[{"role": "user", "content": "canaryprompt of instrument"}], max_tokens=10)

def call():
    client.chat.completions.create(**ask)
    for _ in client.chat.completions.create(**ask, stream=True):
        pass
    client.embeddings.create(model="text-embedding-3-small", input="canaryprompt of embeddings")
    try:
        client.chat.completions.create(**{**ask, "model": "no-such-model", "user": os.environ["CANARY"]})
    except openai.OpenAIError:
        pass

with calling(user_id=os.environ["CANARY"], session_id="s " + os.environ["CANARY"], tags={"k": os.environ["CANARY"]}):
    call()

async def app(scope, receive, send):
    await asyncio.to_thread(call)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})

async def visit(**how):
    scope = {"type": "http", "client": ("198.18.77.77", 1), "method": "POST", "path": "/", "query_string": b"",
             "headers": [(b"x-forwarded-for", b"198.18.77.78"), (b"authorization", os.environ["CANARY"].encode())]}
    async def quiet(*_):
        return {"type": "http.request", "body": b"canaryprompt"}
    await MeterASGI(app, trusted_proxies=["198.18.77.77"], **how)(scope, quiet, quiet)

for how in ({"ip_mode": "truncated"}, {"ip_mode": "hashed", "ip_salt": "salt"}, {"ip_mode": "none"}):
    asyncio.run(visit(**how))
assert producer.flush(60)
producer.close()
"""


def secret(kind: str, door: str) -> str:
    return SECRETS[kind].format(door=door)


def named(door: str, **more: Any) -> dict[str, Any]:
    """Return the fields of a call whose every name is a secret."""
    return {
        "org_id": ORG,
        "provider": "openai",
        "model_sent": "gpt-4o",
        "operation": "chat",
        "user_id": secret("openai", door),
        "session_id": f"session of {secret('anthropic', door)}",
        "agent": secret("google", door),
        "api_key_id": secret("openai", door)[:64],
        "error_type": f"Incorrect API key provided: {secret('openai', door)}",
        "tags": {"token": secret("jwt", door), secret("aws", door): "x"},
        "input_tokens": 10,
        "output_tokens": 1,
    } | more


def by_sdk(line: Line, shop: Shop, heard: list[bytes]) -> None:
    """A producer's record, an answer that it reads, and a metered client."""
    assert shop.producer.record(**named("sdk"))
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-2024-08-06",
        "choices": [{"message": {"role": "assistant", "content": f"{PROMPT} answered"}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11},
    }
    shop.producer.record_response(answer, org_id=ORG, user_id=secret("jwt", "response"))
    shop.ask(ORG, user_id=secret("openai", "ask"))
    assert shop.producer.flush(60)


def by_instrument(line: Line, shop: Shop, heard: list[bytes]) -> None:
    done = line.python(SERVICE, CANARY=secret("openai", "instrument"), PROVIDER=shop.provider.url)
    assert done.code == 0, done.err[-2_000:]
    heard.append(said(done))


def by_http(line: Line, shop: Shop, heard: list[bytes]) -> None:
    """The doors of the server: calls that are taken, calls that are refused, keys that are wrong."""
    token = line.json("token", "create", "--org", ORG, "--name", "privacy")["value"]
    call = {"model": "gpt-4o", "prompt_tokens": 10, "completion_tokens": 1, "tracking_token": token}
    for path in ("/ingest", "/log"):
        door = path[1:]
        bodies: list[Any] = [
            {name: value for name, value in named(door).items() if name != "org_id"},
            call | {"user_id": secret("openai", door), "event_id": secret("anthropic", door)},
            call | {"messages": [{"content": f"{PROMPT} in a field that nobody knows"}]},
            call | {secret("openai", door): 1},
            call | {"prompt_tokens": secret("openai", door)},
            [call, {"model": secret("openai", door)}],
        ]
        heard += [line.http("POST", path, body, **INGEST).body for body in bodies]
        heard.append(line.http("POST", path, body=f'{{"prompt": "{PROMPT} broken'.encode(), **INGEST).body)
        heard.append(line.http("POST", path, call, x_ingest_key=secret("openai", door)).body)
        heard.append(line.http("POST", path + f"?api_key={secret('openai', door)}", call, **INGEST).body)
    heard.append(line.http("GET", f"/tokens/{secret('openai', 'path')}", x_api_key=secret("openai", "admin")).body)
    heard.append(line.http("GET", "/api/costs/today", authorization=f"Bearer {secret('jwt', 'identity')}").body)
    heard.append(line.http("GET", f"/data?user={secret('jwt', 'query')}&limit={secret('openai', 'query')}").body)


def by_telemetry(line: Line, shop: Shop, heard: list[bytes]) -> None:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 1,
        "gen_ai.input.messages": json.dumps([{"role": "user", "content": f"{PROMPT} of a span"}]),
        "gen_ai.output.messages": f"{PROMPT} answered",
        "gen_ai.prompt.0.content": f"{PROMPT} of old conventions",
        "http.request.header.authorization": f"Bearer {secret('openai', 'otlp')}",
        "enduser.id": secret("openai", "enduser"),
        "gen_ai.conversation.id": secret("jwt", "conversation"),
        "error.type": f"401 {secret('openai', 'error')}",
    }
    events = [{"name": "gen_ai.choice", "attributes": [{"key": "x", "value": {"stringValue": f"{PROMPT} event"}}]}]
    status = {"code": 2, "message": f"Incorrect API key provided: {secret('openai', 'status')}; {PROMPT}"}
    resource = {"tollmeter.org": ORG, "service.name": secret("openai", "service")}
    sent = traces([span(attributes=attributes, events=events, status=status, name=f"chat {PROMPT}")], resource)
    heard.append(line.http("POST", "/v1/traces", sent, **INGEST).body)
    told = record(attributes | {"event.name": "gen_ai.client.inference.operation.details"})
    heard.append(
        line.http("POST", "/v1/logs", logs([told | {"body": {"stringValue": PROMPT}}], resource), **INGEST).body
    )
    claude = {"event.name": "claude_code.api_request", "model": "claude-sonnet-4-5", "prompt": f"{PROMPT} of code"}
    claude |= {"input_tokens": "10", "output_tokens": "1", "user.email": secret("openai", "email")}
    heard.append(line.http("POST", "/v1/logs", logs([record(claude)], resource), **INGEST).body)
    point = {"asInt": "10", "attributes": told["attributes"], "timeUnixNano": "1"}
    metric = {"name": "gen_ai.client.token.usage", "sum": {"dataPoints": [point]}}
    document = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}
    heard.append(line.http("POST", "/v1/metrics", document, **INGEST).body)


def by_callbacks(line: Line, shop: Shop, heard: list[bytes]) -> None:
    """CloudEvents, and what LiteLLM's callback sends: with the whole conversation, and keys in its metadata."""
    head = {"specversion": "1.0", "type": "tollmeter.usage", "source": secret("openai", "source"), "id": str(uuid4())}
    cloud = {"content_type": "application/cloudevents+json"}
    whole = head | {"subject": f"{PROMPT} subject", "data": {"prompt": f"{PROMPT} of an event"} | named("cloud")}
    heard.append(line.http("POST", "/api/v1/events", whole, **INGEST, **cloud).body)
    fields = {name: value for name, value in named("cloud").items() if name != "org_id"}
    heard.append(line.http("POST", "/api/v1/events", head | {"data": fields}, **INGEST, **cloud).body)
    now = datetime.now(UTC).timestamp()
    payload = {
        "id": secret("openai", "id"),
        "litellm_call_id": str(uuid4()),
        "call_type": "acompletion",
        "status": "failure",
        "model": "gpt-4o",
        "custom_llm_provider": "openai",
        "prompt_tokens": 10,
        "completion_tokens": 1,
        "startTime": now,
        "endTime": now,
        "messages": [{"role": "user", "content": f"{PROMPT} of a callback"}],
        "response": {"choices": [{"message": {"content": f"{PROMPT} answered"}}]},
        "error_str": f"{PROMPT} {secret('openai', 'litellm')}",
        "error_information": {
            "error_class": f"AuthenticationError {secret('openai', 'class')}",
            "error_message": f"{PROMPT} {secret('openai', 'message')}",
            "traceback": f"{PROMPT} {secret('openai', 'trace')}",
        },
        "metadata": {"user_api_key_hash": secret("openai", "hash"), "user_api_key_alias": secret("openai", "alias")},
        "request_tags": [secret("openai", "tag"), "plain"],
        "model_parameters": {"user": secret("jwt", "user"), "api_key": secret("openai", "parameters")},
        "end_user": secret("anthropic", "end"),
    }
    heard.append(line.http("POST", "/ingest/litellm", [payload, payload | {"startTime": PROMPT}], **INGEST).body)


def by_proxy(line: Line, shop: Shop, heard: list[bytes]) -> None:
    ask = {"model": "gpt-4o", "messages": [{"role": "user", "content": f"{PROMPT} of the proxy"}], "max_tokens": 5}
    ask |= {"user": secret("openai", "proxyuser"), "metadata": {"k": secret("openai", "metadata")}}
    path, right = "/proxy/openai/v1/chat/completions", {"authorization": f"Bearer {KEYS['INGEST_KEY']}"}
    told = {"x_tollmeter_org": ORG, "x_tollmeter_user": secret("jwt", "proxy"), "x_tollmeter_session": "s"}
    told["x_tollmeter_tags"] = f"a={secret('openai', 'tags')}"
    line.http("POST", path, ask, **right, **told)
    line.http("POST", path, ask | {"stream": True}, **right, **told)
    line.http("POST", path, ask, authorization=f"Bearer {secret('openai', 'wrongkey')}", **told)
    line.http("POST", path + f"?key={secret('google', 'query')}", ask, **right, **told)
    line.http("POST", f"/proxy/openai/v1/{secret('openai', 'path')}/completions", ask, **right, **told)
    line.http("POST", path, body=f'{{"messages": "{PROMPT} broken'.encode(), **right, **told)


def by_files(line: Line, shop: Shop, heard: list[bytes]) -> None:
    at = datetime.now(UTC).isoformat()
    usage = {"ts": at, "model": "gpt-4o", "prompt_tokens": 10, "completion_tokens": 1, "org": ORG}
    lines = [
        {**usage, "user": secret("openai", "import"), "prompt": f"{PROMPT} of a file", "status": "OK"},
        {**usage, "ip": secret("jwt", "ip"), "est_cost": f"{PROMPT} {secret('openai', 'cost')}"},
        {**usage, "prompt_tokens": f"{PROMPT} {secret('openai', 'count')}"},
        {"type": "assistant", "message": {"model": "claude-sonnet-4-5", "content": f"{PROMPT} of code", "usage": {}}},
    ]
    text = "".join(json.dumps(one) + "\n" for one in lines) + f"{PROMPT} {secret('openai', 'line')} is no JSON\n"
    heard.append(said(line.run("import", "-", text=text)))
    file = line.folder / "usage.jsonl"
    file.write_text(text, encoding="utf-8")
    heard.append(said(line.run("import", str(file), "--format", "openai-usage")))
    file.unlink()


def by_command_line(line: Line, shop: Shop, heard: list[bytes]) -> None:
    """A key where a key's id belongs: it is taken by its id, or refused; it is not written down."""
    key = secret("openai", "cli")
    for arguments in (
        ("block", "key", key, "--org", ORG, "--reason", f"leaked {secret('jwt', 'reason')}"),
        ("block", "user", key, "--org", ORG),
        ("key", "set", key, "--org", ORG, "--label", f"label {key}", "--owner", key),
        ("policy", "set", "--org", ORG, "--scope", "api_key", "--name", key, "--daily", "1"),
        ("policy", "set", "--org", ORG, "--scope", "user", "--name", key, "--daily", "1"),
        ("member", "set", "--org", ORG, "--user", key, "--in", "g"),
        ("ratelimit", "set", "key", key, "--org", ORG, "--requests", "5", "--per", "1m"),
        ("server-key", "create", "--org", ORG, "--role", "read", "--name", key),
        ("token", "create", "--org", ORG, "--name", key),
        ("alerts", "mute", "--org", ORG, "--scope", "api_key", "--name", key, "--for", "1h"),
        ("send", "--org", ORG, "--model", "gpt-4o", "--user", key, "--key", key, "--in", "1", "--out", "1"),
    ):
        done = line.run(*arguments)
        assert done.code in (0, 1, 2), done.err


DOORS = (by_sdk, by_instrument, by_http, by_telemetry, by_callbacks, by_proxy, by_files, by_command_line)


def said(done: Done) -> bytes:
    """Return what a command printed."""
    return (done.out + done.err).encode()


def written(line: Line) -> Iterator[tuple[str, bytes]]:
    """Yield every file of the stack, of its services' spools and of its state, but for zeros at their ends."""
    for folder in (line.data, line.folder / "spool", line.folder / "state"):
        for file in folder.rglob("*"):
            if file.is_file() and not file.is_symlink():
                yield str(file), file.read_bytes().rstrip(b"\0")


def kept(line: Line) -> Iterator[tuple[str, bytes]]:
    """Yield every record of every topic, unpacked: value, key and headers."""

    async def work() -> list[tuple[str, bytes]]:
        found = []
        async with AIOKafkaConsumer(bootstrap_servers=line.kafka, auto_offset_reset="earliest") as consumer:
            topics = await consumer.topics()
            consumer.subscribe(sorted(topics))
            while not consumer.assignment():
                await consumer.getmany(timeout_ms=100)
            ends = await consumer.end_offsets(consumer.assignment())
            await consumer.seek_to_beginning()
            while any([await consumer.position(place) < end for place, end in ends.items()]):
                for place, batch in (await consumer.getmany(timeout_ms=200)).items():
                    for one in batch:
                        parts = (one.key, one.value, *(part for _, part in one.headers))
                        found += [(f"{place.topic}@{one.offset}", part) for part in parts if part]
        assert {"usage.events", "usage.priced", "usage.dlq", "usage.alerts"} <= set(topics)
        return found

    yield from asyncio.run(work())


def stored(line: Line) -> Iterator[tuple[str, bytes]]:
    """Yield every text of every table, whatever its type: parts are compressed, so their bytes alone say little."""
    columns = line.query(
        "SELECT table, groupArray(name) AS names FROM system.columns WHERE database = 'tollmeter' AND table IN "
        "(SELECT name FROM system.tables WHERE database = 'tollmeter' AND engine LIKE '%MergeTree') GROUP BY table "
        "FORMAT JSONEachRow",
        "default",
    )
    tables = {row["table"]: row["names"] for row in map(json.loads, columns.body.splitlines())}
    assert {"usage_events", "alerts", "usage_windows"} <= set(tables)
    for table, names in tables.items():
        for name in names:
            found = (
                f"SELECT DISTINCT substring(toString({name}), 1, 400) AS v FROM {table} WHERE match(toString({name}), "
            )
            answer = line.query(found + "'(?i)canary|198.18.77.7') LIMIT 5 FORMAT TSVRaw", "default")
            if answer.status == 200:
                yield f"{table}.{name}", answer.body


def processes(line: Line) -> Iterator[tuple[str, bytes]]:
    """Yield the command lines of the stack's processes, which every user of the machine can read."""
    for stage, process in line.state["processes"].items():
        yield stage, Path(f"/proc/{process['pid']}/cmdline").read_bytes()


def told(line: Line) -> Iterator[tuple[str, bytes]]:
    """Yield what people were told, by webhook, chat and mail."""
    receivers = line.receivers
    for receiver in (receivers.hook, receivers.chat):
        yield from (("webhook or chat", body) for _, body in list(receiver.requests))
    yield from (("mail", mail.as_bytes()) for mail in list(receivers.mails))


@ALONE
def test_what_nobody_may_keep_is_found_nowhere(line: Line, shop: Shop) -> None:
    line.http("POST", "/ingest", {}, **INGEST)
    heard: list[bytes] = []
    for door in DOORS:
        door(line, shop, heard)
    calls = f"SELECT count() FROM usage_events FINAL WHERE org_id = '{ORG}'"
    line.until(lambda: line.one(calls) >= 25)
    line.refresh()
    seen = [answer[:500] for answer in heard if HIDDEN.search(answer)]
    for place in (written, kept, stored, processes, told):
        for where, content in place(line):
            for found in HIDDEN.finditer(content):
                around = content[max(0, found.start() - 60) : found.end() + 60]
                seen.append(f"{place.__name__} {where}"[-120:].encode() + b": " + around)
    assert not seen, b"\n\n".join(seen).decode(errors="replace")
