"""Reports as a browser shows them: headless Chromium at the width of a desktop and of a phone.

Screenshots go to ``$TUNER_SCREENSHOTS``, where that is set.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.report.chinese import chinese_run
from tests.tuner.report.folders import KINDS, Folder, hostile_run, rates, serving, serving_run
from tuner.report import ReportServer, comparison_page, read_run, write_page, write_report

pytestmark = pytest.mark.slow

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_WIDTHS = (1280, 390)


def empty_run(path: Path) -> Path:
    """A run that has not begun."""
    return Folder(path, serving(path.name)).path


RUNS = {**KINDS, "chinese": chinese_run, "hostile": hostile_run, "empty": empty_run}
_DRAWN = "path:not(.background), line, text"
"""What a mark of a chart consists of."""
_LEAST_HEIGHT = 40


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium here; make browser installs it")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


class Shown:
    """A page in the browser, and everything that it complained of or asked the network for."""

    def __init__(self, browser: Any, url: str, width: int, scheme: str) -> None:
        size = {"width": width, "height": 900}
        self.page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: self.faults.append(f"dialog {dialog.message}"))
        self.page.goto(url)
        self.page.wait_for_selector("html[data-ready]", state="attached", timeout=60_000)

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"{message.type}: {message.text}")

    def beyond(self) -> int:
        """Pixels that the page is wider than the window."""
        script = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(script))

    def empty_charts(self) -> list[str]:
        """Names of charts in which nothing is drawn, or nothing that a person could see."""
        found = []
        for chart in self.page.locator("[data-chart]").all():
            marks = chart.locator("svg g.role-mark").locator(_DRAWN)
            size = chart.bounding_box() or {"height": 0.0}
            if not marks.count() or size["height"] < _LEAST_HEIGHT:
                found.append(str(chart.get_attribute("data-chart")))
        return found

    def save(self, name: str) -> None:
        if folder := os.environ.get("TUNER_SCREENSHOTS"):
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@pytest.mark.parametrize("width", _WIDTHS)
@pytest.mark.parametrize("name", RUNS)
def test_a_report_fits_and_makes_no_complaint(
    browser: Any, tmp_path: Path, name: str, width: int
) -> None:
    file = write_report(RUNS[name](tmp_path / name))
    scheme = "light" if width > 1000 else "dark"
    shown = Shown(browser, file.as_uri(), width, scheme)
    shown.save(f"{name}-{width}")
    assert shown.faults == []
    assert [url for url in shown.requests if not url.startswith(("file:", "data:"))] == []
    assert shown.beyond() == 0
    assert shown.empty_charts() == []
    assert (shown.page.locator("[data-chart]").count() > 0) == (name != "empty")


@pytest.mark.parametrize("width", _WIDTHS)
def test_a_comparison_fits_and_makes_no_complaint(browser: Any, tmp_path: Path, width: int) -> None:
    runs = [
        read_run(serving_run(tmp_path / name, winner=winner))
        for name, winner in (("one", 150.0), ("two", 180.0), ("three", 120.0))
    ]
    file = tmp_path / "compare.html"
    write_page(comparison_page(runs), file)
    shown = Shown(browser, file.as_uri(), width, "light")
    shown.save(f"compare-{width}")
    assert shown.faults == [] and shown.beyond() == 0
    assert shown.empty_charts() == []


def test_the_reader_may_sort_copy_and_darken(browser: Any, tmp_path: Path) -> None:
    file = write_report(serving_run(tmp_path / "run"))
    shown = Shown(browser, file.as_uri(), 1280, "light")
    page = shown.page
    for folded in page.locator("details").all():
        folded.evaluate("one => { one.open = true; }")
    head = page.locator("#trials thead th", has_text="output_tokens_per_s")
    head.click()
    head.click()
    assert page.locator("#trials tbody tr").first.locator("td").nth(2).inner_text() == "500"
    page.locator("#reproduce [data-copy]").first.click()
    said = page.locator("#reproduce [data-copy]").first
    said.filter(has_text=re.compile("copied|selected")).wait_for(timeout=10_000)
    page.locator("#theme").click()
    page.wait_for_selector('html[data-theme="dark"]', state="attached")
    assert shown.faults == []


def test_a_served_report_grows_by_itself(browser: Any, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run", serving())
    folder.measured({"a": 1}, rates(1.0))
    with ReportServer(folder.path) as server:
        shown = Shown(browser, server.url, 1280, "light")
        assert shown.page.locator("#trials tbody tr").count() == 1
        folder.measured({"a": 2}, rates(2.0))
        shown.page.locator("#trials tbody tr").nth(1).wait_for(timeout=30_000)
        assert shown.faults == []
