"""``ais_bench`` with the stub of AISBench, which really sends its requests."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from trainables import TrialFailure, TrialRun
from trainables.benchmarks import BenchmarkResult, Load, Target, make_benchmark
from trainables.benchmarks._ais_bench_configs import due_times
from trainables.benchmarks._workload import Ask
from trainables.benchmarks.testing import Serve, check_benchmark, check_block
from trainables.engines.testing import drive

STUB = Path(__file__).parents[2] / "stubs" / "ais_bench.py"
SMALL = {
    "type": "random",
    "input_tokens": 12,
    "output_tokens": {"type": "uniform", "low": 4, "high": 9},
}
MATTERS: list[dict[str, Any]] = [
    {"workload": {**SMALL, "input_tokens": 13}},
    {"num_prompts": 9},
    {"num_warmups": 0},
    {"api": "chat"},
    {"max_out_len": 7},
    {"ignore_eos": False},
    {"temperature": 0.5},
    {"generation_kwargs": {"top_k": 1}},
    {"retry": 2},
    {"args": {"max-num-workers": 2}},
    {"env_vars": {"X": 1}},
]
MODEL = """
from ais_bench.benchmark.models import VLLMCustomAPIChat

models = [
    dict(
        attr="service",
        type=VLLMCustomAPIChat,
        abbr="theirs",
        path="/elsewhere",
        model="another",
        stream=False,
        request_rate=3,
        host_ip="192.0.2.1",
        host_port=1,
        url="http://192.0.2.1:1",
        max_out_len=5,
        batch_size=1,
        generation_kwargs=dict(top_p=0.5, ignore_eos=True),
    )
]
"""
DATASET = """
from ais_bench.benchmark.datasets import CustomDataset

{name}_datasets = [dict(abbr="{name}", type=CustomDataset, path={path!r})]
"""


def block(*, mishap: str = "", **keys: Any) -> dict[str, Any]:
    own = {"datasets", "custom_dataset_path"} & set(keys)
    return {
        "type": "ais_bench",
        "command": [sys.executable, str(STUB)],
        **({} if own else {"workload": SMALL}),
        "args": {"stub": mishap} if mishap else {},
        **keys,
    }


def run(trial: TrialRun, target: Target, load: Load, **keys: Any) -> BenchmarkResult:
    benchmark = make_benchmark(block(**keys))
    steps = benchmark.run(trial, target, load, stage="bench", seed=1, timeout=250)
    return drive(steps, within_s=280)


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """A user's folder of configurations, with a model and a dataset."""
    folder = tmp_path / "configs"
    for name in ("models", "datasets"):
        (folder / name).mkdir(parents=True)
    questions = folder / "questions.jsonl"
    rows = [{"question": f"What is {n}+2?", "answer": str(n + 2)} for n in range(5)]
    questions.write_text("\n".join(json.dumps(row) for row in rows))
    (folder / "models" / "my_model.py").write_text(MODEL)
    dataset = DATASET.format(name="sums", path=str(questions))
    (folder / "datasets" / "sums_gen.py").write_text(dataset)
    return folder


def test_ais_bench_keeps_the_contract(serve: Serve, tmp_path: Path) -> None:
    check_benchmark(block(), serve, folder=tmp_path / "trials", matters=MATTERS, patience=4)


def test_the_smallest_block_differs_from_each_other_as_well() -> None:
    check_block({"type": "ais_bench", "command": [sys.executable, str(STUB)]}, matters=MATTERS)


def test_all_that_was_asked_for_is_reported(trial: TrialRun, stub: Any) -> None:
    served = stub(ttft=0.02, tpot=0.002)
    load = Load(requests=16, concurrency=4, request_rate=100)
    found = run(trial, served.target, load, api="chat")
    metrics = found.metrics
    assert all("messages" in body for body in served.requests())
    assert {"request_rate": 100, "concurrency": 4}.items() <= metrics.items()
    assert metrics["ttft_min_s"] >= 0.02
    for latency in ("ttft", "tpot", "itl", "e2el"):
        order = [metrics[f"{latency}_{one}_s"] for one in ("min", "p50", "p95", "p99", "max")]
        assert order == sorted(order)
    assert set(found.artifacts) == {"performance", "totals", "requests"}
    assert found.environment == {"benchmark": "ais_bench/unknown"}


def test_an_open_loop_without_limit_has_arrivals_of_the_seed(trial: TrialRun, stub: Any) -> None:
    found = run(trial, stub().target, Load(requests=12, request_rate=60))
    assert "concurrency" not in found.metrics
    rows = [json.loads(line) for line in (trial.folder / "bench" / "workload.jsonl").open()]
    times = [row["timestamp"] for row in rows]
    assert times == sorted(times)
    assert (times[0], times[-1]) == (0, pytest.approx(11 / 60 * 1000))
    (config,) = (trial.folder / "bench" / "config" / "models").glob("*.py")
    assert "use_timestamp=True" in config.read_text()


def test_who_decides_when_requests_are_sent() -> None:
    asks = [Ask("x", 1, 1) for _ in range(4)]
    traced = [Ask("x", 1, 1, arrival=float(at)) for at in (5, 6, 9)]
    assert due_times(asks, Load(), 1) is None
    assert due_times(asks, Load(request_rate=2, concurrency=3), 1) is None
    first, again, other = (due_times(asks, Load(request_rate=2), seed) for seed in (1, 1, 2))
    assert first == again != other
    assert due_times(traced, Load(), 1) == [0, 1, 4]
    assert due_times(traced, Load(request_rate=4), 1) == [0, 0.125, 0.5]
    assert due_times(traced, Load(concurrency=1), 1) is None


def test_the_users_model_is_told_the_service_and_the_load_and_left_as_it_is(
    trial: TrialRun, stub: Any, configs: Path
) -> None:
    file = configs / "models" / "my_model.py"
    before = (file.read_text(), file.stat())
    served = stub()
    keys = {"models": "My_Model", "config_dir": str(configs)}
    found = run(trial, served.target, Load(requests=6, concurrency=2), **keys)
    assert (file.read_text(), file.stat()) == before
    assert found.metrics["success_rate"] == 1
    asked = served.requests()[-1]
    assert (asked["model"], asked["top_p"], asked["stream"]) == ("tiny", 0.5, True)
    assert 4 <= asked["max_tokens"] <= 9
    assert Path(found.artifacts["performance"]).parent.name == "theirs"


def test_the_users_dataset_is_asked_as_far_as_it_goes(
    trial: TrialRun, stub: Any, configs: Path
) -> None:
    served = stub()
    keys = {"datasets": "sums_gen", "config_dir": str(configs), "max_out_len": 3, "num_warmups": 0}
    found = run(trial, served.target, Load(requests=9), **keys)
    assert found.metrics["requests"] == 5
    assert found.data["note"] == "the dataset has only 5 of the 9 requests that were asked for"
    prompts = {body["prompt"] for body in served.requests()}
    assert prompts == {f"What is {n}+2?" for n in range(5)}
    assert {body["max_tokens"] for body in served.requests()} == {3}


def test_a_file_of_questions_is_asked(trial: TrialRun, stub: Any, configs: Path) -> None:
    keys = {"custom_dataset_path": str(configs / "questions.jsonl"), "max_out_len": 4}
    found = run(trial, stub().target, Load(requests=5, concurrency=2), **keys)
    assert found.metrics["output_tokens"] == 20


def test_the_tool_is_asked_where_its_configuration_is(
    trial: TrialRun, stub: Any, configs: Path, tmp_path: Path
) -> None:
    shutil.move(configs / "models", tmp_path / "hidden" / "models")
    keys = {"models": "my_model", "env_vars": {"STUB_CONFIGS": str(tmp_path / "hidden")}}
    found = run(trial, stub().target, Load(requests=4), **keys)
    assert Path(found.artifacts["performance"]).parent.name == "theirs"


def test_a_configuration_that_is_nowhere_is_a_fault_of_the_input(
    trial: TrialRun, stub: Any
) -> None:
    for keys, said in (
        ({"models": "no_such_model"}, "does not say where its model configuration 'no_such_model'"),
        ({"datasets": "no_such_gen"}, "of the dataset configuration 'no_such_gen'"),
    ):
        with pytest.raises(TrialFailure, match=said) as caught:
            run(trial, stub().target, Load(requests=4), **keys)
        assert caught.value.failure == "input"


@pytest.mark.parametrize(
    ("mishap", "failure", "said"),
    [
        ("exit", "tool", "exit code 3: RuntimeError: the stub fails"),
        ("no-folder", "tool", "does not say where its results are"),
        ("no-table", "tool", "left no table of performance"),
        ("two-tables", "tool", "holds 2 tables of performance"),
        ("torn-totals", "tool", "cannot be read"),
        ("empty-table", "tool", "has no rows"),
        ("two-rows", "tool", "has two rows TTFT"),
    ],
)
def test_a_tool_that_fails_is_no_number(
    mishap: str, failure: str, said: str, trial: TrialRun, stub: Any
) -> None:
    with pytest.raises(TrialFailure, match=said) as caught:
        run(trial, stub().target, Load(requests=4), mishap=mishap)
    assert caught.value.failure == failure


def test_the_tables_of_an_earlier_run_are_not_taken_for_those_of_this_one(
    trial: TrialRun, stub: Any
) -> None:
    target = stub().target
    run(trial, target, Load(requests=4))
    with pytest.raises(TrialFailure, match="left no table of performance"):
        run(trial, target, Load(requests=4), mishap="no-table")


def test_a_finished_run_is_not_repeated_by_another_attempt(trial: TrialRun, stub: Any) -> None:
    served = stub()
    first = run(trial, served.target, Load(requests=4))
    again = run(TrialRun(trial.spec), served.target, Load(requests=4))
    assert again.metrics == first.metrics
    assert len(served.requests()) == 5


def test_its_environment_is_offline_tuned_and_without_a_proxy(
    trial: TrialRun, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    served = stub().target
    target = Target(served.base_url, served.served_name, served.model, {"TUNED": "2"})
    run(trial, target, Load(requests=4), mishap="environment")
    seen = json.loads(next((trial.folder / "bench").rglob("environment.json")).read_text())
    assert "127.0.0.1" in seen["no_proxy"].split(",")
    assert (seen["TUNED"], seen["HF_HUB_OFFLINE"]) == ("2", "1")


def test_faults_of_the_block_are_told_all_at_once(configs: Path) -> None:
    wrong = block(
        command=["/nowhere/ais_bench"],
        models="my_model",
        temperature=0.5,
        custom_dataset_path="/nowhere/questions.jsonl",
        config_dir=str(configs / "none"),
        args={"mode": "all", "-w": "/x", "debug": True},
    )
    assert {place for place, _ in make_benchmark(wrong).problems()} == {
        *("command", "config_dir", "custom_dataset_path", "temperature"),
        *("args.mode", "args.-w", "args.debug"),
    }


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"workload": SMALL, "datasets": "x"}, "workload and datasets say the same"),
        ({"workload": {**SMALL, "form": "token_ids"}}, "AISBench sends no token ids"),
    ],
)
def test_contradictions_are_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_benchmark(block(**keys))


def test_the_content_of_a_users_configuration_decides(configs: Path) -> None:
    keys = {"models": "my_model", "datasets": "sums_gen"}
    made = [block(**keys, config_dir=str(configs))]
    other = configs.with_name("other")
    shutil.copytree(configs, other)
    made.append(block(**keys, config_dir=str(other)))
    same = [make_benchmark(one).identity() for one in made]
    assert same[0] == same[1]
    (other / "models" / "my_model.py").write_text(MODEL.replace("0.5", "0.6"))
    assert make_benchmark(made[1]).identity() != same[1]
