"""Serving trials on a virtual clock: same course, same numbers, nothing started."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.serving.simulated import (
    TTFT,
    carried_out,
    engine_block,
    trial_of,
    write_config,
)
from trainables import StageError, TrialFailure, TrialRun, TrialSpec
from trainables.benchmarks import METRICS
from trainables.benchmarks import Load as BenchmarkLoad
from trainables.benchmarks._summary import Goodput, RequestRecord, summarize
from trainables.engines import Deployment, make_engine
from trainables.serving._simulated_windows import windows_of
from trainables.serving._timeline_numbers import timeline
from trainables.serving._trace import write_trace
from trainables.simulation import Load, Refused, Request, Served, Simulated
from trainables.simulation._metrics import measure

FIXED = {"type": "fixed", "concurrency": 16}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_config(tmp_path / "model")


def simulated_of(trial: Any, folder: Path, **parameters: Any) -> Simulated:
    carried_out(trial, folder, parameters, kind="baseline")
    found: Simulated = trial.played.simulated
    return found


# Metrics


@st.composite
def runs(draw: st.DrawFn) -> Simulated:
    served = []
    for number in range(draw(st.integers(1, 12))):
        tokens = draw(st.integers(1, 6))
        sent = draw(st.floats(0, 10))
        first = sent + draw(st.floats(0.001, 2))
        gaps = np.array([draw(st.floats(0.001, 1)) for _ in range(tokens - 1)])
        request = Request(number, draw(st.integers(1, 100)), tokens, sent)
        end = first + float(gaps.sum())
        served.append(Served(request, sent, sent, first, end, gaps))
    refused = [
        Refused(Request(100 + number, 5, 5), draw(st.floats(0, 10)), "too long")
        for number in range(draw(st.integers(0, 2)))
    ]
    return Simulated(served, refused, {}, {})


@settings(max_examples=60, deadline=None)
@given(runs())
def test_metrics_are_those_of_the_benchmark_of_real_engines(simulated: Simulated) -> None:
    records = [
        RequestRecord(
            one.request.number,
            one.sent,
            one.sent,
            one.end,
            one.first,
            one.request.input_tokens,
            one.request.output_tokens,
            tuple(one.gaps),
        )
        for one in simulated.served
    ]
    records += [
        RequestRecord(one.request.number, one.sent, one.sent, one.sent, error=one.reason)
        for one in simulated.refused
    ]
    bounds = {"ttft_s": 1.0, "tpot_s": 0.5}
    wanted = summarize(records, BenchmarkLoad(None, 4, 2.0), Goodput(**bounds))
    found = measure(simulated, Load((), 4), request_rate=2.0, goodput=bounds)
    assert found.keys() == wanted.keys()
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_windows_of_a_run_add_up_to_it(model: Path, tmp_path: Path) -> None:
    simulated = simulated_of(trial_of(model, load=FIXED), tmp_path / "t")
    windows = windows_of(simulated, 0.5)
    assert sum(one.completed for one in windows) == len(simulated.served)
    assert sum(one.output_tokens for one in windows) == 200 * 80
    assert sorted(v for one in windows for v in one.ttft_s) == pytest.approx(
        sorted(one.ttft for one in simulated.served)
    )
    assert windows[-1].running == 0
    assert max(one.running for one in windows) <= 16
    assert all(a.end == b.begin for a, b in pairwise(windows))


# Trials


def test_a_trial_needs_no_weights_no_engine_and_no_tool(model: Path, tmp_path: Path) -> None:
    trial = trial_of(model)
    assert trial.problems() == []
    found = carried_out(trial, tmp_path / "t")
    assert found.data["real_evaluation"] is False
    assert "simulated (latency linear), nothing was measured" in found.data["note"]
    assert not set(found.metrics) - METRICS - {"startup_s"}
    assert found.metrics["startup_s"] == 0
    assert found.metrics["ttft_mean_s"] <= 1.0
    assert found.metrics["tpot_mean_s"] <= 0.03
    assert [run["full"] for run in found.data["runs"]].count(True) >= 1
    assert json.loads(json.dumps(found.data)) == found.data


def test_equal_trials_have_equal_numbers_and_the_seed_decides_them(
    model: Path, tmp_path: Path
) -> None:
    workload = {
        "type": "random",
        "input_tokens": {"type": "uniform", "low": 1, "high": 800},
        "output_tokens": 40,
    }
    benchmark = {"type": "builtin", "requests": 60, "workload": workload}
    first, same, other = (
        carried_out(trial_of(model, benchmark=benchmark, load=FIXED, seed=seed), tmp_path / name)
        for seed, name in ((0, "a"), (0, "b"), (1, "c"))
    )
    assert first.metrics == same.metrics
    assert first.metrics != other.metrics


def test_the_operating_point_is_higher_for_the_configuration_that_bears_more(
    model: Path, tmp_path: Path
) -> None:
    few, many = (
        carried_out(trial_of(model), tmp_path / str(most), {"max-num-seqs": most})
        for most in (8, 256)
    )
    assert many.metrics["concurrency"] > few.metrics["concurrency"]
    assert many.metrics["output_tokens_per_s"] > 1.5 * few.metrics["output_tokens_per_s"]


def test_parameters_reach_the_simulated_engine_by_their_positions(
    model: Path, tmp_path: Path
) -> None:
    args = {"max-model-len": 4096, "max-num-seqs": "$SEQS"}
    trial = trial_of(
        model,
        engine=engine_block({"type": "vllm", "args": args}),
        load=FIXED,
        positions={"SEQS": "env", "C": "concurrency"},
    )
    found = carried_out(trial, tmp_path / "t", {"SEQS": 3, "C": 5, "block-size": 32})
    settings = found.data["simulation"]["settings"]
    assert (settings["max_num_seqs"], settings["block_size"]) == (3, 32)
    assert found.metrics["concurrency"] == 5


def test_a_candidate_without_room_for_one_sequence_is_not_started(
    model: Path, tmp_path: Path
) -> None:
    trial = trial_of(model, engine=engine_block(num_blocks=10))
    found = carried_out(trial, tmp_path / "t")
    assert found.data["stopped"]["by"] == "kv_memory"
    assert found.metrics == {}
    with pytest.raises(TrialFailure, match="room for 1280 tokens") as failure:
        carried_out(trial, tmp_path / "b", kind="baseline")
    assert failure.value.failure == "out_of_memory"


def test_a_hopeless_candidate_is_given_up_as_a_real_one(model: Path, tmp_path: Path) -> None:
    limit = {"metric": "ttft_p90_s", "max": 0.1}
    load = {"type": "fixed", "request_rate": 100}
    trial = trial_of(model, limits=[limit], load=load)
    found = carried_out(trial, tmp_path / "t", {"max-num-seqs": 2})
    assert found.data["stopped"]["by"] == "windows"
    whole = carried_out(trial, tmp_path / "b", {"max-num-seqs": 2}, kind="baseline")
    assert "stopped" not in whole.data
    assert whole.metrics["requests"] == 200
    context = {"incumbent": {"metric": "output_tokens_per_s", "value": 1e6}}
    beaten = carried_out(trial_of(model), tmp_path / "i", context=context)
    assert beaten.data["stopped"]["by"] == "incumbent"


def test_requests_that_are_too_long_are_refused_and_counted(model: Path, tmp_path: Path) -> None:
    workload = {
        "type": "random",
        "input_tokens": {"type": "uniform", "low": 1, "high": 8000},
        "output_tokens": 10,
    }
    benchmark = {"type": "builtin", "requests": 100, "workload": workload}
    trial = trial_of(model, benchmark=benchmark, load=FIXED)
    found = carried_out(trial, tmp_path / "t", kind="baseline")
    assert 0.3 < found.metrics["success_rate"] < 0.7
    assert "requests are refused" in found.data["note"]
    benchmark["workload"] = {"type": "random", "input_tokens": 5000, "output_tokens": 10}
    with pytest.raises(TrialFailure, match="all 100 requests failed"):
        carried_out(trial_of(model, benchmark=benchmark, load=FIXED), tmp_path / "a")


def test_data_parallel_ranks_share_the_load(model: Path, tmp_path: Path) -> None:
    load = {"type": "fixed", "concurrency": 64}
    one, two = (
        carried_out(
            trial_of(model, load=load),
            tmp_path / str(ranks),
            {"data-parallel-size": ranks, "max-num-seqs": 8},
            kind="baseline",
        )
        for ranks in (1, 2)
    )
    ratio = two.metrics["output_tokens_per_s"] / one.metrics["output_tokens_per_s"]
    assert 1.8 < ratio < 2.1
    assert two.data["simulation"]["instances"] == 2


def test_shared_prefixes_are_found_in_the_cache(model: Path, tmp_path: Path) -> None:
    workload = {"type": "random", "input_tokens": 1100, "prefix_tokens": 1024, "output_tokens": 4}
    benchmark = {"type": "builtin", "requests": 50, "workload": workload}
    trial = trial_of(model, benchmark=benchmark, load={"type": "fixed", "concurrency": 1})
    cached, plain = (
        simulated_of(trial, tmp_path / name, **parameters)
        for name, parameters in (("c", {}), ("p", {"no-enable-prefix-caching": True}))
    )
    assert [one.cached_tokens for one in cached.served] == [0] + [1024] * 49
    assert {one.cached_tokens for one in plain.served} == {0}


def test_host_costs_of_the_block_count(model: Path, tmp_path: Path) -> None:
    host = {"admission": 0.2, "delivery": 0.1}
    load = {"type": "fixed", "concurrency": 1}
    plain, slow = (
        carried_out(trial_of(model, engine=block, load=load), tmp_path / name, kind="baseline")
        for name, block in (("p", engine_block()), ("s", engine_block(host=host)))
    )
    assert slow.metrics["ttft_mean_s"] - plain.metrics["ttft_mean_s"] == pytest.approx(0.3)
    assert slow.metrics["tpot_mean_s"] == pytest.approx(plain.metrics["tpot_mean_s"])


def test_a_trial_that_is_ended_leaves_no_simulation_running(model: Path, tmp_path: Path) -> None:
    workload = {"type": "random", "input_tokens": 8, "output_tokens": 2000}
    benchmark = {"type": "builtin", "requests": 20_000, "workload": workload}
    trial = trial_of(model, benchmark=benchmark, load={"type": "fixed", "request_rate": 5})
    (tmp_path / "t").mkdir()
    before = threading.active_count()
    spec = TrialSpec("run", "cafe", str(tmp_path / "t"), "serving", "baseline", {}, 0, {})
    steps = trial.run(TrialRun(spec))
    assert "simulated" in next(steps).note
    steps.close()
    assert threading.active_count() == before


# Identity, and what is delivered


def test_no_simulation_is_taken_for_a_measurement_or_for_another(
    model: Path, tmp_path: Path
) -> None:
    of = {"type": "vllm-ascend", "args": {"max-model-len": 4096}}
    changes: list[Mapping[str, Any]] = [
        {},
        {"latency": {"type": "linear", "base": 0.02}},
        {"device_memory": "32GiB"},
        {"num_blocks": 500},
        {"host": {"admission": 0.1}},
        {"of": of | {"args": {"max-model-len": 2048}}},
        {"platform": "gpu"},
    ]
    trials = [trial_of(model, engine=engine_block(**{"of": of, **change})) for change in changes]
    trials.append(trial_of(write_config(tmp_path / "other", num_hidden_layers=16)))
    trials.append(trial_of(model, early_rejection={"device_memory": "32GiB"}))
    seen = [json.dumps(trial.identity("candidate"), sort_keys=True) for trial in trials]
    assert len(set(seen)) == len(seen)
    assert all(json.loads(one)["engine"]["type"] == "simulated" for one in seen)
    again = trial_of(model, engine=engine_block(of))
    assert json.dumps(again.identity("candidate"), sort_keys=True) == seen[0]


def test_what_is_delivered_starts_the_real_engine_and_says_that_nothing_was_measured(
    model: Path,
) -> None:
    texts = trial_of(model).deliverables({"max-num-seqs": 7})
    first, second, *rest = texts["serve.sh"].splitlines()
    assert first == "#!/bin/sh"
    assert second.startswith("# Chosen by simulation")
    assert "--max-num-seqs 7" in rest[-1]


def test_nobody_starts_a_simulated_engine_by_mistake(model: Path) -> None:
    engine = make_engine(engine_block())
    with pytest.raises(StageError, match="starts nothing"):
        engine.prepared(Deployment(model, "m", "localhost", 8000))


# What is wrong is said before anything starts


@pytest.mark.parametrize(
    ("engine", "path", "said"),
    [
        ({"device_memory": None}, "trial.engine", "how much memory the KV cache has is not known"),
        ({"of": {"type": "script", "script": "x"}}, "trial.engine.of", "cannot be simulated"),
        ({"of": {"args": {}}}, "trial.engine.of", "needs a type"),
        ({"latency": {"type": "oracle"}}, "trial.engine.latency.type", "no latency model"),
        ({"latency": {"type": "linear", "base": "x"}}, "trial.engine.latency.base", "number"),
        ({"num_blocks": 5, "kv_cache_tokens": 5}, "trial.engine", "say the same"),
        ({"of": {"type": "vllm", "args": {"model": "x"}}}, "trial.engine.of.args.model", "trial"),
        (
            {"of": {"type": "vllm", "args": {"max-num-seqs": "many"}}},
            "trial.engine",
            "'many' is no size",
        ),
    ],
)
def test_faults_of_the_block(model: Path, engine: dict[str, Any], path: str, said: str) -> None:
    problems = trial_of(model, engine=engine_block(**engine)).problems()
    assert any(found.startswith(path) and said in text for found, text in problems), problems


def test_a_benchmark_whose_requests_cannot_be_known_is_refused(model: Path) -> None:
    problems = trial_of(model, benchmark={"type": "ais_bench", "datasets": "gsm8k"}).problems()
    assert [path for path, _ in problems] == ["trial.benchmark"]
    assert "not known without running it" in problems[0][1]


# Pictures and traces


def test_a_timeline_conserves_tokens_and_a_trace_is_well_formed(
    model: Path, tmp_path: Path
) -> None:
    trial = trial_of(model, load={"type": "fixed", "request_rate": 30})
    simulated = simulated_of(trial, tmp_path / "t", **{"data-parallel-size": 2})
    course = timeline(simulated)
    width = np.diff(course.coarse)
    assert float((course.prompt_rate * width).sum()) == pytest.approx(200 * 400)
    assert float((course.output_rate * width).sum()) == pytest.approx(200 * 79)
    assert float(course.kv_high.max()) <= 1
    write_trace(simulated, tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    opened = [event for event in events if event["ph"] == "b"]
    closed = [event for event in events if event["ph"] == "e"]
    assert len(opened) == len(closed) >= 3 * 200
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert {name.split(" (")[0] for name in names} == {"instance 0", "instance 1"}
    slices = [event for event in events if event["ph"] == "X" and event["pid"] == 1]
    ends = [event["ts"] + event["dur"] for event in slices]
    assert all(later["ts"] >= end - 0.01 for end, later in zip(ends, slices[1:], strict=False))


def test_a_request_that_is_answered_alone_takes_what_the_latency_model_says(
    model: Path, tmp_path: Path
) -> None:
    load = {"type": "fixed", "concurrency": 1}
    simulated = simulated_of(trial_of(model, load=load), tmp_path / "t")
    first = simulated.served[0]
    assert first.ttft == pytest.approx(0.01 + 400 * 5e-5)
    assert first.gaps == pytest.approx(np.full(79, 0.0101))
    assert replace(first.request, prefix=()) == first.request
    assert TTFT["max"] > first.ttft
