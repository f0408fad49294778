"""The Grafana dashboard against what a live run really exports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.runs import ENVIRONMENT, write_experiment

ROOT = Path(__file__).resolve().parents[3]
DASHBOARD = ROOT / "configs" / "grafana" / "tuner.json"
PROGRAM = Path(__file__).parent / "programs" / "live_run.py"
_SERIES = re.compile(r"(?P<name>ray_tuner_\w+)\{(?P<selectors>[^}]*)\}")
_NAME = re.compile(r"\bray_tuner_\w+")
_SELECTOR = re.compile(r'(?P<label>\w+)(?P<operator>=~?)"(?P<value>[^"]*)"')
_BY = re.compile(r"by \((?P<labels>[^)]*)\)")


def dashboard() -> dict[str, Any]:
    return dict(json.loads(DASHBOARD.read_text()))


def expressions() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def asked() -> set[str]:
    """Series that panels and variables ask for."""
    variables = json.dumps(dashboard()["templating"])
    return set(_NAME.findall(" ".join([variables, *expressions()])))


@pytest.mark.parametrize("guide", ["report.md", "report.zh.md"])
def test_the_guide_has_the_series_of_the_dashboard(guide: str) -> None:
    text = (ROOT / "docs" / guide).read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `ray_tuner_")]
    assert set(_NAME.findall("\n".join(rows))) == asked()


@pytest.mark.parametrize("guide", ["runs.md", "runs.zh.md", "operations.md", "operations.zh.md"])
def test_other_guides_name_the_series_as_they_are_exported(guide: str) -> None:
    text = (ROOT / "docs" / guide).read_text(encoding="utf-8")
    assert "`ray_tuner_*`" in text and not re.search(r"(?<!ray_)\btuner_", text)


def test_every_panel_asks_the_chosen_data_source_for_the_chosen_experiment() -> None:
    names = {variable["name"] for variable in dashboard()["templating"]["list"]}
    assert names == {"datasource", "experiment"}
    for panel in dashboard()["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert 'experiment=~"$experiment"' in target["expr"], panel["title"]


def test_panels_have_names_and_places_of_their_own() -> None:
    panels = dashboard()["panels"]
    taken = {
        (x, y)
        for panel in panels
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    }
    assert len(taken) == sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in panels)
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.slow
@pytest.mark.ray
def test_everything_it_asks_for_is_exported_by_a_live_run(tmp_path: Path) -> None:
    experiment = write_experiment(
        tmp_path,
        trial={
            "seconds": 2.0,
            "optimum": {"x": 3},
            "failure_rate": 0.5,
            "threshold": 0,
            "stages": ["deploy", "measure"],
        },
        search={
            "type": "random",
            "trials": 8,
            "space": {"x": {"type": "int", "low": 0, "high": 9}},
        },
        objective={
            "maximize": "score",
            "expectations": [],
            "limits": [{"metric": "accuracy", "min": 0.1}, {"metric": "score", "min": -4}],
        },
    )
    scraped = tmp_path / "metrics.txt"
    ended = subprocess.run(
        [sys.executable, PROGRAM, experiment, scraped],
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    text = scraped.read_text()
    found = [
        (match["name"], dict(re.findall(r'(\w+)="([^"]*)"', match["labels"])))
        for match in re.finditer(r"(?m)^(?P<name>ray_tuner_\w+)\{(?P<labels>[^}]*)\}", text)
    ]
    for expression in expressions():
        (series,) = _SERIES.finditer(expression)
        wanted = {
            selector["label"]: "demo" if selector["value"] == "$experiment" else selector["value"]
            for selector in _SELECTOR.finditer(series["selectors"])
        }
        grouped = _BY.search(expression)
        labels = set() if grouped is None else {one.strip() for one in grouped["labels"].split(",")}
        assert any(
            name == series["name"] and wanted.items() <= have.items() and labels <= have.keys()
            for name, have in found
        ), f"{expression}: not exported"
    assert {name for name, _ in found} == asked(), "exported, and what is shown"
    of_metric = {name: 0 for name, _ in found}
    for name, _ in found:
        of_metric[name] += 1
    assert max(of_metric.values()) <= 10, "a tag has as many values as there are trials"
