"""A real Chromium for tests of pages, with what its console says, and what a page lacks for readers of all kinds."""

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

LACKS = """() => {
  const found = [], seen = new Set();
  const named = (one) => one.labels?.length || one.getAttribute("aria-label") || one.textContent.trim();
  for (const one of document.querySelectorAll("input:not([type=hidden]), select, button, a")) {
    if (!named(one)) { found.push("no name: " + one.outerHTML.slice(0, 120)); }
  }
  for (const one of document.querySelectorAll("th:not([scope])")) { found.push("no scope: " + one.textContent); }
  for (const one of document.querySelectorAll("svg:not([aria-label]), img:not([alt])")) {
    found.push("no text: " + one.outerHTML.slice(0, 80));
  }
  for (const one of document.querySelectorAll("[id]")) {
    if (seen.has(one.id)) { found.push("id twice: " + one.id); }
    seen.add(one.id);
  }
  if (!document.querySelector("main h1") || !document.documentElement.lang) { found.push("no heading or no language"); }
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const straight = (c) => c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * straight(r) + 0.7152 * straight(g) + 0.0722 * straight(b);
  const ground = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.99) { return colour; }
    }
    return [255, 255, 255];
  };
  for (const one of document.querySelectorAll("main *, header *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !one.checkVisibility() || one.tagName === "OPTION") { continue; }
    const [high, low] = [light(parts(getComputedStyle(one).color)), light(ground(one))].sort((a, b) => b - a);
    if ((high + 0.05) / (low + 0.05) < 4.5) { found.push("contrast: " + one.textContent.trim().slice(0, 60)); }
  }
  return found;
}"""
"""What is missing for who listens to a page or sees little: names, heads of columns, contrast of AA (4.5 to 1)."""


def chromium() -> str | None:
    """Return the path of Debian's Chromium, None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """Open a browser's page whose console, errors and refusals of the content policy must stay empty."""
    with sync_playwright() as engine:
        started = engine.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        page = started.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.set_default_timeout(60_000)
        yield page
        started.close()
        assert said == []


def picture(page: Any, file: Path, quality: int = 75) -> None:
    """Write what the window shows, small."""
    asked = {"format": "webp", "quality": quality}
    shot = page.context.new_cdp_session(page).send("Page.captureScreenshot", asked)
    file.write_bytes(base64.b64decode(shot["data"]))


def overflows(page: Any) -> bool:
    """Tell whether the page is wider than the window."""
    wide: bool = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    return wide
