"""``tune`` with the real msModelSlim, vLLM and AISBench, on a model that quantization hurts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.addition_model import write_addition_model
from tests.endtoend.adder import (
    SPOILED,
    TOOLS,
    binary_fallback,
    standing_high,
    tools,
    write_data,
    write_plan,
)
from tests.tuner.runs import assert_nothing_left, assert_nothing_measured_twice

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model, its data, and nothing else."""
    folder = tmp_path_factory.mktemp("adder")
    write_addition_model(folder / "model", outliers=SPOILED, threads=2)
    return folder


def tune(world: Path, name: str, plan: Path, *arguments: str) -> tuple[dict[str, Any], Path]:
    """The answer of a run, and its save_path."""
    save = world / name
    _, configs = write_data(world / "data", 60)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tuner", "tune", "--json", "--device", "cpu"),
            *("--model_path", str(world / "model"), "--save_path", str(save)),
            *("--config", str(plan), *tools()),
            *("--set", f"trial.evaluation.settings.config_dir={configs}"),
            *("--set", "cluster.dashboard=false", *arguments),
        ],
        env={**os.environ, "MSMODELSLIM_CUSTOM_PRACTICE_REPO": str(world / "practices")},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    print(done.stderr)
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-2000:]
    return json.loads(done.stdout.splitlines()[-1]), save


def test_binary_fallback_finds_the_spoiled_blocks_and_delivers_what_was_measured(
    world: Path,
) -> None:
    calibration, _ = write_data(world / "data", 60)
    plan = write_plan(world / "binary_fallback.yaml", binary_fallback(calibration))
    result, save = tune(world, "binary", plan)

    assert result["verdict"] == "satisfied"
    assert result["best"]["fallback"] == [f"*model.layers.{block}.*" for block in SPOILED]
    assert_nothing_measured_twice(save / "tuner")
    assert_nothing_left(save / "tuner")

    left_in_float = _float_blocks(save / "quant_model")
    assert left_in_float == set(SPOILED)
    records = yaml.safe_load((save / "history" / "history.yaml").read_text())["records"]
    accuracies = [each["evaluation"]["accuracies"] for each in records]
    assert accuracies[0] == []  # plain quantization fails the precheck
    found = {float(item["accuracy"]) for each in accuracies for item in each}
    assert max(found) >= 97 > min(found)
    assert records[-1]["evaluation"]["is_satisfied"]

    again, _ = tune(world, "binary", plan)
    assert again["trials_run"] == 0
    assert again["best"] == result["best"]


def test_the_practice_is_found_by_msmodelslim_itself(world: Path) -> None:
    practices = list((world / "practices").glob("*/*.yaml"))
    assert practices, "binary_fallback saved none"
    done = subprocess.run(
        [
            *(str(TOOLS / "msmodelslim/bin/msmodelslim"), "quant", "--quant_type", "w8a8"),
            *("--model_path", str(world / "model"), "--save_path", str(world / "again")),
            *("--device", "cpu", "--model_type", "default", "--trust_remote_code", "False"),
        ],
        env={**os.environ, "MSMODELSLIM_CUSTOM_PRACTICE_REPO": str(world / "practices")},
        capture_output=True,
        text=True,
        input="y\n",  # of the model type `default` it asks whether the practice suits the model
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert _float_blocks(world / "again") == set(SPOILED)


def test_standing_high_ranks_the_blocks_and_ends_as_low_as_it_can(world: Path) -> None:
    calibration, _ = write_data(world / "data", 60)
    plan = write_plan(world / "standing_high.yaml", standing_high(calibration))
    result, save = tune(world, "standing", plan)

    assert result["verdict"] == "satisfied"
    assert len(result["best"]["fallback"]) <= len(SPOILED)
    assert len(_float_blocks(save / "quant_model")) == len(result["best"]["fallback"])
    assert_nothing_left(save / "tuner")


def _float_blocks(folder: Path) -> set[int]:
    """Decoder blocks of a checkpoint without any integer weight."""
    from safetensors import safe_open

    integer, blocks = set(), set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 no mapping
                if name.startswith("model.layers."):
                    block = int(name.split(".")[2])
                    blocks.add(block)
                    if tensors.get_slice(name).get_dtype() == "I8":
                        integer.add(block)
    return blocks - integer
