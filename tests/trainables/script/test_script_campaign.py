"""A whole search over a script: coordinate ascent among configurations that do not work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from tests.trainables.script.conftest import PROGRAMS
from tests.tuner.runs import Run, assert_nothing_left, events, ledger, run

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


def test_everything_may_be_named_in_chinese(tmp_path: Path) -> None:
    storage = tmp_path / "结果"
    work = tmp_path / "服务"
    work.mkdir()
    evaluation = "import os; print('吞吐: ' + os.environ['批大小'])"
    document = {
        "name": "模型-一",
        "trial": {
            "type": "script",
            "start": {
                "command": [sys.executable, "-m", "http.server", "$PORT", "--bind", "$HOST"],
                "cwd": str(work),
            },
            "evaluate": {"command": [sys.executable, "-c", evaluation], "runs": 1},
            "metrics": {"吞吐": {"pattern": "吞吐: ([0-9.]+)"}},
        },
        "search": {"type": "grid", "space": {"批大小": {"type": "enum", "values": [4, 8]}}},
        "objective": {"maximize": "吞吐"},
        "budget": {"concurrent": 1},
        "cluster": {"dashboard": False, "resources": {"CPU": 0.5}},
        "storage": str(storage),
    }
    file = tmp_path / "实验.yaml"
    file.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    done = Run("run", file, "--json", storage=storage, name="模型-一")
    assert done.wait() == 0, done.said()
    assert done.result()["best"] == {"批大小": 8}
    assert "吞吐 8" in done.said()
    assert "env -- '批大小=8'" in (Path(done.result()["delivered"]) / "serve.sh").read_text()
    assert_nothing_left(done.folder)
