"""Splits on a virtual clock: the numbers of a direct simulation, under the real trial's names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster import Bundle
from tests.trainables.serving.simulated import (
    Linear,
    LinearOptions,
    LinearSource,
    carried_out,
    engine_block,
    trial_of,
    write_config,
)
from trainables import Result, TrialFailure
from trainables.simulation import (
    Instance,
    Load,
    Request,
    SchedulerSettings,
    Simulated,
    Transfer,
    simulate,
    simulate_disaggregated,
)
from trainables.simulation._metrics import measure

KV_BYTES = 2 * 32 * 8 * 128 * 2
"""Of one token of the model: keys and values, layers, KV heads, head size, bfloat16."""
FIXED = {"type": "fixed", "concurrency": 16}
TWO_AND_THREE = {"prefill_instances": 2, "decode_instances": 3}
Split = Callable[..., Any]


@pytest.fixture
def split_of(tmp_path: Path) -> Split:
    model = write_config(tmp_path / "model")

    def make(**changes: Any) -> Any:
        return trial_of(model, **{"type": "disaggregated", "load": FIXED, **changes})

    return make


def pools(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = result.data["simulation"]["pools"]
    return found


def instances(result: Result, role: str, names: int) -> list[Instance]:
    settings = SchedulerSettings(**pools(result)[role]["settings"])
    return [Instance(f"{role}-{n}", settings, Linear(LinearOptions())) for n in range(names)]


def asked(concurrency: int, output_tokens: int = 80) -> Load:
    """What the benchmark sends."""
    return Load([Request(n, 400, output_tokens, None) for n in range(200)], concurrency)


def assert_equal_metrics(result: Result, load: Load, direct: Simulated) -> None:
    known = {name: result.metrics[name] for name in measure(direct, load)}
    assert known == measure(direct, load)


def test_it_is_what_a_direct_simulation_says(split_of: Split, tmp_path: Path) -> None:
    found = carried_out(split_of(), tmp_path / "t", TWO_AND_THREE)
    assert found.data["real_evaluation"] is False
    assert found.metrics["devices"] == 5
    direct = simulate_disaggregated(
        instances(found, "prefill", 2),
        instances(found, "decode", 3),
        asked(16),
        transfer=Transfer(KV_BYTES, 12.5, 0.002, layers=32),
    )
    assert_equal_metrics(found, asked(16), direct)


def test_mixed_instances_share_the_load(split_of: Split, tmp_path: Path) -> None:
    found = carried_out(split_of(), tmp_path / "t", {"mixed_instances": 3})
    assert_equal_metrics(found, asked(16), simulate(instances(found, "mixed", 3), asked(16)))
    assert "transfer" not in found.data["simulation"]


def test_an_instance_alone_waits_for_no_other(split_of: Split, tmp_path: Path) -> None:
    trial = split_of(load={"type": "fixed", "concurrency": 8})
    prefill = carried_out(trial, tmp_path / "p", kind="prefill")
    assert prefill.metrics["output_tokens"] == prefill.metrics["requests"] == 200
    assert_equal_metrics(
        prefill, asked(8, 1), simulate(instances(prefill, "prefill", 1), asked(8, 1))
    )
    decode = carried_out(trial, tmp_path / "d", kind="decode")
    assert decode.metrics["tpot_mean_s"] == pytest.approx(0.01 + 8 * 1e-4, rel=1e-3)
    assert decode.metrics["ttft_p50_s"] < 0.03
    assert decode.metrics["concurrency"] == 8
    assert "prompts are not computed" in decode.data["note"]
    assert set(decode.data["instances"]) == {"decode-1"}
    assert set(trial.played.simulated.instances) == {"decode-1"}


def test_a_prefill_instance_alone_needs_no_benchmark_that_can_ask_for_one_token(
    split_of: Split, tmp_path: Path
) -> None:
    benchmark = {"type": "vllm_benchmark", "num_prompts": 40, "dataset_name": "prefix_repetition"}
    found = carried_out(split_of(benchmark=benchmark), tmp_path / "p", kind="prefill")
    assert found.metrics["output_tokens"] == found.metrics["requests"] == 40


def test_metrics_and_data_have_the_names_of_the_real_trial(
    split_of: Split, tmp_path: Path, carry_out: Callable[..., dict[str, Any]]
) -> None:
    parameters = {"prefill_instances": 1, "decode_instances": 1}
    real = carry_out(parameters)["measurement"]
    found = carried_out(split_of(), tmp_path / "t", parameters)
    assert found.metrics.keys() == real.metrics.keys()
    missing = real.data.keys() - found.data.keys()
    assert missing == {"transferred_tokens"}
    assert found.data["instances"].keys() == real.data["instances"].keys()
    assert found.data["instances"]["prefill-1"].keys() == real.data["instances"]["prefill-1"].keys()
    assert found.metrics.keys() <= split_of().metric_names()
    assert json.loads(json.dumps(found.data)) == found.data


@pytest.mark.parametrize("load", [{"concurrency": 64}, {"request_rate": 25}])
def test_more_decode_instances_never_lower_the_throughput(
    split_of: Split, tmp_path: Path, load: Mapping[str, Any]
) -> None:
    few = {"decode": {"args": {"max-num-seqs": 8}}}
    trial = split_of(load={"type": "fixed", **load}, roles=few, limits=[])
    found = [
        carried_out(
            trial, tmp_path / str(count), {"prefill_instances": 2, "decode_instances": count}
        ).metrics["output_tokens_per_s"]
        for count in (1, 2, 3, 4, 6)
    ]
    assert found == sorted(found)
    assert found[1] > 1.5 * found[0]


def test_equal_trials_have_equal_numbers(split_of: Split, tmp_path: Path) -> None:
    workload = {
        "type": "random",
        "input_tokens": {"type": "uniform", "low": 1, "high": 800},
        "output_tokens": {"type": "uniform", "low": 1, "high": 90},
    }
    benchmark = {"type": "builtin", "requests": 60, "workload": workload}
    first, same, other = (
        carried_out(split_of(benchmark=benchmark, seed=seed), tmp_path / name, TWO_AND_THREE)
        for seed, name in ((0, "a"), (0, "b"), (1, "c"))
    )
    assert first.metrics == same.metrics
    assert first.metrics != other.metrics


def test_shapes_and_roles_decide_what_instances_are(split_of: Split, tmp_path: Path) -> None:
    shapes = {
        "small": {"devices": 1},
        "large": {"devices": 4, "args": {"tensor-parallel-size": 4}, "roles": ["decode"]},
    }
    prefill = {"prefill": {"args": {"max-num-batched-tokens": 777}}}
    trial = split_of(shapes=shapes, roles=prefill, transfer={"type": "nixl"})
    parameters = {"prefill_shape": "small", "decode_shape": "large", "decode.max-num-seqs": 5}
    found = carried_out(trial, tmp_path / "t", parameters)
    assert LinearSource.served is not None
    assert LinearSource.served.tensor_parallel == 4
    assert found.metrics["devices"] == 5
    assert pools(found)["prefill"]["settings"]["max_num_batched_tokens"] == 777
    assert pools(found)["decode"]["settings"]["max_num_seqs"] == 5
    assert (
        pools(found)["decode"]["settings"]["num_blocks"]
        > 4 * pools(found)["prefill"]["settings"]["num_blocks"]
    )


def test_data_parallel_ranks_are_instances_of_the_simulation(
    split_of: Split, tmp_path: Path
) -> None:
    trial = split_of(shapes={"dp": {"devices": 2, "args": {"data-parallel-size": 2}}})
    found = carried_out(trial, tmp_path / "t", TWO_AND_THREE)
    assert pools(found)["decode"]["instances"] == 6
    assert found.metrics["devices"] == 10
    assert "decode-3 rank 1" in trial.played.simulated.instances


def test_the_link_decides_how_long_caches_travel(split_of: Split, tmp_path: Path) -> None:
    one = {"type": "fixed", "concurrency": 1}

    def ttft(name: str, **link: Any) -> float:
        trial = split_of(engine=engine_block(link=link), load=one)
        found = carried_out(trial, tmp_path / name, kind="baseline")
        return float(found.metrics["ttft_mean_s"])

    usual, late, narrow = ttft("a"), ttft("b", latency_s=0.052), ttft("c", bytes_per_s=1.25e9)
    assert late - usual == pytest.approx(0.05)
    assert narrow - usual == pytest.approx(400 * KV_BYTES * (1 / 1.25e9 - 1 / 12.5e9), rel=0.01)


def test_caches_are_pushed_layer_by_layer_where_the_transfer_does_so(
    split_of: Split, tmp_path: Path
) -> None:
    pushes = {"type": "mooncake_layerwise"}
    for name, changes, wanted in [
        ("pulled", {}, False),
        ("pushed", {"transfer": pushes}, True),
        ("said", {"transfer": pushes, "engine": engine_block(link={"layerwise": False})}, False),
    ]:
        found = carried_out(split_of(**changes), tmp_path / name)
        assert found.data["simulation"]["transfer"]["layerwise"] is wanted
        assert found.data["simulation"]["transfer"]["layers"] == 32


def test_the_operating_point_is_that_of_the_whole(split_of: Split, tmp_path: Path) -> None:
    limits = [{"metric": "ttft_mean_s", "max": 0.5}, {"metric": "tpot_mean_s", "max": 0.02}]
    trial = split_of(load={"type": "operating_point", "high": 1024}, limits=limits)
    few, many = (
        carried_out(
            trial, tmp_path / str(count), {"prefill_instances": 6, "decode_instances": count}
        )
        for count in (1, 2)
    )
    assert few.metrics["tpot_mean_s"] <= 0.02
    assert few.metrics["ttft_mean_s"] <= 0.5
    assert many.metrics["concurrency"] > few.metrics["concurrency"]
    assert any(run["full"] for run in many.data["runs"])


def test_a_split_that_would_not_start_is_not_played(split_of: Split, tmp_path: Path) -> None:
    trial = split_of(engine=engine_block(num_blocks=10))
    for kind in ("candidate", "prefill"):
        found = carried_out(trial, tmp_path / kind, kind=kind)
        assert found.data["stopped"]["by"] == "kv_memory"
        assert "prefill instances: the KV cache has room" in found.data["note"]
        assert found.metrics == {}
    with pytest.raises(TrialFailure, match="decode instances"):
        trial = split_of(roles={"decode": {"args": {"num-gpu-blocks-override": 10}}})
        carried_out(trial, tmp_path / "b", kind="baseline")


def test_a_split_that_could_not_run_for_real_is_not_simulated(
    split_of: Split, tmp_path: Path
) -> None:
    shapes = {"one": {}, "two": {"devices": 2, "args": {"tensor-parallel-size": 2}}}
    trial = split_of(shapes=shapes, transfer={"type": "mooncake"})
    parameters = {"prefill_shape": "one", "decode_shape": "two"}
    with pytest.raises(TrialFailure, match="must be a multiple") as failure:
        carried_out(trial, tmp_path / "t", parameters)
    assert failure.value.failure == "input"
    turned = {"prefill_shape": "two", "decode_shape": "one"}
    assert carried_out(trial, tmp_path / "u", turned).metrics["devices"] == 3


def test_mindie_gives_the_token_of_the_prefill_instance(split_of: Split, tmp_path: Path) -> None:
    one = {"type": "fixed", "concurrency": 1}
    trial = split_of(engine=engine_block({"type": "mindie"}), load=one)
    found = carried_out(trial, tmp_path / "t", kind="baseline")
    assert found.metrics["ttft_mean_s"] == pytest.approx(0.01 + 400 * 5e-5)
    texts = trial.deliverables({})
    assert list(texts) == ["deployment.txt"]
    assert "is not known" in texts["deployment.txt"]


def test_nothing_is_asked_of_the_cluster_but_a_place_for_the_simulation(split_of: Split) -> None:
    trial, one = split_of(), Bundle({"CPU": 4, "NPU": 2, "memory": 1e9})
    (bundle,) = trial.placement(TWO_AND_THREE, "candidate", one).bundles
    assert set(bundle.resources) == {"CPU"}
    assert trial.devices(TWO_AND_THREE, "candidate") == 0
    serving = split_of(type="serving")
    (bundle,) = serving.placement({}, "candidate", one).bundles
    assert bundle.resources == {"CPU": 4, "memory": 1e9}


def test_what_is_delivered_starts_the_real_split(split_of: Split) -> None:
    texts = split_of().deliverables(TWO_AND_THREE)
    assert {"prefill-1.sh", "prefill-2.sh", "decode-3.sh", "router.sh"} <= texts.keys()
    assert texts["decode-1.sh"].splitlines()[1].startswith("# Chosen by simulation")
    assert texts["decode-1.sh"].count("Chosen by simulation") == 1
    assert "serve" in texts["decode-1.sh"]
    assert "kv-transfer-config" in texts["decode-1.sh"]


@pytest.mark.parametrize(
    ("changes", "path", "said"),
    [
        (
            {"shapes": {"odd": {"args": {"max-num-seqs": "many"}}}},
            "trial.engine",
            "see its arguments (odd as prefill)",
        ),
        ({"engine": engine_block(device_memory=None)}, "trial.engine", "memory"),
        ({"engine": engine_block(link={"speed": 1})}, "trial.engine.link.speed", "xtra"),
        ({"benchmark": {"type": "ais_bench", "datasets": "gsm8k"}}, "trial.benchmark", "not known"),
    ],
)
def test_faults_are_said_before_anything_is_played(
    split_of: Split, changes: Mapping[str, Any], path: str, said: str
) -> None:
    problems = split_of(**changes).problems()
    assert [(found, said in text) for found, text in problems] == [(path, True)], problems


def test_what_does_not_fit_is_for_the_search_to_find_out(split_of: Split) -> None:
    shapes = {"tiny": {"devices": 1}, "large": {"devices": 2, "args": {"tensor-parallel-size": 2}}}
    assert split_of(shapes=shapes, engine=engine_block(device_memory="12GiB")).problems() == []
