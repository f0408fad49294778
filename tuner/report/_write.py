"""Reports as files."""

from __future__ import annotations

from pathlib import Path

from cluster import write_atomic
from tuner.report._page import render
from tuner.report._parts import Page
from tuner.report._read import read_run
from tuner.report._sections import report_page

REPORT = "report.html"


def write_page(page: Page, file: Path) -> None:
    """Write a page; a reader sees the old one or the new one, never half of it.

    Raises :class:`OSError` where it cannot be written, :class:`ImportError` where the package
    that draws charts is missing.
    """
    write_atomic(file, render(page))


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into a run's folder, and answer where it is; raises as
    :func:`write_page`. The run may be under way."""
    file = folder / REPORT
    write_page(report_page(read_run(folder)), file)
    return file
