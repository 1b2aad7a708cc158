"""A closed month and a bill, over HTTP and on the page: as the commands say, and of the own organisation alone."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from tests.described import Held
from tests.priced_rows import insert, row
from tests.serving import KEYS, Serving
from tests.workers import Workers
from tollmeter.admin import close as closing
from tollmeter.admin import secret
from tollmeter.cli.bills import bills
from tollmeter.cli.reconcile import reconcile
from tollmeter.schemas.registry import CostLine
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

NOW = datetime.now(UTC)
FIRST = (NOW.replace(day=1) - timedelta(days=1)).replace(day=1).date()
"""The last month that is over."""
NAME = f"{FIRST:%Y-%m}"
THEIRS = "of-borg"
USD = 10**9


@pytest.fixture(name="client")
def serving(workers: Workers, line_settings: Settings, tmp_path: Path) -> Iterator[httpx.Client]:
    """A reader of the set-up's own organisation, `default`; `borg` is another one, on the account of openai alone."""
    line = line_settings
    line.data_dir.mkdir(parents=True, exist_ok=True)
    secret.ensure(line.data_dir)
    fill(line, tmp_path)
    made = Serving(workers, tmp_path / "spool")
    made.start(line).close()
    key, hooks = {"authorization": f"Bearer {KEYS['READ_KEY']}"}, {"response": [Held()]}
    with httpx.Client(base_url=made.url, headers=key, timeout=60, event_hooks=hooks) as client:
        yield client


def fill(line: Settings, folder: Path) -> None:
    def call(number: int, org: str, provider: str, nano: int, key: str) -> dict[str, Any]:
        at = datetime(FIRST.year, FIRST.month, 10, 12, tzinfo=UTC)
        named = {"org_id": org, "provider": provider, "provider_id": provider, "model": "m", "model_id": "m"}
        return row(number, event_time=at, status="OK", price_status="PRICED", cost_nano=nano, api_key_id=key, **named)

    client = connect(line)
    calls = [
        call(1, "default", "openai", 2 * USD, "k1"),
        call(2, "", "openai", 3 * USD, "k2"),
        call(3, "borg", "openai", 70 * USD, THEIRS),
        call(4, "default", "mine", 5 * USD, "k1"),
    ]
    insert(client, calls)
    costs = [
        CostLine(org_id=org, name=name, provider=f"seats-{org}", unit_nano=nano, since=NAME)
        for org, name, nano in (("default", "seats", 7 * USD), ("borg", THEIRS, 11 * USD))
    ]
    client.insert_rows(
        "registry", ("key", "value", "version"), [(one.key, one.model_dump_json(), 1 << 20) for one in costs]
    )
    closing.close(client, FIRST, "", NOW)
    insert(client, [call(5, "default", "mine", 1 * USD, "k1"), call(6, "borg", "openai", 9 * USD, THEIRS)], offset=9)
    client.close()
    for provider, usd in (("openai", 84), ("mine", 9)):
        file = folder / f"{provider}.csv"
        file.write_text(f"day,model,cost\n{NAME}-10,m,{usd}\n", encoding="utf-8")
        columns = ["--map", "day=day", "--map", "model=model", "--map", "amount=cost"]
        done = CliRunner().invoke(bills, ["import", str(file), "--provider", provider, *columns], obj=line)
        assert done.exit_code == 0, done.output


def test_the_statement_has_own_rows_alone(client: httpx.Client) -> None:
    (listed,) = client.get("/api/v1/statements").json()["statements"]
    assert (listed["month"], listed["totals"]["calls"], listed["totals"]["cost_nano"]) == (NAME, 3, 10 * USD)
    answer = client.get(f"/api/v1/statements/{NAME}")
    found = answer.json()
    assert {one["org_id"] for one in found["rows"]} == {"default", ""}
    assert (found["part"], found["totals"]["cost_nano"]) == (True, 10 * USD)
    (late,) = found["not_booked_yet"]
    assert (late["org_id"], late["calls"], late["cost_nano"]) == ("default", 1, 1 * USD)
    assert [(one["org_id"], one["name"], one["cost_nano"]) for one in found["cost_lines"]] == [
        ("default", "seats", 7 * USD)
    ]
    assert found["cost_line_totals"] == {"lines": 1, "cost_nano": 7 * USD, "without_usd": 0}
    assert re.fullmatch(r"[0-9a-f]{64}", found["hash"])
    page = client.get("/dashboard/invoice", headers=signed_in(client))
    assert THEIRS not in answer.text + page.text
    assert f"Statement {NAME}, number 1" in page.text
    assert "10.0000 USD" in page.text
    for path, status in (("2020-01", 404), ("last-month", 400)):
        refused = client.get(f"/api/v1/statements/{path}")
        assert (refused.status_code, "month" in refused.json()["detail"] or "closed" in refused.json()["detail"]) == (
            status,
            True,
        )


def test_a_bill_is_compared_as_the_command_does_where_nobody_else_is_on_it(
    client: httpx.Client, line_settings: Settings
) -> None:
    asked = {"provider": "mine", "month": NAME, "by": "model"}
    found = client.get("/api/v1/reconcile", params=asked).json()
    said = CliRunner().invoke(
        reconcile, ["--provider", "mine", "--month", NAME, "--by", "model", "--json"], obj=line_settings
    )
    document = json.loads(said.stdout)
    del document["gaps"]
    assert found == document
    assert (found["billed_nano"], found["ours_nano"]) == (9 * USD, 6 * USD)
    page = client.get("/dashboard/invoice", params=asked | {"month": NAME}, headers=signed_in(client)).text
    assert "9.0000 USD" in page
    assert f"Bill of mine, {FIRST} up to" in page
    shared = client.get("/api/v1/reconcile", params={"provider": "openai", "month": NAME})
    assert (shared.status_code, shared.json()["code"]) == (403, "shared_account")
    assert THEIRS not in shared.text
    page = client.get(
        "/dashboard/invoice", params={"provider": "openai", "month": NAME}, headers=signed_in(client)
    ).text
    assert "other organisations have calls on this account" in page
    assert THEIRS not in page
    for wrong in (
        {"provider": "mine"},
        {"provider": "mine", "month": "x"},
        asked | {"by": "colour"},
        asked | {"a": "b"},
    ):
        assert client.get("/api/v1/reconcile", params=wrong).status_code == 400
    nothing = client.get("/api/v1/reconcile", params={"provider": "nobody", "month": NAME})
    assert (nothing.status_code, nothing.json()["code"]) == (404, "no_bill")


def signed_in(client: httpx.Client) -> dict[str, str]:
    """Return the cookie of a reader."""
    with httpx.Client(base_url=client.base_url, timeout=60) as browser:
        form = re.search(r'name="form" value="(\w+)"', browser.get("/dashboard/sign-in").text)
        assert form is not None
        done = browser.post("/dashboard/sign-in", data={"form": form[1], "key": KEYS["READ_KEY"]})
        assert done.status_code == 303, done.text
        return {"cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}
