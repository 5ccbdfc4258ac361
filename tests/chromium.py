"""Pages as a person sees them, in a headless Chromium driven by playwright; without either, tests are skipped."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PHONE, SCREEN = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def started() -> Iterator[Any]:
    """A browser without a network of its own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser: Any, file: Path | str, viewport: dict[str, int] = SCREEN, **options: Any) -> Iterator[Any]:
    """A page of the disk; afterwards it must have asked for nothing else, and nothing may have gone wrong in it."""
    context = browser.new_context(viewport=viewport, offline=True, **options)
    context.set_default_timeout(120_000)  # a busy machine is slow, not wrong
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda asked: wrong.append(asked.url) if asked.url.startswith("http") else None)
    page.goto(file if "#" in str(file) else Path(file).as_uri())
    yield page
    context.close()
    assert not wrong


def overflow(page: Any) -> int:
    """Pixels that a page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")
