"""A page as one self-contained HTML file: no network, no script but its own."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib.resources import files
from itertools import groupby

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from rich.cells import cell_len

from tuner.report._parts import Block, Page
from tuner.report._vega import charts_code

_LONG, _LONGER = 14, 100


def render(page: Page, *, live: str = "") -> str:
    """The page as HTML.

    Charts are drawn in the browser by Vega-Embed, which is part of the page. Its Content Security
    Policy lets no other script run and nothing be fetched, whatever stands in names and logs.

    Args:
        live: Version of what is shown, for a page that reloads itself when the server's
            ``version`` is another one; empty: a page that stands alone.
    """
    charts = page.charts
    code = charts_code() if charts else ""
    script = _template("page.js")
    scripts = [text for text in (code, script) if text]
    return (
        _environment()
        .get_template("page")
        .render(
            page=page,
            live=live,
            policy=_policy(scripts, live=bool(live)),
            style=Markup(_template("page.css")),
            charts=_json({chart.name: chart.spec for chart in charts}),
            charts_js=Markup(code),
            page_js=Markup(script),
            footer=f"Written by npu-tuner {datetime.now(UTC):%Y-%m-%d %H:%M UTC}.",
        )
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import DictLoader

    environment = Environment(
        loader=DictLoader({"page": _template("page.html.j2")}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["by_kind"] = _by_kind
    environment.filters["room"] = _room
    return environment


def _by_kind(blocks: Sequence[Block]) -> Iterable[tuple[str, list[Block]]]:
    for kind, group in groupby(blocks, key=lambda block: type(block).__name__):
        yield kind, list(group)


def _room(text: str) -> str:
    """The class of a cell that would be too narrow: Chinese letters, which are as wide as two
    others, may break anywhere."""
    width = cell_len(text)
    return "longer" if width > _LONGER else "long" if width > _LONG else ""


def _json(value: object) -> Markup:
    """JSON that no HTML parser finds the end of its element in."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    escaped = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return Markup(escaped)


def _policy(scripts: Iterable[str], *, live: bool) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in scripts
    )
    connect = "connect-src 'self'; " if live else ""
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        f"{connect}base-uri 'none'; form-action 'none'"
    )


@lru_cache(maxsize=8)
def _template(name: str) -> str:
    return (files("tuner.report") / "templates" / name).read_text(encoding="utf-8")
