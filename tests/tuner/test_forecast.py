"""A simulator as a prior: what it plays, what stays on disk, and what is wrong with a block."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from searchers import Bound, Goal, Json, Proposal
from tests.tiny_qwen3 import write_tiny_qwen3
from tests.trainables.serving.simulated import Linear
from tuner._agreement import agreement
from tuner._forecast import Forecast, forecast
from tuner.experiment import Document, Experiment, ExperimentError, check_experiment
from tuner.experiment import experiment_schema as schema

SPEED = "output_tokens_per_s"
SIMULATOR: dict[str, Any] = {"latency": {"type": "linear"}, "device_memory": "64GiB", "trials": 10}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_qwen3(tmp_path_factory.mktemp("model"), hidden=64, head_dim=16)


def experiment(model: Path, search: Mapping[str, Any] | None = None, **trial: Any) -> Experiment:
    data: dict[str, Any] = {
        "name": "real",
        "trial": {
            "type": "serving",
            "model": str(model),
            "engine": {"type": "vllm", "command": ["true"], "args": {"max-model-len": 512}},
            "benchmark": {
                "type": "builtin",
                "requests": 24,
                "workload": {"type": "random", "input_tokens": 40, "output_tokens": 20},
            },
            "load": {"type": "fixed", "concurrency": 8},
        }
        | trial,
        "search": {
            "type": "auto",
            "space": {
                "max-num-seqs": {"type": "enum", "values": [1, 2, 4, 8, 16]},
                "max-num-batched-tokens": {"type": "enum", "values": [512, 1024, 2048]},
                "block-size": {"type": "enum", "values": [16, 32]},
            },
            "prior": {"simulator": SIMULATOR},
        }
        | dict(search or {}),
        "objective": {"maximize": SPEED, "limits": [{"metric": "ttft_mean_s", "max": 1.0}]},
        "storage": str(model.parent / "results"),
    }
    return check_experiment(Document("test", data, {}))


def problems(model: Path, search: Mapping[str, Any] | None = None, **trial: Any) -> dict[str, str]:
    with pytest.raises(ExperimentError) as raised:
        experiment(model, search, **trial)
    return {problem.path: problem.message for problem in raised.value.problems}


def simulator(**changes: Any) -> dict[str, Any]:
    return {"prior": {"simulator": SIMULATOR | changes}}


def played(wanted: Experiment, folder: Path) -> tuple[Forecast, str]:
    lines: list[str] = []
    return forecast(wanted, folder, lines.append), "\n".join(lines)


def test_points_are_simulated_as_the_trial_would_measure_them(model: Path, tmp_path: Path) -> None:
    found, said = played(experiment(model), tmp_path)
    assert "simulated 10 points" in said
    assert not found.notes
    assert len({json.dumps(point) for point, _ in found.points}) == 10
    assert all({SPEED, "ttft_mean_s"} <= metrics.keys() for _, metrics in found.points)
    assert not any("startup_s" in metrics for _, metrics in found.points)
    speeds = [metrics[SPEED] for _, metrics in found.points]
    assert max(speeds) > 2 * min(speeds)
    best = max(found.points, key=lambda item: item[1][SPEED])
    assert best[0]["max-num-seqs"] >= 8
    strategy = found.tell(experiment(model).search.strategy())
    first = strategy.ask()
    assert isinstance(first, Proposal)
    assert "simulated output_tokens_per_s" in first.why
    assert first.parameters["max-num-seqs"] >= 8


def test_a_resumed_run_simulates_nothing_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = played(experiment(model), tmp_path)
    file = tmp_path / "prior.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "prior.jsonl").write_text("".join(lines[:5]) + lines[5][: len(lines[5]) // 2])
    resumed, _ = played(experiment(model), torn)
    assert resumed.points == whole.points
    assert (torn / "prior.jsonl").read_text() == file.read_text()

    def never(*_: object) -> float:
        raise AssertionError("simulated again")

    monkeypatch.setattr(Linear, "seconds", never)
    again, _ = played(experiment(model), tmp_path)
    assert again.points == whole.points
    slow = [line for line in lines if "parameters" in line][:3]
    last = json.dumps({"complete": [10, 300.0]}) + "\n"
    file.write_text(lines[0] + "".join(slow) + last)
    fewer, said = played(experiment(model), tmp_path)
    assert len(fewer.points) == 3, said


def test_another_simulator_begins_anew(model: Path, tmp_path: Path) -> None:
    one, _ = played(experiment(model), tmp_path)
    slower = simulator(latency={"type": "linear", "base": 0.05})
    two, _ = played(experiment(model, slower), tmp_path)
    assert max(m[SPEED] for _, m in two.points) < max(m[SPEED] for _, m in one.points)


def test_time_ends_it_and_the_search_goes_on(model: Path, tmp_path: Path) -> None:
    found, said = played(experiment(model, simulator(time=0)), tmp_path)
    assert not found.points
    assert "ended by its time limit" in said
    strategy = found.tell(experiment(model).search.strategy())
    assert strategy.trust() is None
    assert isinstance(strategy.ask(), Proposal)


def test_what_would_not_start_and_what_cannot_be_simulated(model: Path, tmp_path: Path) -> None:
    space = {"max-model-len": {"type": "enum", "values": [512, 4096]}}
    tiny = simulator(num_blocks=64) | {"space": space}
    engine = {"type": "vllm", "command": ["true"], "args": {"block-size": 16}}
    found, _ = played(experiment(model, tiny, engine=engine), tmp_path)
    assert {point["max-model-len"]: bool(said) for point, said in found.points} == {
        512: True,
        4096: False,
    }
    odd = {"kv-cache-dtype": {"type": "enum", "values": ["auto", "nonsense"]}}
    odd_folder = tmp_path / "odd"
    odd_folder.mkdir()
    found, _ = played(experiment(model, {"space": odd}), odd_folder)
    assert len(found.points) + sum(map(_count, found.notes)) == 2


def _count(note: str) -> int:
    told = re.search(r"(\d+) points? could not be simulated", note)
    assert told, note
    return int(told[1])


@pytest.mark.parametrize(
    ("changes", "path", "said"),
    [
        ({"latency": {"type": "nonsense"}}, "search.prior.simulator.latency.type", "nonsense"),
        (
            {"latency": {"type": "linear", "base": "x"}},
            "search.prior.simulator.latency.base",
            "number",
        ),
        ({"device_memory": "much"}, "search.prior.simulator.device_memory", "much"),
        ({"trials": 0}, "search.prior.simulator.trials", "greater than 0"),
        ({"host": {"iterations": 1}}, "search.prior.simulator.host.iterations", "xtra"),
        ({"of": {"type": "vllm"}}, "search.prior.simulator.of", "unknown key"),
    ],
)
def test_faults_are_said_where_they_are(
    model: Path, changes: Mapping[str, Any], path: str, said: str
) -> None:
    found = problems(model, simulator(**changes))
    assert list(found) == [path]
    assert said in found[path]


def split_experiment(model: Path, **search: Any) -> Experiment:
    shapes = {
        "small": {"devices": 1},
        "large": {"devices": 2, "args": {"tensor-parallel-size": 2}, "roles": ["decode"]},
    }
    searched = {"type": "pd_split", "devices": 4, "space": None} | search
    fixed = {"shapes": shapes, "transfer": {"type": "nixl"}, "load": {"type": "fixed"}}
    return experiment(model, searched, type="disaggregated", **fixed)


def test_a_search_for_a_split_is_told_of_every_instance_alone(model: Path, tmp_path: Path) -> None:
    wanted = split_experiment(model)
    found, said = played(wanted, tmp_path)
    assert "simulated 3 points" in said
    assert not found.notes
    assert [dict(point) for point, _ in found.points] == [
        {"prefill_instances": 1, "prefill_shape": "small"},
        {"decode_instances": 1, "decode_shape": "small"},
        {"decode_instances": 1, "decode_shape": "large"},
    ]
    prefill = found.of({"prefill_instances": 1, "prefill_shape": "small"})
    decode = found.of({"decode_instances": 1, "decode_shape": "large"})
    assert prefill is not None
    assert decode is not None
    assert prefill["output_tokens"] == prefill["requests"]
    assert decode["output_tokens"] == 20 * decode["requests"]
    strategy = found.tell(wanted.search.strategy())
    assert strategy.trust() == 1.0
    again, _ = played(wanted, tmp_path)
    assert again.points == found.points


def test_parameters_of_a_role_are_tuned_on_the_simulated_instance(
    model: Path, tmp_path: Path
) -> None:
    space = {"decode.max-num-seqs": {"type": "enum", "values": [1, 2, 4, 8]}}
    wanted = split_experiment(model, space=space, inner={"type": "grid"})
    found, _ = played(wanted, tmp_path)
    rates = {
        point["decode.max-num-seqs"]: metrics["requests_per_s"]
        for point, metrics in found.points
        if point.get("decode_shape") == "small"
    }
    assert sorted(rates) == [1, 2, 4, 8]
    assert rates[8] > rates[1]


def test_who_has_no_use_for_it_is_told(model: Path) -> None:
    found = problems(model, {"type": "random", "trials": 3})
    assert found == {
        "search.prior": "the search 'random' has no use for it; only auto and pd_split do"
    }
    script = {"type": "script", "command": ["sleep", "1"], "port": 8123}
    found = problems(model, engine=script)
    assert list(found) == ["search.prior.simulator"]
    assert "'script' cannot be simulated" in found["search.prior.simulator"]
    engine = {"type": "simulated", "of": {"type": "vllm"}, "latency": {"type": "linear"}}
    found = problems(model, engine=engine | {"device_memory": "64GiB"})
    assert "is simulated already" in found["search.prior.simulator"]


def test_the_schema_knows_the_block() -> None:
    branches: list[Json] = schema()["properties"]["search"]["oneOf"]
    with_prior = [one["properties"]["type"]["const"] for one in branches if _has_prior(one)]
    assert sorted(with_prior) == ["auto", "pd_split"]


def _has_prior(branch: Mapping[str, Any]) -> bool:
    return "prior" in branch["properties"]


GOAL = Goal(maximize=("t",), bounds=(Bound("l", max=1.0),))


def test_the_error_is_told_as_it_is() -> None:
    measured = [{"t": 100.0, "l": 1.0}, {"t": 200.0, "l": 2.0}, {"t": 400.0, "l": 4.0}]
    said = [{"t": 110.0, "l": 0.8}, {"t": 220.0, "l": 1.6}, {"t": 440.0, "l": 3.2}]
    found = agreement(GOAL, list(zip(said, measured, strict=True)), 0.9)
    assert found.errors == pytest.approx({"t": 0.1, "l": 0.2})
    assert found.error == pytest.approx(0.15)
    assert found.correlation == pytest.approx(1.0)
    assert not found.dropped
    assert str(found) == (
        "the simulator was 15 % off (median of 3 points), rank correlation 1.00; "
        "it counts for 0.90 of 1"
    )


def test_a_simulator_that_is_left_aside_can_be_trained() -> None:
    said = [{"t": 3.0}, {"t": 2.0}, {"t": 1.0}]
    measured = [{"t": 1.0, "l": 0.0}, {"t": 2.0, "l": 0.0}, {"t": 3.0, "l": 0.0}]
    found = agreement(GOAL, list(zip(said, measured, strict=True)), 0.05)
    assert found.correlation == pytest.approx(-1.0)
    assert found.dropped
    assert "left aside" in str(found)
    assert "python -m tuner train" in str(found)
    assert type(found).from_json(json.loads(json.dumps(found.to_json()))) == found


def test_before_anything_is_measured_nothing_is_said_of_errors() -> None:
    found = agreement(GOAL, [], 0.05)
    assert found.error is None
    assert not found.dropped
    assert "nothing it played is measured yet" in str(found)
