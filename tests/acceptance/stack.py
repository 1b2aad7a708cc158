"""The running stack as its users reach it: command line, read-only SQL, Kafka, HTTP, and services in Python."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord

from tests.acceptance import rates, tokens
from tests.acceptance.checks import Lacking, Refused, patience_s
from tests.acceptance.receivers import Receivers
from tests.fake_provider import FakeServer, serving
from tests.forkserver import ForkServer
from tests.patience import eventually
from tollmeter.settings import Settings

Value = TypeVar("Value")
PROVIDER_KEY = "SHOP_PROVIDER_KEY"
"""Variable of the server with the key that its upstream gets."""
KEYS = {"API_KEY": "admin-key-0123456789", "INGEST_KEY": "ingest-key-0123456789", "READ_KEY": "read-key-0123456789"}


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON document on stdout."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The JSON body."""
        return json.loads(self.body)


@dataclass
class Line:
    """One stack in a folder of its own."""

    folder: Path
    environment: dict[str, str]
    server: str
    receivers: Receivers
    commands: ForkServer
    state: dict[str, Any] = field(default_factory=dict)

    # -- command line --------------------------------------------------------------------------------------------------

    def run(self, *arguments: str, text: str | None = None, **environment: str) -> Done:
        """Run a command in the stack's folder, with a pipe on its stdin where there is text for it."""
        if text is None and arguments[0] not in ("up", "down", "mcp"):
            forked = self.commands.run(arguments, self.environment | environment, folder=self.folder, timeout=600)
            return Done(forked.returncode, forked.stdout, forked.stderr)
        done = subprocess.run(
            [sys.executable, "-m", "tollmeter", *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            input=text or "",
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str, text: str | None = None, **environment: str) -> str:
        """Run a command that must end well; return what it printed."""
        done = self.run(*arguments, text=text, **environment)
        assert done.code == 0, f"{' '.join(arguments)}: exit code {done.code}: {done.err.strip()[-400:]}"
        return done.out

    def json(self, *arguments: str, **environment: str) -> Any:
        """Run a command with --json that must end well; return its document."""
        return json.loads(self.ok(*arguments, "--json", **environment))

    def python(self, code: str, **environment: str) -> Done:
        """Run a program of a service in the stack's folder."""
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    # -- SQL -----------------------------------------------------------------------------------------------------------

    def query(self, sql: str, user: str = "reader", **settings: str) -> Answer:
        """Send a statement over HTTP with the read-only user's password, as any tool would."""
        users = json.loads((self.folder / ".tollmeter" / "users.json").read_text(encoding="utf-8"))
        headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": _password(users, user)}
        path = "/?" + urllib.parse.urlencode({"database": "tollmeter", **settings})
        return request(self.clickhouse + path, "POST", headers, sql.encode())

    def sql(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a query of the read-only user; 64-bit numbers as numbers."""
        answer = self.query(sql + " FORMAT JSONEachRow", output_format_json_quote_64bit_integers="0")
        assert answer.status == 200, answer.body.decode(errors="replace")[:500]
        return [json.loads(row) for row in answer.body.decode().splitlines()]

    def written(self, sql: str) -> None:
        """Run a statement as the user who owns the tables."""
        answer = self.query(sql, user="default")
        assert answer.status == 200, answer.body.decode(errors="replace")[:500]

    def one(self, sql: str) -> Any:
        """Return the only value of a query."""
        ((value,),) = [tuple(row.values()) for row in self.sql(sql)]
        return value

    # -- Kafka ---------------------------------------------------------------------------------------------------------

    def produce(self, topic: str, values: Sequence[bytes], headers: Sequence[tuple[str, bytes]] = ()) -> list[int]:
        """Send records with a plain Kafka client; return their append times in milliseconds."""

        async def work() -> list[int]:
            async with AIOKafkaProducer(bootstrap_servers=self.kafka, acks="all") as producer:
                sent = [await producer.send(topic, value, headers=list(headers)) for value in values]
                return [(await record).timestamp for record in sent]

        return asyncio.run(work())

    def arrive(self, events: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Send events as JSON; return the ledger rows by event id. Raises AssertionError for those that are refused."""
        self.produce("usage.events", [json.dumps(event).encode() for event in events])
        ids = {event["event_id"]: event for event in events}
        named = ", ".join(f"'{one}'" for one in ids)

        def rows() -> dict[str, dict[str, Any]]:
            found = self.sql(f"SELECT * FROM usage_events FINAL WHERE event_id IN ({named})")
            if len(found) < len(ids):
                letters = [record.value for record in self.records("usage.dlq")]
                refused = [one for one in ids if any(one.encode() in letter for letter in letters)]
                if refused:
                    raise Refused(f"dead letters: {[ids[one] for one in refused]}")
            return {row["event_id"]: row for row in found} if len(found) == len(ids) else {}

        return self.until(rows)

    def records(self, topic: str) -> list[ConsumerRecord]:
        """Read a topic from its beginning to its end with a plain Kafka client."""

        async def work() -> list[ConsumerRecord]:
            async with AIOKafkaConsumer(topic, bootstrap_servers=self.kafka, auto_offset_reset="earliest") as consumer:
                places = consumer.assignment()
                assert places, f"no topic {topic}"
                ends = await consumer.end_offsets(places)
                found: list[ConsumerRecord] = []
                while any([await consumer.position(place) < ends[place] for place in places]):
                    for batch in (await consumer.getmany(timeout_ms=200)).values():
                        found += batch
                return found

        return asyncio.run(work())

    def alerts(self, **data: object) -> list[dict[str, Any]]:
        """Return the alerts on the topic whose data has these values, with the append time of each as `appended_ms`."""
        found = []
        for record in self.records("usage.alerts"):
            alert = json.loads(record.value)
            if all(alert["data"].get(name) == value for name, value in data.items()):
                found.append({**alert, "appended_ms": record.timestamp})
        return found

    # -- HTTP ----------------------------------------------------------------------------------------------------------

    def http(
        self, method: str, path: str, document: Any = None, *, body: bytes | None = None, **headers: str
    ) -> Answer:
        """Ask the server of the stack. Keywords are headers: `x_api_key=…` is X-API-Key.

        As a client should, it asks again when a limit on requests says that it may.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if document is not None:
            body = json.dumps(document).encode()
            named.setdefault("content-type", "application/json")
        answer = request(self.server + path, method, named, body)
        while answer.status == 429 and "ratelimit" in answer.headers:
            time.sleep(int(answer.headers["retry-after"]))
            answer = request(self.server + path, method, named, body)
        return answer

    def proxied(self, org: str, most: int = 300, model: str = "gpt-4o", **headers: str) -> Answer:
        """Ask a model through the proxy, for an organisation; keywords are headers after `x-tollmeter-`."""
        ask = {"model": model, "messages": [{"role": "user", "content": "x" * 400}], "max_tokens": most}
        named = {f"x_tollmeter_{name}": value for name, value in headers.items()}
        key = f"Bearer {KEYS['INGEST_KEY']}"
        return self.http(
            "POST", "/proxy/openai/v1/chat/completions", ask, authorization=key, x_tollmeter_org=org, **named
        )

    def health(self, stage: str, path: str) -> Answer:
        """Ask a worker how it is."""
        self.refresh()
        return request(f"{self.state['processes'][stage]['health']}{path}")

    # -- where things are ----------------------------------------------------------------------------------------------

    @property
    def kafka(self) -> str:
        return str(self.state["kafka"])

    @property
    def clickhouse(self) -> str:
        return str(self.state["clickhouse"])

    @property
    def data(self) -> Path:
        return self.folder / ".tollmeter"

    def settings(self, **changes: Any) -> Settings:
        """Return the settings of a service that uses the stack, with a spool of its own."""
        spool = str(self.folder / "spool")
        return Settings.from_environment({"TOLLMETER_KAFKA": self.kafka, "TOLLMETER_SPOOL_DIR": spool}).model_copy(
            update=changes
        )

    def refresh(self) -> None:
        """Read again where the stack is."""
        self.state = json.loads((self.data / "stack.json").read_text(encoding="utf-8"))

    def until(self, check: Callable[[], Value], longer: float = 1.0) -> Value:
        """Wait for a first truthy result; `longer` is a factor."""
        return eventually(check, patience_s.get() * longer, 0.2)

    def landed(self, condition: str, count: int, longer: float = 1.0) -> None:
        """Wait until the ledger has so many calls that meet a condition."""
        self.until(lambda: self.one(f"SELECT count() FROM usage_events FINAL WHERE {condition}") == count, longer)

    def folded(self, org: str, calls: int, longer: float = 1.0) -> None:
        """Wait until WATCH has counted so many calls of an organisation: what it raises for them is raised."""
        days = f"usage_windows FINAL WHERE org_id = '{org}' AND scope = 'org' AND level = 'day'"
        self.until(lambda: self.one(f"SELECT sum(calls) AS n FROM {days}") == calls, longer)


def upstreams(provider: FakeServer) -> str:
    """Return the proxy's file: OpenAI is the provider of the tests."""
    entry = {"url": provider.url, "key_from": [PROVIDER_KEY], "provider": "openai"}
    return json.dumps({"upstreams": {"openai": entry}})


def _password(users: Any, user: str) -> str:
    """Find a user's password in users.json, whatever else stands there."""
    entry = users[user]
    return str(entry["password"] if isinstance(entry, dict) else entry)


def request(
    url: str, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> Answer:
    """Send one HTTP request; every status is an answer. Raises OSError when nobody answers."""
    asked = urllib.request.Request(url, body, dict(headers or {}), method=method)
    try:
        with urllib.request.build_opener(_NoRedirect).open(asked, timeout=60) as answer:
            named = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(answer.status, named, answer.read())
    except urllib.error.HTTPError as refused:
        with refused:
            return Answer(refused.code, {k.lower(): v for k, v in refused.headers.items()}, refused.read())


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def unhindered(measure: Callable[[int], float], numbers: Iterable[int], wanted: int) -> list[float]:
    """Return so many delays that were taken while a quarter of the machine had nothing to do: others say nothing.

    Raises Lacking where too few were.
    """
    found, tried = [], 0
    for tried, number in enumerate(numbers, 1):
        before = _ticks()
        delay = measure(number)
        idle, passed = (after - early for after, early in zip(_ticks(), before, strict=True))
        found += [delay] if idle > passed / 4 else []
        if len(found) == wanted:
            return found
        if tried >= 3 and len(found) < tried / 2:
            break
    raise Lacking(f"the machine is busy: {tried - len(found)} of {tried} alerts came while it had much else to do")


def _ticks() -> tuple[int, int]:
    """How long the cores have had nothing to do, and how long they have run; raises Lacking outside Linux."""
    stat = Path("/proc/stat")
    if not stat.exists():
        raise Lacking("this system does not say how busy it is")
    ticks = [int(part) for part in stat.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


@contextmanager
def started(folder: Path, commands: ForkServer) -> Iterator[Line]:
    """Start a stack with `tollmeter up --detach` and stop it with `down`. No Java or Maven: skipped, an error in CI."""
    with Receivers() as receivers, serving() as provider:
        (folder / "routes.yaml").write_text(receivers.routes(), encoding="utf-8")
        (folder / "proxy.yaml").write_text(upstreams(provider), encoding="utf-8")
        (folder / "prices.yaml").write_text(rates.prices(), encoding="utf-8")
        (folder / "fx.csv").write_text(rates.begun(), encoding="utf-8")
        (folder / "eurofxref-hist.csv").write_text(rates.ecb(), encoding="utf-8")
        (folder / "XML_dynamic.xml").write_bytes(rates.bank_of_russia())
        port = free_port()
        ours = ("TOLLMETER_", "XDG_STATE", "OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment |= receivers.secrets | KEYS
        environment |= {
            "TOLLMETER_KAFKA": "127.0.0.1:0",
            "TOLLMETER_CLICKHOUSE": "http://127.0.0.1:0",
            "TOLLMETER_HEALTH_PORT": "0",
            "TOLLMETER_PRICES_FILE": str(folder / "prices.yaml"),
            "TOLLMETER_FX_FILE": str(folder / "fx.csv"),
            "XDG_STATE_HOME": str(folder / "state"),
            "SERVER_PORT": str(port),
            "ENV": "development",
            "JWT_SECRET": tokens.SECRET,
            "OIDC_ISSUER": tokens.ISSUER,
            "OIDC_AUDIENCE": tokens.AUDIENCE,
            "OIDC_JWKS_URL": receivers.keys_url,
        }
        line = Line(folder, environment, f"http://127.0.0.1:{port}", receivers, commands)
        at_start = {
            "TOLLMETER_NOTIFY_ROUTES": str(folder / "routes.yaml"),
            "TOLLMETER_RETENTION_MINUTES_DAYS": "777",
            "TOLLMETER_ROLLUP_QUIET_S": "2",
            "TOLLMETER_CHECKPOINT_S": "1",
            "TOLLMETER_SESSION_TIMEOUT_S": "6",
            "TOLLMETER_PROXY_FILE": str(folder / "proxy.yaml"),
            PROVIDER_KEY: "sk-of-the-server-0123456789",
        }
        line.ok("prices", "fx", "update", "eurofxref-hist.csv", "XML_dynamic.xml")
        up = line.run("up", "--detach", **at_start)
        if up.code == 2 and re.search(r"Java|Maven", up.err) and not os.environ.get("CI"):
            pytest.skip(up.err.strip())
        try:
            assert up.code == 0, up.err
            # from here on as in another terminal: the stack is found by its folder
            for name in ("TOLLMETER_KAFKA", "TOLLMETER_CLICKHOUSE", "TOLLMETER_HEALTH_PORT"):
                environment.pop(name)
            line.refresh()
            yield line
        finally:
            line.run("down")
