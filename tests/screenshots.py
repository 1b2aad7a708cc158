"""The pictures of pages in the README: `python -m tests.screenshots` plays the demo, takes them anew, and stops it."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from tests import board_pictures
from tests.browser import chromium, opened, picture
from tests.grafana import Range
from tollmeter import stacks
from tollmeter.embedded.environment import passwords
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect_existing

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
PICTURES = {"now.webp": "now", "spend.webp": "spend?span=24h&by=model"}
"""Files, and the pages below /dashboard that they show."""
MOST_BYTES = 120_000


def take(page: Any, server: str, folder: Path) -> None:
    """Take the pictures of a server that has calls."""
    page.set_viewport_size({"width": 1280, "height": 800})
    for name, path in PICTURES.items():
        page.goto(f"{server}/dashboard/{path}")
        page.locator("tbody tr").first.wait_for()
        picture(page, folder / name)


def reader_of(data: Path) -> ClickHouse:
    """Connect to the engine of a stack as Grafana does, by the user who only reads."""
    document = stacks.running(data)
    assert document is not None
    line = stacks.overlay(Settings(), {}, document)
    reader = {"clickhouse_user": "reader", "clickhouse_password": SecretStr(passwords(data)["reader"])}
    return connect_existing(line.model_copy(update=reader))


def last_hour() -> Range:
    """Return the time picker of the pictures."""
    now_ms = int(time.time() * 1_000)
    return Range(now_ms - 3_600_000, now_ms)


def main() -> int:
    browser = chromium()
    if browser is None:
        sys.stderr.write("screenshots: no Chromium: apt-get install chromium\n")
        return 2
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TOLLMETER_")}
        environment |= {"XDG_STATE_HOME": f"{folder}/state", "SERVER_PORT": "0"}

        def tollmeter(*arguments: str) -> None:
            subprocess.run([sys.executable, "-m", "tollmeter", *arguments], cwd=folder, env=environment, check=True)

        tollmeter("demo", "--keep", "--events", "20000")
        (data,) = Path(folder, ".tollmeter").glob("demo-*")
        server = json.loads((data / "stack.json").read_text(encoding="utf-8"))["server"]
        try:
            with opened(browser) as page:
                take(page, server, FOLDER)
                board_pictures.take(page, reader_of(data), last_hour(), FOLDER)
        finally:
            tollmeter("down", "--data", str(data))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
