"""The description is true: every operation in it takes made-up requests without failing, and the page shows it all."""

import json
import random
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.core.result import Ok
from starlette.routing import Route

from tests.described import Held, hold, operations
from tests.laws.test_server_doors import KINDS, SEEDS, body_of
from tests.serving import CALL, KEYS, Serving
from tests.workers import Workers
from tollmeter.server import answers, doors
from tollmeter.server.openapi import PROXY, PUBLIC

pytestmark = pytest.mark.stack
UNASKED = {"/reset", PROXY}
"""What would take calls back, and what calls a provider."""


@pytest.fixture
def serving(workers: Workers, tmp_path: Path) -> Serving:
    return Serving(workers, tmp_path / "spool")


def test_it_has_every_path_and_the_page_shows_it(serving: Serving) -> None:
    with serving.start() as client:
        document = client.get("/openapi.json").json()
        page = client.get("/docs")
    assert document["openapi"] == "3.1.0"
    served = {("POST", door.path) for door in doors.ALL}
    for route in answers.routes():
        assert isinstance(route, Route)
        served |= {(method, route.path.replace(":path", "")) for method in route.methods or () if method != "HEAD"}
    assert served == operations()
    assert served == {
        (method.upper(), path) for path, one in document["paths"].items() for method in one if path != PROXY
    }
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            places = {one["name"] for one in said.get("parameters", ()) if one["in"] == "path"}
            assert places == set(re.findall(r"{(\w+)}", path)), "each parameter of a path is named"
            good = {status: one for status, one in said["responses"].items() if status.startswith("2")}
            assert good, (method, path)
            for status, one in good.items():
                kinds = one.get("content", {})
                assert bool(kinds) == (status != "204"), (method, path)
                assert path == PROXY or all("schema" in kind for kind in kinds.values()), (
                    method,
                    path,
                )
    assert all(path in page.text for path in document["paths"])
    assert "default-src 'none'" in page.headers["content-security-policy"]
    ids = [method["operationId"] for path in document["paths"].values() for method in path.values()]
    assert len(ids) == len(set(ids))
    _refs_are_there(document)


REFUSED = {
    *("/api/v1/ai/spend/{user}", "/api/v1/cost-policies/{scope}/{name}"),
    *("/api/v1/ai/prices", "/api/v1/statements/{month}", "/api/v1/reconcile"),
}
"""What has no answer yet: an unknown user, a limit that nobody set, no published prices, no closed month, no bill."""


def test_answers_of_an_empty_system_are_as_described(serving: Serving) -> None:
    held, secret = Held(), "a-secret-of-users-that-is-long-enough"
    person = jwt.encode({"sub": "ann", "exp": int(time.time()) + 3_600}, secret, "HS256")
    asked = {path for method, path in operations() if method == "GET"}
    with serving.start(JWT_SECRET=secret, RATE_LIMIT_RPM="6000") as client:
        del client.headers["x-ingest-key"]
        for path in sorted(asked):
            head = {"authorization": person} if "/billing/" in path else {"x-api-key": KEYS["API_KEY"]}
            filled = path.replace("{scope}/{name}", "user/ann").replace("{scope}", "org").replace("{user}", "ann")
            answer = client.get(filled.replace("{month}", "2026-10"), headers=head)
            held(answer)
            assert {"ratelimit", "ratelimit-policy"} <= answer.headers.keys() or path in PUBLIC, path
    assert {path for _, path in held.answered} == asked - REFUSED


def _refs_are_there(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    for place in text.split('"$ref": "#/components/schemas/')[1:]:
        assert place.partition('"')[0] in document["components"]["schemas"]


@pytest.mark.parametrize("count", [4, pytest.param(400, marks=[pytest.mark.nightly, pytest.mark.timeout(7_200)])])
def test_no_made_up_request_makes_it_fail(serving: Serving, count: int) -> None:
    keys = {"x-api-key": KEYS["API_KEY"]}
    asked, seen = 0, Counter[int]()
    with serving.start() as client:
        del client.headers["x-ingest-key"]  # it would count before the admin's, and everything be refused
        schema = schemathesis.openapi.from_url(f"{serving.url}/openapi.json")
        operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
        for operation in operations:
            if operation.path in UNASKED:
                continue

            @settings(
                max_examples=count,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy())
            def ask(case: Case) -> None:
                nonlocal asked
                asked += 1
                told = answer_of(case, keys, client)
                seen[told.status_code] += 1
                assert told.status_code < 500, (case.method, case.formatted_path, told.text)

            ask()
        print(f"{asked} requests to {len(operations)} operations: {dict(seen)}")
        assert asked >= len(operations)
        assert seen[200] > asked // 10 > seen[401] + seen[403], "they are let in"
        assert "Traceback" not in serving.worker.text


@pytest.mark.parametrize("count", [40, pytest.param(20_000, marks=[pytest.mark.nightly, pytest.mark.timeout(7_200)])])
def test_no_body_makes_a_real_door_fail(serving: Serving, count: int) -> None:
    """Bodies of real senders, bent as the law of the doors bends them, over sockets and into Kafka."""
    seed = time.time_ns() % 2**32
    with serving.start() as client, ThreadPoolExecutor(8) as threads:
        for door in doors.ALL:
            draw, path, kinds = random.Random(seed), door.path, KINDS.get(door.path, ("application/json",))
            sent = ((body_of(draw.choice(SEEDS[path]), draw), draw.choice(kinds)) for _ in range(count))
            seen = Counter[int]()
            while some := list(islice(sent, 500)):
                asked = [
                    threads.submit(client.post, path, content=body, headers={"content-type": kind})
                    for body, kind in some
                ]
                for (body, _), one in zip(some, asked, strict=True):
                    answer = one.result()
                    assert answer.status_code < 500, (seed, path, body, answer.text)
                    kind = answer.headers.get("content-type", "").partition(";")[0]
                    hold(path, "POST", answer.status_code, kind, answer.content)
                    seen[answer.status_code] += 1
            print(f"{path}: {count} requests from seed {seed}: {dict(seen)}")
            assert seen.total() == count
        assert client.post("/ingest", json=CALL).status_code == 201
    assert "Traceback" not in serving.worker.text


def answer_of(case: Case, keys: dict[str, str], client: httpx.Client) -> httpx.Response:
    """Send a case as schemathesis would, over the test's own client."""
    sent = case.as_transport_kwargs(base_url=str(client.base_url).rstrip("/"))
    names = ("params", "content", "data", "json")
    more = {name: sent[name] for name in names if sent.get(name) is not None}
    if isinstance(more.get("data"), bytes | str):
        more["content"] = more.pop("data")
    kind = {name: value for name, value in (sent.get("headers") or {}).items() if name.lower() == "content-type"}
    return client.request(sent["method"], sent["url"], headers={**kind, **keys}, **more)
