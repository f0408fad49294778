"""A whole search over a script: coordinate ascent among configurations that do not work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from tests.trainables.script.conftest import PROGRAMS
from tests.tuner.runs import assert_nothing_left, events, ledger, run

pytestmark = pytest.mark.ray

EXPERIMENT = {
    "name": "demo",
    "trial": {
        "type": "script",
        "preset": "rouge",
        "start": {"command": [sys.executable, "server.py"], "cwd": str(PROGRAMS)},
        "ready": {"timeout": 20},
        "port": None,
        "evaluate": {"command": [sys.executable, "evaluate.py"], "runs": 2, "timeout": 30},
        "constants": {"MAX_NEW_TOKENS": 48},
        "stop_grace": 0.5,
        "cooldown": 0,
    },
    "search": {
        "type": "coordinate_ascent",
        "start": {"BEHAVIOUR": "grandchildren", "LEVEL": 1},
        "space": {
            "BEHAVIOUR": {"type": "enum", "values": ["grandchildren", "crash"]},
            "LEVEL": {"type": "enum", "values": [1, 5, 9]},
            "EVALUATION": {"type": "enum", "values": ["fine", "fail 2", "fail"]},
        },
    },
    "objective": {
        "maximize": "total_tps",
        "limits": [{"metric": "accuracy", "min": 0.8}, {"metric": "ok_runs", "min": 2}],
    },
    "budget": {"concurrent": 1, "retries": 0},
    "cluster": {"dashboard": False, "resources": {"CPU": 0.5}},
}


def test_the_best_that_is_accurate_enough_is_delivered(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump({**EXPERIMENT, "storage": str(tmp_path)}, sort_keys=False))
    done = run("run", file, "--json", storage=tmp_path)
    assert done.process.returncode == 0, done.said()
    best = {"BEHAVIOUR": "grandchildren", "LEVEL": 5, "EVALUATION": "fine"}
    measured = {
        (one["parameters"]["LEVEL"], one["parameters"]["EVALUATION"]): one
        for one in ledger(done.folder)
    }
    assert measured.keys() == {(1, "fine"), (5, "fine"), (9, "fine"), (5, "fail 2")}
    assert measured[5, "fine"]["metrics"]["total_tps"] == pytest.approx(7515.5)
    assert measured[9, "fine"]["metrics"]["total_tps"] > 7515.5
    assert measured[5, "fail 2"]["data"]["status"] == "partial"
    failures = [one["failure"] for one in events(done.folder, "failed")]
    assert [one["record"]["status"] for one in failures] == ["crashed", "failed"]
    delivered = Path(done.result()["delivered"])
    assert yaml.safe_load((delivered / "parameters.json").read_text()) == best
    script = (delivered / "serve.sh").read_text()
    assert "export LEVEL=5" in script
    assert "export MAX_NEW_TOKENS=48" in script
    assert_nothing_left(done.folder)
