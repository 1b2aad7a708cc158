"""The description is true: every operation in it takes made-up requests without failing, and the page shows it all."""

import json
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.core.result import Ok
from starlette.routing import Route

from tests.laws.test_server_doors import KINDS, SEEDS, body_of
from tests.serving import CALL, KEYS, Serving
from tests.unit.test_door_answers import check
from tests.workers import Workers
from tollmeter.server import answers, doors

pytestmark = pytest.mark.stack
UNASKED = {"/reset"}
"""Operations that would take other tests' calls back."""


@pytest.fixture
def serving(workers: Workers, tmp_path: Path) -> Serving:
    return Serving(workers, tmp_path / "spool")


def test_it_has_every_path_and_the_page_shows_it(serving: Serving) -> None:
    with serving.start() as client:
        document = client.get("/openapi.json").json()
        page = client.get("/docs")
    assert document["openapi"] == "3.1.0"
    named = {route.path for route in answers.routes() if isinstance(route, Route)} | {door.path for door in doors.ALL}
    assert {path.replace(":int", "") for path in named} <= document["paths"].keys() | named
    assert all(path in page.text for path in document["paths"])
    assert "default-src 'none'" in page.headers["content-security-policy"]
    ids = [method["operationId"] for path in document["paths"].values() for method in path.values()]
    assert len(ids) == len(set(ids))
    text = json.dumps(document)
    for place in text.split('"$ref": "#/components/schemas/')[1:]:
        assert place.partition('"')[0] in document["components"]["schemas"]


@pytest.mark.parametrize("count", [4, pytest.param(400, marks=[pytest.mark.nightly, pytest.mark.timeout(7_200)])])
def test_no_made_up_request_makes_it_fail(serving: Serving, count: int) -> None:
    keys = {"x-api-key": KEYS["API_KEY"]}
    asked = 0
    with serving.start() as client:
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
                assert told.status_code < 500, (case.method, case.formatted_path, told.text)

            ask()
        print(f"{asked} requests to {len(operations)} operations")
        assert asked >= len(operations)
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
                    if door.answers and answer.is_success:
                        check(door, answer.status_code, answer.content)
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
