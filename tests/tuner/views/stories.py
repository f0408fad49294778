"""Stories as a run would tell them, from what the original tool was driven with."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from trainables import Measurement
from trainables.quantization import parse_practice, with_added_fallback, with_fallback
from tuner._judge import Check
from tuner._store import ARTIFACTS, RunStore
from tuner.views import Finished, Story
from tuner.views.msmodelslim import MsModelSlimOptions, MsModelSlimView

DATA = Path(__file__).parent / "data"
BEGAN = datetime.fromisoformat("2026-11-24T10:00:00+00:00")


def told(name: str) -> dict[str, Any]:
    """What the tool was told in ``data/<name>.yaml``."""
    return dict(yaml.safe_load((DATA / f"{name}.yaml").read_text()))


def evaluation(name: str) -> dict[str, Any]:
    """The plan's evaluation block with all defaults, as the tool fills them in."""
    return dict(json.loads((DATA / name / "evaluation.json").read_text()))


def practices(name: str) -> list[dict[str, Any]]:
    """The practices of a story as our own trials would carry them out."""
    story = told(name)
    strategy = story["strategy"]
    if strategy["type"] == "binary_fallback":
        template = parse_practice(strategy["template"])
        path = strategy["rollback_path"]
        return [with_fallback(template, path, layers).document() for layers in story["levels"]]
    found = []
    for level in story["levels"]:
        spec = dict(strategy["template"])
        anti_outlier = strategy["anti_outlier_strategies"][level["strategy"]]
        spec["process"] = [*anti_outlier, *spec["process"]]
        practice = parse_practice({"metadata": strategy["metadata"], "spec": spec})
        found.append(with_added_fallback(practice, level["layers"]).document())
    return found


def candidate(
    store: RunStore,
    number: int,
    practice: dict[str, Any],
    accuracies: dict[str, float],
    *,
    satisfied: bool | None,
    at: str | None = None,
) -> Finished:
    """A measured candidate whose weights lie in the run's folder."""
    identity = f"{number:02d}{'0' * 62}"
    trial = store.trial_folder(identity)
    weights = trial / ARTIFACTS / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    (weights / "model.safetensors").write_text(f"weights {number}")
    measurement = Measurement(
        identity=identity,
        type="quantization",
        kind="candidate",
        parameters={"fallback": [f"layer.{number}"]},
        repeat=0,
        metrics={f"{name}/accuracy": value for name, value in accuracies.items()},
        data={},
        artifacts={"weights": {"path": str(weights), "files": {}, "practice": practice}},
        environment={},
        stages=(),
        attempt=1,
        run_id="run",
        started="2026-11-24T10:00:00+00:00",
        seconds=1.0,
    )
    checks = tuple(
        Check(f"{name}/accuracy", value, 0.0, lower_is_better=False, ok=True)
        for name, value in accuracies.items()
    )
    return Finished(
        number=number,
        kind="candidate",
        repeat=0,
        parameters=measurement.parameters,
        status="measured",
        measurement=measurement,
        checks=checks,
        satisfied=satisfied,
        at=at or (BEGAN + timedelta(minutes=number)).isoformat(),
    )


def failure(number: int) -> Finished:
    return Finished(
        number=number,
        kind="candidate",
        repeat=0,
        parameters={"fallback": [f"layer.{number}"]},
        status="failed",
        failure={"class": "out_of_memory", "message": "no memory"},
        at=BEGAN.isoformat(),
    )


def story(folder: Path, name: str = "binary_fallback", **changes: Any) -> Story:
    """The story of ``data/<name>.yaml``, of a run below ``folder``."""
    store = RunStore(folder / "run")
    results = told(name)["results"]
    finished = tuple(
        candidate(store, number, practice, result["accuracies"], satisfied=result["satisfied"])
        for number, (practice, result) in enumerate(zip(practices(name), results, strict=True))
    )
    experiment: Any = None
    return replace(Story(experiment=experiment, store=store, finished=finished), **changes)


def deliver(told: Story, winner: int, verdict: str = "satisfied") -> Story:
    """The story's end: the weights of one candidate moved to ``best/``, all others gone."""
    store, best = told.store, told.finished[winner]
    (store.best / "weights").mkdir(parents=True, exist_ok=True)
    (store.best / "weights" / "model.safetensors").write_text(f"weights {winner}")
    store.prune([])
    return replace(told, verdict=verdict, best=best.parameters, verified=best.measurement)


def view(folder: Path, name: str = "binary_fallback", **options: Any) -> MsModelSlimView:
    """The view of a story whose ``save_path`` is ``<folder>/save``."""
    pedigree = options.pop("pedigree", lambda: "qwen3")
    block = {"folder": str(folder / "save"), "evaluation": evaluation(name)} | options
    return MsModelSlimView(MsModelSlimOptions.model_validate(block), pedigree=pedigree)


def tree(folder: Path) -> dict[str, Any]:
    """Every file of a folder: its content, or where a link leads; hidden files too."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }
