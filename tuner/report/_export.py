"""Every chart of a page as a picture, for slides and papers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.cells import cell_len

from cluster import write_atomic
from tuner.report._parts import Chart, Page
from tuner.report._vega import VEGA_LITE

_WIDTH = 720
_SCALE = 2.0
_FONT = "sans-serif"
_CHINESE_FONT = (
    '"Noto Sans CJK SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei", '
    '"WenQuanYi Micro Hei", "WenQuanYi Zen Hei", sans-serif'
)
"""Where it has to be named: else letters that the usual font lacks are taken from any other."""


def export_charts(page: Page, folder: Path) -> list[Path]:
    """Write ``NAME.svg`` and ``NAME.png`` of each chart, dark on white; the files written.

    No browser is needed. Raises :class:`OSError` where the folder cannot be written.
    """
    import vl_convert

    files: list[Path] = []
    for chart in page.charts:
        spec = _alone(chart)
        svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE)
        png = vl_convert.vegalite_to_png(spec, vl_version=VEGA_LITE, scale=_SCALE)
        pictures = (folder / f"{chart.name}.svg", folder / f"{chart.name}.png")
        write_atomic(pictures[0], svg)
        write_atomic(pictures[1], png)
        files += pictures
    return files


def _alone(chart: Chart) -> dict[str, Any]:
    """The chart with a title and a width of its own."""
    said = json.dumps(chart.spec, ensure_ascii=False) + chart.title
    config = {
        "font": _FONT if cell_len(said) == len(said) else _CHINESE_FONT,
        "view": {"stroke": None},
        "axis": {"gridColor": "#e3e7ec"},
        "axisX": {"labelFlush": False, "labelOverlap": "greedy", "tickCount": 8},
    }
    return {
        **chart.spec,
        "width": _WIDTH,
        "background": "white",
        "title": {"text": chart.title, "anchor": "start"},
        "config": config,
    }
