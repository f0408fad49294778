"""A ranking as YAML, as text, and as a picture."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from trainables.analysis import table, write_picture, write_table

ROOT = Path(__file__).parents[3]


def result_of(steps, metric="mse"):
    ranking = [{"layers": layers, "score": float(score), "detail": {}} for layers, score in steps]
    return {"ranking": ranking, "metric": metric, "scheme": "w8a8_static", "calibration": {}}


def many(blocks):
    steps = []
    for block in range(blocks):
        name = f"model.layers.{block}"
        steps.append(([f"{name}.self_attn.{leaf}_proj" for leaf in "qkv"], 2.0**block))
        steps.append(([f"{name}.mlp.down_proj"], 3.0**block + 0.5))
    return sorted(steps, key=lambda step: -step[1])


def test_yaml_holds_the_whole_result(tmp_path):
    result = result_of(many(4))
    write_table(result, tmp_path / "new" / "ranking.yaml")
    assert yaml.safe_load((tmp_path / "new" / "ranking.yaml").read_text()) == result


def test_the_table_shows_every_step_and_names_every_layer():
    lines = table(result_of(many(3))).splitlines()
    assert len(lines) == 7
    assert lines[1].split()[:2] == ["1", "9.5"]
    assert lines[1].count("#") > lines[2].count("#") > lines[4].count("#")
    assert "model.layers.0.self_attn.{q_proj,k_proj,v_proj}" in lines[-2] + lines[-1]
    assert table(result_of(many(3)), top=2).splitlines()[-1].strip() == "... and 4 more"


@pytest.mark.parametrize(
    "steps",
    [
        many(40),
        many(1),
        [(["score"], 1.0)],
        [(["model.layers.0.mlp.down_proj"], 0.0), (["model.layers.1.mlp.down_proj"], -1.3)],
        [([f"model.layers.{n}.mlp.down_proj" for n in range(3)], 0.0)],
    ],
)
def test_pictures_of_all_shapes(tmp_path, steps):
    from matplotlib.image import imread

    write_picture(result_of(steps), tmp_path / "ranking.png")
    height, width, _ = imread(tmp_path / "ranking.png").shape
    assert height > 400
    assert width > 600


def test_importing_needs_neither_torch_nor_matplotlib():
    code = (
        "import trainables.analysis, sys; "
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        check=True,
        timeout=60,
    )
