"""The simulated scheduler beside vLLM's own: the same iterations, to the token and the block."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.simulation.cases import random_case, simulated

HERE = Path(__file__).parent
RECORDED = sorted((HERE / "data").glob("*.json"))
TOOLS = Path(os.environ.get("TUNER_TOOLS", Path(__file__).parents[3] / ".tools"))
PYTHON = TOOLS / "vllm" / "bin" / "python"


def check(case: dict[str, Any], trace: dict[str, Any]) -> None:
    found = simulated(case)
    for number, (ours, theirs) in enumerate(
        zip(found["iterations"], trace["iterations"], strict=False)
    ):
        assert ours == theirs, f"iteration {number} of {case['settings']}"
    assert found == trace


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_schedules_like_the_recorded_vllm(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    check(record["case"], record["trace"])


@pytest.mark.engine
@pytest.mark.timeout(900)
@pytest.mark.skipif(not PYTHON.exists(), reason="no vLLM; see make tools")
def test_schedules_like_vllm_itself() -> None:
    cases = [random_case(seed) for seed in range(200)]
    done = subprocess.run(
        [str(PYTHON), str(HERE / "vllm_schedule.py")],
        input=json.dumps({"cases": cases}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    traces = json.loads(done.stdout.splitlines()[-1])
    assert sum(one[2] for trace in traces for one in trace["requests"]) > 500, "no preemptions"
    assert sum(one[1] for trace in traces for one in trace["requests"]) > 5000, "nothing cached"
    for case, trace in zip(cases, traces, strict=True):
        check(case, trace)
