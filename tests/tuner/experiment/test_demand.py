"""``NPU: auto``: the number of devices comes from the trial, or is refused where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from searchers import Proposal
from tuner.experiment import Experiment, ExperimentError, SizeUnknown, load_experiment, to_yaml

SPACE = {
    "tensor-parallel-size": {"type": "enum", "values": [1, 2, 4, 8]},
    "pipeline_parallel_size": {"type": "int", "low": 1, "high": 2},
    "max-num-seqs": {"type": "int", "low": 1, "high": 256},
}


@pytest.fixture
def experiment(tmp_path: Path) -> Any:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"weights")

    def make(**changes: Any) -> Experiment:
        document: dict[str, Any] = {
            "name": "sizes",
            "trial": {
                "type": "serving",
                "model": str(tmp_path / "model"),
                "engine": {"type": "vllm", "command": ["sh"]},
                "load": {"type": "fixed", "concurrency": 4},
            },
            "search": {"type": "random", "space": SPACE, "trials": 4},
            "objective": {"maximize": "output_tokens_per_s"},
            "cluster": {"resources": {"CPU": 2, "NPU": "auto"}},
            "storage": str(tmp_path),
        }
        for key, value in changes.items():
            document[key] = document.get(key, {}) | value
        file = tmp_path / "experiment.yaml"
        file.write_text(to_yaml(document))
        return load_experiment(file)

    return make


def devices(experiment: Experiment, **parameters: Any) -> float | None:
    placement = experiment.placement(parameters, "candidate")
    return placement.total.get("NPU")


def test_vllm_takes_the_product_of_its_parallel_sizes(experiment: Any) -> None:
    it = experiment()
    assert devices(it) == 1
    assert devices(it, **{"tensor-parallel-size": 4, "pipeline_parallel_size": 2}) == 8
    assert devices(it, **{"data-parallel-size": 2, "tensor_parallel_size": 2}) == 4
    many = {"data-parallel-size": 16, "data-parallel-size-local": 2}
    assert devices(it, **many) == 2, "the others are on other nodes"


def test_arguments_of_the_engine_count_as_well(experiment: Any) -> None:
    engine = {
        "type": "vllm",
        "command": ["sh"],
        "extra_args": ["-tp", "2", "--data-parallel-size=2"],
    }
    it = experiment(trial={"engine": engine})
    assert devices(it) == 4
    assert devices(it, **{"tensor-parallel-size": 1}) == 2


def test_mindie_takes_its_world_size(experiment: Any, tmp_path: Path) -> None:
    world = "BackendConfig.ModelDeployConfig.ModelConfig.0.worldSize"
    installed = '{"BackendConfig": {"ModelDeployConfig": {"ModelConfig": [{"worldSize": 4}]}}}'
    (tmp_path / "config.json").write_text(installed)
    engine = {"type": "mindie", "command": ["sh"], "config_path": str(tmp_path / "config.json")}
    space = {"world": {"type": "enum", "values": [2, 8]}}
    trial = {"engine": engine, "positions": {"world": world}}
    it = experiment(trial=trial, search={"space": space})
    assert devices(it) == 4
    assert devices(it, world=8) == 8
    it = experiment(trial={"engine": engine | {"config": {world: 2}}})
    assert devices(it) == 2


def test_a_simulated_engine_takes_none(experiment: Any) -> None:
    engine = {"type": "simulated", "of": {"type": "vllm"}, "device_memory": "64GiB"}
    it = experiment()
    simulated = type(it.trial)(type(it.trial).Options.model_validate(
        it.trial.settings()["options"] | {"engine": engine}
    ))  # fmt: skip
    assert simulated.devices({"tensor-parallel-size": 8}, "candidate") == 0


def test_what_is_no_number_is_no_size(experiment: Any) -> None:
    with pytest.raises(SizeUnknown, match="how many NPU"):
        experiment().placement({"tensor-parallel-size": "many"}, "candidate")


def test_the_ends_of_the_space_are_known_before_the_search(experiment: Any) -> None:
    it = experiment()
    found = it.sizes([Proposal(0, {}, "baseline")])
    totals = [size.placement.total["NPU"] for size in found]
    assert totals == [1, 2, 4, 8, 16]
    assert found[0].kind == "baseline"


def test_trials_that_cannot_tell_are_refused_before_anything_starts(experiment: Any) -> None:
    with pytest.raises(ExperimentError, match=r"cluster\.resources\.NPU: auto: such trials do not"):
        experiment(trial={"engine": {"type": "script", "command": ["sh", "run.sh"]}})


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"CPU": "auto"}, "only NPU or GPU may be auto"),
        ({"NPU": "auto", "GPU": "auto"}, "only one of them may be auto"),
        ({"NPU": "many"}, "cluster.resources.NPU"),
    ],
)
def test_what_else_is_automatic_is_refused(
    experiment: Any, resources: dict[str, Any], said: str
) -> None:
    with pytest.raises(ExperimentError, match=said):
        experiment(cluster={"resources": resources})


def test_local_weights_are_a_folder_or_a_block(experiment: Any) -> None:
    plain = experiment(cluster={"local_weights": "/nvme"}).cluster.local_weights
    assert plain.folder == "/nvme" and plain.copies == 3 and plain.space is None
    block = {"folder": "/nvme", "copies": 1, "space": "500GB", "timeout": "2H"}
    whole = experiment(cluster={"local_weights": block}).cluster.local_weights
    assert whole.space == 500_000_000_000 and whole.timeout == 7200
    with pytest.raises(ExperimentError, match="local_weights"):
        experiment(cluster={"local_weights": "relative"})
