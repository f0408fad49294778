"""``vllm_benchmark`` with the stub of ``vllm bench serve``, which really sends its requests."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from trainables import TrialFailure, TrialRun
from trainables.benchmarks import BenchmarkResult, Load, Target, make_benchmark
from trainables.benchmarks.testing import Serve, check_benchmark, check_block
from trainables.engines.testing import drive

STUB = Path(__file__).parents[2] / "stubs" / "vllm_bench.py"
NEUTRAL: list[dict[str, Any]] = [{"save_detailed": True}]
MATTERS: list[dict[str, Any]] = [
    {"backend": "openai-chat"},
    {"endpoint": "/v2/completions"},
    {"dataset_name": "sharegpt"},
    {"num_prompts": 9},
    {"random_input_len": 9},
    {"random_output_len": 9},
    {"random_range_ratio": 0.5},
    {"num_warmups": 2},
    {"ignore_eos": False},
    {"temperature": None},
    {"goodput": {"ttft_s": 1}},
    {"args": {"burstiness": 2}},
    {"env_vars": {"VLLM_X": 1}},
]


def block(*, mishap: str = "", **keys: Any) -> dict[str, Any]:
    args = {"stub": mishap} if mishap else {}
    return {
        "type": "vllm_benchmark",
        "command": [sys.executable, str(STUB)],
        "random_input_len": 12,
        "random_output_len": 6,
        "random_range_ratio": 0.4,
        "args": args,
        **keys,
    }


def run(
    trial: TrialRun, target: Target, load: Load, *, stage: str = "bench", **keys: Any
) -> BenchmarkResult:
    benchmark = make_benchmark(block(**keys))
    steps = benchmark.run(trial, target, load, stage=stage, seed=1, timeout=250)
    return drive(steps, within_s=280)


def test_vllm_benchmark_keeps_the_contract(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "trials"
    check_benchmark(block(), serve, folder=folder, matters=MATTERS, neutral=NEUTRAL, patience=4)


def test_the_smallest_block_differs_from_each_other_as_well() -> None:
    smallest = {"type": "vllm_benchmark", "command": [sys.executable, str(STUB)]}
    check_block(smallest, matters=MATTERS, neutral=NEUTRAL)


def test_a_chat_at_a_rate(trial: TrialRun, stub: Any) -> None:
    served = stub()
    load = Load(requests=12, request_rate=60, concurrency=6)
    found = run(trial, served.target, load, backend="openai-chat")
    assert {"request_rate": 60, "concurrency": 6}.items() <= found.metrics.items()
    assert all("messages" in body for body in served.requests())


def test_the_content_of_a_dataset_decides_not_its_place(tmp_path: Path) -> None:
    identities = []
    for name, text in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / name).write_text(text)
        made = block(dataset_name="custom", dataset_path=str(tmp_path / name))
        check_block(made)
        identities.append(make_benchmark(made).identity())
    assert identities[0] == identities[1] != identities[2]


def test_all_that_was_asked_for_is_reported(trial: TrialRun, stub: Any) -> None:
    served = stub(ttft=0.02, tpot=0.002)
    found = run(
        trial,
        served.target,
        Load(requests=16, concurrency=4),
        save_detailed=True,
        goodput={"ttft_s": 10, "e2el_s": 10},
    )
    metrics = found.metrics
    assert metrics["goodput_per_s"] == metrics["requests_per_s"]
    assert metrics["ttft_min_s"] >= 0.02
    for latency in ("ttft", "tpot", "itl", "e2el"):
        order = [metrics[f"{latency}_{one}_s"] for one in ("min", "p50", "p95", "p99", "max")]
        assert order == sorted(order)
    assert 0 < metrics["mean_concurrency"] <= 4.01
    assert metrics["concurrency"] == 4
    assert "request_rate" not in metrics
    assert json.loads(Path(found.artifacts["result"]).read_text())["request_rate"] == "inf"
    assert found.environment == {"benchmark": "vllm_benchmark/unknown"}


def test_reasons_of_failures_are_counted_from_the_log_without_details(
    trial: TrialRun, stub: Any
) -> None:
    served = stub(fail_after=2, fail_count=13)
    found = run(trial, served.target, Load(requests=20, concurrency=2))
    assert found.metrics["success_rate"] == pytest.approx(7 / 20)
    assert found.data["failures"] == {"Internal Server Error": 10, "no reason given": 3}
    assert found.data["note"] == "13 of 20 requests failed: Internal Server Error"


def test_one_token_has_no_tpot(trial: TrialRun, stub: Any) -> None:
    served = stub()
    found = run(
        trial, served.target, Load(requests=4), random_output_len=1, random_range_ratio=None
    )
    assert found.metrics["output_tokens"] == 4
    assert not [name for name in found.metrics if name.startswith("tpot")]


@pytest.mark.parametrize(
    ("mishap", "failure", "said"),
    [
        ("exit", "tool", "RuntimeError: the stub fails"),
        ("killed", "out_of_memory", "SIGKILL"),
        ("no-result", "tool", "there is no result"),
        ("torn", "tool", "cannot be read"),
    ],
)
def test_a_tool_that_fails_is_no_number(
    mishap: str, failure: str, said: str, trial: TrialRun, stub: Any
) -> None:
    with pytest.raises(TrialFailure, match=said) as caught:
        run(trial, stub().target, Load(requests=4), mishap=mishap)
    assert caught.value.failure == failure


def test_the_result_of_an_earlier_run_is_not_taken_for_this_one(trial: TrialRun, stub: Any) -> None:
    target = stub().target
    run(trial, target, Load(requests=4))
    with pytest.raises(TrialFailure, match="there is no result"):
        run(trial, target, Load(requests=4), mishap="no-result")


def test_a_finished_run_is_not_repeated_by_another_attempt(trial: TrialRun, stub: Any) -> None:
    served = stub()
    first = run(trial, served.target, Load(requests=4))
    again = run(TrialRun(trial.spec), served.target, Load(requests=4))
    assert again.metrics == first.metrics
    assert len(served.requests()) == 4
    run(TrialRun(trial.spec), served.target, Load(requests=5))
    assert len(served.requests()) == 9


@pytest.mark.parametrize(
    ("keys", "failure", "said"),
    [
        ({"args": {"no-such-argument": 1}}, "input", "unrecognized arguments: --no-such-argument"),
        ({"dataset_name": "burstgpt"}, "input", "argument --dataset-name: invalid choice"),
        ({"command": ["/nowhere/vllm"]}, "input", "/nowhere/vllm cannot be started"),
        ({"command": [sys.executable, "-m", "vllm"]}, "input", "No module named vllm"),
    ],
)
def test_a_wrong_command_is_a_fault_of_the_input(
    keys: dict[str, Any], failure: str, said: str, trial: TrialRun, stub: Any
) -> None:
    with pytest.raises(TrialFailure) as caught:
        run(trial, stub().target, Load(requests=4), **keys)
    assert said in str(caught.value)
    assert caught.value.failure == failure


def test_nothing_of_a_tool_that_hangs_is_left(trial: TrialRun, stub: Any) -> None:
    benchmark = make_benchmark(block(mishap="hang"))
    steps = benchmark.run(
        trial, stub().target, Load(requests=4), stage="bench", seed=1, timeout=1.5
    )
    with pytest.raises(TrialFailure, match=r"did not finish within 1\.5 s") as caught:
        drive(steps, within_s=250)
    assert caught.value.failure == "timeout"


def test_its_environment_is_local_tuned_and_without_a_proxy(
    trial: TrialRun, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "intranet")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(STUB.parents[2]), "/theirs"]))
    served = stub().target
    target = Target(served.base_url, served.served_name, served.model, {"TUNED": "2", "BOTH": "2"})
    found = run(
        trial,
        target,
        Load(requests=4),
        mishap="environment",
        env_vars={"BOTH": 1, "MINE": True},
    )
    assert found.metrics["success_rate"] == 1
    seen = json.loads((trial.folder / "bench" / "environment.json").read_text())
    assert seen["no_proxy"] == seen["NO_PROXY"] == "intranet,127.0.0.1"
    assert (seen["TUNED"], seen["BOTH"], seen["MINE"]) == ("2", "2", "True")
    assert seen["HF_HUB_OFFLINE"] == "0"
    assert seen["PYTHONPATH"] == "/theirs"


def test_faults_of_the_block_are_told_all_at_once(tmp_path: Path) -> None:
    wrong = block(
        command=["/nowhere/vllm"],
        dataset_name="custom",
        dataset_path=str(tmp_path / "none.jsonl"),
        args={
            "seed": 1,
            "--max_concurrency": 2,
            "ignore-eos": True,
            "burstiness": 2,
            "path": "./x",
        },
    )
    assert {place for place, _ in make_benchmark(wrong).problems()} == {
        "command",
        "dataset_path",
        "args.seed",
        "args.--max_concurrency",
        "args.ignore-eos",
        "args.path",
    }
    found = make_benchmark(block(dataset_name="hf", dataset_path="org/some-data"))
    assert found.problems() == []
    assert found.options.dataset_path == "org/some-data"
