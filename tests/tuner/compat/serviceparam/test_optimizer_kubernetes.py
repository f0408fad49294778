"""``--pd disaggregation``: settings of the original's single-node deployment on Kubernetes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mindie_k8s import K8sWorld, k8s_world
from tests.tiny_qwen3 import write_tiny_qwen3
from tests.tuner.compat.serviceparam.settings import filled, problems, translated
from tests.tuner.optimizer import World
from tests.tuner.runs import assert_nothing_left, assert_nothing_measured_twice

RATES = """
[[mindie.target_field]]
name = "default_p_rate"
config_position = "default_p_rate"
min = 1
max = 3
dtype = "int"
value = 1
[[mindie.target_field]]
name = "default_d_rate"
config_position = "default_d_rate"
min = 1
max = 3
dtype = "share"
dtype_param = "default_p_rate"
"""
INSIDE = "/mnt/mindie-service/ms/model"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[K8sWorld]:
    model = write_tiny_qwen3(tmp_path / "model", hidden=64, head_dim=16)
    with k8s_world(tmp_path / "k8s", model, inside=INSIDE) as made:
        yield made


def settings(world: K8sWorld | None) -> str:
    """The shipped settings, with what the original's guide says for this mode."""
    text = filled("mindie").replace("[ais_bench.command]", f"{RATES}\n[ais_bench.command]")
    folder = "" if world is None else world.scripts
    return text.replace('kubectl_default_path = ""', f'kubectl_default_path = "{folder}"')


def test_the_settings_come_to_deployments_one_after_the_other(
    world: K8sWorld, tmp_path: Path
) -> None:
    found = translated(settings(world), tmp_path, "mindie", "ais_bench", disaggregated=True)
    assert not found.problems
    trial = found.data["trial"]
    assert trial["engine"] == {
        "type": "mindie-k8s",
        "folder": str(world.scripts),
        "replace": True,
        "startup_timeout": 1800,
        "served_model_name": "tiny",
    }
    # What the pods see at another path is a folder of the node.
    assert trial["model"] == str(world.model)
    assert found.data["cluster"] == {"resources": {"NPU": 8}}
    assert found.data["budget"] == {"concurrent": 1}
    space = found.data["search"]["space"]
    assert space["default_p_rate"] == {"type": "int", "low": 1, "high": 3}
    assert space["default_d_rate"] == {"type": "share", "of": "default_p_rate", "total": 4}
    assert trial["positions"]["default_d_rate"] == "ms_controller.default_d_rate"
    assert trial["baseline"]["default_p_rate"] == 1
    assert trial["baseline"]["default_d_rate"] == 3
    assert trial["baseline"]["max_batch_size"] == 200
    notes = "\n".join(found.notes)
    assert "--pd: what is deployed in its namespace is deleted before each trial" in notes
    assert "counts for --pd disaggregation only" not in notes


def test_the_folder_of_the_scripts_has_to_be_there(world: K8sWorld, tmp_path: Path) -> None:
    asked = {"engine": "mindie", "benchmark": "ais_bench", "disaggregated": True}
    place = "kubectl.kubectl_default_path"
    said = dict(translated(settings(None), tmp_path, **asked).problems)  # type: ignore[arg-type]
    assert "is not set; give the folder of deploy.sh" in said[place]
    gone = settings(world).replace(str(world.scripts), "/no/such/folder")
    said = dict(translated(gone, tmp_path, **asked).problems)  # type: ignore[arg-type]
    assert "cannot be read" in said[place]


def test_rates_are_for_this_mode_only(world: K8sWorld, tmp_path: Path) -> None:
    found = problems(settings(world), tmp_path, "mindie", "ais_bench")
    assert "--pd disaggregation" in found["mindie.target_field[9].config_position"]


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_over_deployments(world: K8sWorld, tmp_path: Path) -> None:
    machine = World(tmp_path / "machine").with_mindie(
        n_particles=2, iters=1, num_prompts=16, sample_size=8
    )
    file = machine.folder / "config.toml"
    text = re.sub("config_path = .*", "", file.read_text())
    text = text.replace("[ais_bench.command]", f"{RATES}\n[ais_bench.command]")
    text = text.replace('kubectl_default_path = ""', f'kubectl_default_path = "{world.scripts}"')
    file.write_text(text)
    quick = ("poll_interval=0.5", "delete_timeout=120", "startup_timeout=300")
    changes = tuple(f"trial.engine.{change}" for change in quick)
    variables = [f"trial.engine.env_vars.{k}={v}" for k, v in world.environment.items()]
    run = machine.run("--pd", "disaggregation", settings=(*changes, *variables))
    assert run.process.returncode == 0
    rows = machine.table().rows
    first, further = [row["phase"] for row in rows[:4]], {row["phase"] for row in rows[4:]}
    assert first == ["baseline", *["candidate"] * 2, "verification"]
    assert further <= {"verification"}, "of the next one, where the best did not keep its lead"
    assert not [row["error"] for row in rows if row["error"]]
    assert {int(row["default_p_rate"]) + int(row["default_d_rate"]) for row in rows} == {4}
    best = run.folder / "best"
    controller = json.loads((best / "ms_controller.json").read_text())
    assert controller["default_p_rate"] + controller["default_d_rate"] == 4
    assert "bash delete.sh mindie ." in (best / "serve.sh").read_text()
    assert world.cluster.pods == []
    assert world.files() == world.originals
    assert_nothing_measured_twice(run.folder)
    assert_nothing_left(run.folder)
