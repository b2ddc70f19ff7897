"""The page in headless Chromium without a network: clicks, uploads, a click on a pixel, languages, a phone's width."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.helpers.app_server import AppServer, needs_gradio, serve
from tests.helpers.small_model import small_checkpoint
from utils.app.words import words_in

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
missing = importlib.util.find_spec("playwright") is None or CHROMIUM is None
pytestmark = [
    needs_gradio,
    pytest.mark.long,
    pytest.mark.skipif(missing, reason="playwright or Chromium is not installed"),
]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SECONDS = 120
HEIGHT, WIDTH = 480, 800


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    folder = tmp_path_factory.mktemp("browser")
    files = [small_checkpoint(folder / f"{cfg}.pt", f"{cfg}.yaml") for cfg in ("yolov5n", "yolov5n-AKConv")]
    with serve(folder / "server", ["--weights", *map(str, files)]) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    rules = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", rules])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("image") / "smooth <b>.png"
    coarse = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))
    return str(path)


class Visitor:
    """A page in the browser; `hosts` are those it asked for anything, `problems` errors of its scripts and answers."""

    def __init__(self, browser: Any, url: str, lang: str, viewport: dict[str, int]) -> None:
        locale = "en-US" if lang == "zh" else "zh-CN"  # the page decides, not the browser
        self.page = browser.new_context(viewport=viewport, locale=locale).new_page()
        self.page.set_default_timeout(1000 * SECONDS)
        self.hosts: set[str] = set()
        self.problems: list[str] = []
        self.page.on("request", lambda request: self.hosts.add(re.sub(r"^(\w+:)(//[^/:]+)?.*", r"\1\2", request.url)))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda message: self.note(message.text) if message.type == "error" else None)
        self.words = words_in(lang)
        self.page.goto(f"{url}/{lang}/")
        self.page.wait_for_selector("button[role=tab]")

    def note(self, text: str) -> None:
        if "404" not in text:  # of the icon
            self.problems.append(text)

    def open_tab(self, key: str) -> None:
        """Choose a tab, which may be in the menu of those that find no room."""
        tab = self.page.get_by_role("tab", name=self.words(key), exact=True)
        if not tab.is_visible():
            self.page.locator(".overflow-menu button").first.click()
            self.page.locator(".overflow-dropdown button").get_by_text(self.words(key), exact=True).click()
            return
        tab.click()

    def panel(self) -> Any:
        return self.page.locator("[role=tabpanel]:visible").last

    def upload(self, path: str) -> None:
        with self.page.expect_response(lambda response: "/upload?" in response.url):
            self.panel().locator("input[type=file]").first.set_input_files(path)
        self.panel().locator("img").first.wait_for()

    def status(self, pattern: str) -> str:
        """Wait for a text in the line of the tab that is shown."""
        line = self.panel().locator(".status").filter(has_text=re.compile(pattern)).first
        line.wait_for()
        return line.inner_text()

    def fits(self) -> bool:
        """Return whether the page is as wide as the window."""
        return self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_tab(browser: Any, server: AppServer, image: str, lang: str, viewport: dict[str, int]) -> None:
    visitor = Visitor(browser, server.url, lang, viewport)
    page, words = visitor.page, visitor.words
    page.get_by_text({"zh": "点击上传", "en": "Click to Upload"}[lang]).first.wait_for()  # Gradio's own words
    visitor.upload(image)
    page.get_by_role("button", name=words("run"), exact=True).first.click()
    assert "ms" in visitor.status("ms")
    assert visitor.panel().locator("a[download]").count() >= 4
    visitor.open_tab("compare")
    visitor.upload(image)
    page.get_by_role("button", name=words("run compare")).click()
    visitor.status("yolov5n-AKConv")
    assert visitor.panel().locator("img").count() == 3
    visitor.open_tab("explain")
    visitor.upload(image)
    shown = visitor.panel().locator("img").first
    box = shown.bounding_box()
    # The image is centred in its box, as large as it can be.
    scale = min(box["width"] / WIDTH, box["height"] / HEIGHT)
    left, top = (box["width"] - scale * WIDTH) / 2, (box["height"] - scale * HEIGHT) / 2
    shown.click(position={"x": left + 600 * scale, "y": top + 130 * scale})
    found = re.search(r"(\d+), (\d+)", visitor.status(r"\d+, \d+"))
    assert found is not None and abs(int(found[1]) - 600) <= 3 and abs(int(found[2]) - 130) <= 3
    figures = visitor.panel().locator(".figures img")
    figures.first.wait_for()
    assert figures.count() >= 5
    assert figures.evaluate_all("images => images.every(i => i.complete && i.naturalWidth > 100)")
    visitor.open_tab("help")
    page.get_by_text("python train.py --help").wait_for()
    assert visitor.fits()
    assert visitor.hosts <= {"http://127.0.0.1", "blob:", "data:"}
    assert visitor.problems == []


def test_the_language_switch(browser: Any, server: AppServer) -> None:
    visitor = Visitor(browser, server.url, "zh", DESKTOP)
    visitor.page.get_by_role("link", name="English").click()
    visitor.page.get_by_role("button", name="Detect", exact=True).wait_for()
    visitor.page.get_by_role("link", name="中文").click()
    visitor.page.get_by_role("button", name="开始检测").first.wait_for()


def test_an_error_is_a_line_of_text(browser: Any, server: AppServer, tmp_path: Path) -> None:
    visitor = Visitor(browser, server.url, "en", DESKTOP)
    visitor.page.get_by_role("button", name="Detect", exact=True).first.click()
    visitor.status("image first")
    broken = tmp_path / "a <img src=x>.png"
    broken.write_bytes(b"\x89PNG no image")
    visitor.open_tab("files")
    with visitor.page.expect_response(lambda response: "/upload?" in response.url):
        visitor.panel().locator("input[type=file]").first.set_input_files(str(broken))
    visitor.page.wait_for_timeout(500)
    visitor.panel().get_by_role("button", name="Detect", exact=True).click()
    visitor.status("Not done")
    assert visitor.panel().locator(".status img").count() == 0
    assert visitor.hosts <= {"http://127.0.0.1", "blob:", "data:"}
