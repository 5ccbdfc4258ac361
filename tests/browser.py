"""A page of the project in a real headless browser, and what it asks for and says meanwhile.

Chromium is that of the system; without it, or without playwright, tests that need a browser are skipped.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import ROOT

NAMES = ("chromium", "chromium-browser", "google-chrome")
AXE = ROOT / "report" / "atlas" / "node_modules" / "axe-core" / "axe.min.js"
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@contextmanager
def chromium() -> Iterator:
    """A running browser, for as long as the context lasts."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright, of envs/requirements.txt, is not installed")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser is installed: none of {', '.join(NAMES)} is on the PATH")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Tab:
    """A page of a file, with what its console said (``said``) and all it asked for (``asked``)."""

    def __init__(self, browser, file: Path, scheme: str = "light", size: dict | None = None):
        self.address = file.as_uri()
        self.page = browser.new_page(viewport=size or WIDE, color_scheme=scheme, accept_downloads=True)
        self.page.set_default_timeout(120_000)  # a slow machine is no failure
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url.split("#")[0]))
        self.show("")

    def show(self, state: str) -> None:
        """The page at a state of its address, drawn whole."""
        self.page.goto(f"{self.address}#{state}")
        self.page.wait_for_function("document.documentElement.dataset.shown === location.hash")

    def state(self) -> str:
        return self.page.evaluate("location.hash")

    def text(self, selector: str) -> str:
        return self.page.locator(selector).first.inner_text().replace("\xa0", " ")

    def texts(self, selector: str) -> list[str]:
        found = self.page.locator(selector).all_text_contents()
        return [text.replace("\xa0", " ") for text in found]

    def count(self, selector: str) -> int:
        return self.page.locator(selector).count()

    def saved(self, button: str) -> tuple[str, str]:
        """Name and text of the file that a button saves."""
        with self.page.expect_download() as waiting:
            self.page.locator(button).click()
        with open(waiting.value.path(), encoding="utf-8", newline="") as file:
            return waiting.value.suggested_filename, file.read()

    def turn(self, selector: str) -> None:
        """Fold or unfold a `details` by a click; the page hears of that later than the click, and is waited for."""
        part = self.page.locator(selector).first
        heard = "part.addEventListener('toggle', () => (part.heard = true), { once: true })"
        part.evaluate(f"part => {{ part.heard = false; {heard}; }}")
        part.locator("> summary").click()
        self.page.wait_for_function("part => part.heard", arg=part.element_handle())


@contextmanager
def opened(browser, file: Path | str, size: dict | None = None, scheme: str = "light") -> Iterator:
    """A page of the disk, by path or address; afterwards it must have met no error, nor asked for anything outside."""
    context = browser.new_context(viewport=size or WIDE, color_scheme=scheme, offline=True)
    context.set_default_timeout(120_000)  # a busy machine is slow, not wrong
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda asked: wrong.append(asked.url) if asked.url.startswith("http") else None)
    page.goto(file if isinstance(file, str) else file.as_uri())
    yield page
    context.close()
    assert not wrong


def overflow(page) -> int:
    """Pixels that a page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")
