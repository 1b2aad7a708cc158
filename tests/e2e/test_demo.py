"""`tollmeter demo` on its own stack: stable keys, a sum that adds up, alerts of the leaks, nothing left behind."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests import board_pictures, screenshots
from tests.browser import LACKS, chromium, opened, overflows

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


def test_demo_adds_up_and_leaves_nothing(tmp_path: Path, stack: object) -> None:
    """`stack` only says whether Java and Maven are there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOLLMETER_")}
    done = subprocess.run(
        [sys.executable, "-m", "tollmeter", "demo", "--events", "4000", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert set(document) == {
        "records",
        "ledger",
        "resends",
        "rejected",
        "cost_nano",
        "alerts",
        "incidents",
        "alert_delay_p95_s",
        "events_per_second",
    }
    assert document["ledger"] == 4_000
    assert document["records"] == document["ledger"] + document["resends"] + document["rejected"]
    assert document["cost_nano"] > 20_000_000_000
    assert document["alerts"] >= 6
    scopes = [(one["org_id"], one["scope"], one["name"]) for one in document["incidents"]]
    assert scopes, "keys leak"
    assert len(set(scopes)) == len(scopes), "each leaking key is one incident"
    assert sum(one["alerts"] for one in document["incidents"]) < document["alerts"], "budgets tell by themselves"
    assert list((tmp_path / ".tollmeter").iterdir()) == []


def test_a_demo_that_is_kept_goes_on_with_its_pages(tmp_path: Path, stack: object) -> None:
    """`stack` only says whether Java and Maven are there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOLLMETER_")}
    environment |= {"XDG_STATE_HOME": str(tmp_path / "state"), "SERVER_PORT": "0"}

    def tollmeter(*arguments: str) -> str:
        command = [sys.executable, "-m", "tollmeter", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = tollmeter("demo", "--events", "1000", "--keep")
    (folder,) = (tmp_path / ".tollmeter").glob("demo-*")
    try:
        (address,) = re.findall(r"it goes on: look at (http://127\.0\.0\.1:\d+/dashboard/now)", said)
        with urllib.request.urlopen(address, timeout=60) as page:
            text = page.read().decode()
        assert "By key" in text
        assert "Open alerts" in text
        if (browser := chromium()) is not None:
            with opened(browser) as shown:
                look_at(shown, address.removesuffix("/dashboard/now"), tmp_path)
                reader = screenshots.reader_of(folder)
                files = board_pictures.take(shown, reader, screenshots.last_hour(), tmp_path)
                reader.close()
            assert len(files) == 6
            assert {file.name for file in files} <= {file.name for file in screenshots.FOLDER.iterdir()}
    finally:
        tollmeter("down", "--data", str(folder))


def look_at(page: Any, server: str, folder: Path) -> None:
    """Every page is for readers of all kinds, in light and dark, and on a phone; the README's pictures can be taken."""
    for name in ("now", "spend", "calls", "limits", "alerts", "tokens", "prices?model=gpt-4o", "health", "sign-in"):
        page.goto(f"{server}/dashboard/{name}")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(LACKS) == [], f"{name}, {scheme}"
        page.set_viewport_size({"width": 390, "height": 800})
        assert not overflows(page), name
        page.set_viewport_size({"width": 1280, "height": 800})
    page.emulate_media(color_scheme="light")
    screenshots.take(page, server, folder)
    for name in screenshots.PICTURES:
        assert (folder / name).stat().st_size < screenshots.MOST_BYTES
        assert (screenshots.FOLDER / name).stat().st_size < screenshots.MOST_BYTES
