"""The built-in benchmark measures what a service really does, with real processes."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import lease_ports
from trainables import TrialFailure, TrialRun
from trainables.benchmarks import BenchmarkResult, Load, Target, Window, make_benchmark
from trainables.benchmarks.testing import Served
from trainables.engines.testing import drive

Stub = Callable[..., Served]
Measure = Callable[..., BenchmarkResult]
TINY = {"type": "random", "input_tokens": 12, "output_tokens": 10}


def block(**options: Any) -> dict[str, Any]:
    return {"type": "builtin", "workload": TINY, "warm_ups": 1, "requests": 12, **options}


@pytest.fixture
def measure(trial: TrialRun) -> Measure:
    """Run the benchmark on a service."""

    def run(
        served: Served | Target, load: Load | None = None, *, stage: str = "b", **options: Any
    ) -> BenchmarkResult:
        target = served.target if isinstance(served, Served) else served
        steps = make_benchmark(block(**options)).run(
            trial, target, load or Load(concurrency=4), stage=stage, seed=5, timeout=200
        )
        return drive(steps, within_s=250)

    return run


def records(found: BenchmarkResult, artifact: str = "requests") -> list[dict[str, Any]]:
    text = Path(found.artifacts[artifact]).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_latencies_are_those_of_the_service(endpoint: str, stub: Stub, measure: Measure) -> None:
    served = stub(ttft=0.1, tpot=0.02)
    found = measure(served, endpoint=endpoint, goodput={"e2el_s": 30})
    metrics = found.metrics
    assert 0.1 <= metrics["ttft_min_s"] <= metrics["ttft_p50_s"]
    # A first token that the client reads late shortens the TPOT of its request.
    assert metrics["tpot_p50_s"] > 0.019
    assert metrics["itl_p50_s"] == pytest.approx(metrics["tpot_p50_s"], rel=0.3)
    assert metrics["e2el_min_s"] >= 0.1 + 9 * 0.02
    parts = metrics["ttft_p50_s"] + 9 * metrics["tpot_p50_s"]
    assert metrics["e2el_p50_s"] == pytest.approx(parts, rel=0.3)
    assert (metrics["requests"], metrics["output_tokens"]) == (12, 120)
    assert metrics["input_tokens"] == 12 * 12
    assert metrics["goodput_per_s"] == metrics["requests_per_s"]
    assert 3 < metrics["mean_concurrency"] <= 4
    assert found.data["tokens_counted_by"] == "usage"
    assert found.data["failures"] == {}
    bodies = served.requests()
    assert len(bodies) == 13
    assert all(body["temperature"] == 0 and body["max_tokens"] == 10 for body in bodies)


def test_load_has_an_effect(stub: Stub, measure: Measure) -> None:
    served = stub(slots=2, ttft=0.02, tpot=0.005)
    few = measure(served, Load(24, concurrency=2), stage="few").metrics
    many = measure(served, Load(24, concurrency=12), stage="many").metrics
    assert many["ttft_p50_s"] > 3 * few["ttft_p50_s"]
    assert many["tpot_p50_s"] < 2 * few["tpot_p50_s"]
    assert many["output_tokens_per_s"] < 1.5 * few["output_tokens_per_s"]


def test_an_open_loop_does_not_wait_for_a_slow_service(stub: Stub, measure: Measure) -> None:
    served = stub(slots=1, ttft=0.1)
    found = measure(served, Load(20, request_rate=40), arrivals="constant")
    sent = [one["sent"] for one in records(found)]
    assert all(at > number / 40 - 0.001 for number, at in enumerate(sent))
    assert found.metrics["request_rate"] == 40
    assert "concurrency" not in found.metrics
    # Each takes 0.1 s, one at a time, and is sent 0.025 s after the one before.
    assert found.metrics["ttft_max_s"] > 20 * 0.1 - 19 * 0.025 - 0.05
    assert found.metrics["mean_concurrency"] > 5


def test_a_limit_holds_requests_back_and_says_so(stub: Stub, measure: Measure) -> None:
    served = stub(slots=2, ttft=0.2)
    found = measure(served, Load(12, concurrency=2, request_rate=100), window_s=0.05)
    longest = found.data["waited_for_place_s"]["max"]
    assert longest > 5 * 0.2 - 12 / 100 - 0.05
    assert 2 * found.metrics["ttft_p50_s"] < longest
    assert max(window["running"] for window in records(found, "windows")) == 2


def test_all_at_once(stub: Stub, measure: Measure) -> None:
    found = measure(stub(ttft=1.0), Load(40))
    assert found.metrics["mean_concurrency"] > 20
    assert not {"concurrency", "request_rate"} & set(found.metrics)


def test_a_trace_arrives_as_recorded_or_at_a_rate(
    stub: Stub, measure: Measure, tmp_path: Path
) -> None:
    file = tmp_path / "trace.csv"
    rows = "0,9,4\n0.3,9,4\n0.4,9,4\n2.0,9,4\n"
    file.write_text(f"arrived_at,num_prefill_tokens,num_decode_tokens\n{rows}")
    workload = {"type": "trace", "path": str(file)}
    served = stub()
    recorded = records(measure(served, Load(), workload=workload, stage="as-recorded"))
    due = [0, 0.3, 0.4, 2.0]
    assert all(one["sent"] > at - 0.001 for one, at in zip(recorded, due, strict=True))
    faster = records(measure(served, Load(request_rate=750), workload=workload, stage="faster"))
    assert faster[-1]["sent"] < 2.0
    assert [one["output_tokens"] for one in faster] == [4] * 4


def test_tokens_that_come_together(stub: Stub, measure: Measure) -> None:
    served = stub(burst=5, tpot=0.05)
    found = measure(served, save_itl=True)
    assert found.metrics["output_tokens"] == 120
    assert {len(one["itl"]) for one in records(found)} == {1}
    assert found.metrics["tpot_p50_s"] == pytest.approx(0.05 / 9, rel=0.5)


def test_a_service_without_usage(stub: Stub, measure: Measure) -> None:
    found = measure(stub(usage=False))
    assert found.metrics["output_tokens"] == 120
    assert found.metrics["input_tokens"] == 144
    assert found.data["tokens_counted_by"] == "chunks"
    assert "told no usage of 12 requests" in found.data["note"]


def test_answers_that_end_early_are_told(stub: Stub, measure: Measure) -> None:
    workload = {**TINY, "output_tokens": 30}
    found = measure(stub(), workload=workload, ignore_eos=False)
    assert found.metrics["output_tokens"] == 12 * 11
    assert found.data["short_answers"] == 12
    assert "12 of 12 answers are shorter" in found.data["note"]


def test_warm_ups_leave_nothing_of_what_counts_in_a_cache(stub: Stub, measure: Measure) -> None:
    served = stub()
    found = measure(served, warm_ups=6)
    assert found.metrics["requests"] == 12
    prompts = [body["prompt"] for body in served.requests()]
    assert len(prompts) == 18
    assert not set(prompts[:6]) & set(prompts[6:])


@pytest.mark.parametrize(
    ("behaviour", "options", "failure", "said"),
    [
        ({"status": 500}, {}, "tool", "all 12 requests failed: HTTP 500: .*broken.* \\(12\\)"),
        ({"status": 400}, {}, "input", "all 12 requests failed: HTTP 400"),
        ({"cut_after": 3}, {}, "network", "the connection broke: ClientPayloadError"),
        ({"hang": True}, {"request_timeout": 0.3}, "timeout", "no end of its answer within 0.3 s"),
        ({}, {"workload": {"type": "text", "path": "/no/file"}}, "input", "/no/file"),
    ],
)
def test_why_a_run_fails(
    behaviour: dict[str, Any],
    options: dict[str, Any],
    failure: str,
    said: str,
    stub: Stub,
    measure: Measure,
) -> None:
    with pytest.raises(TrialFailure, match=said) as caught:
        measure(stub(**behaviour), Load(concurrency=12), **options)
    assert caught.value.failure == failure
    assert caught.value.stage == "b"


def test_nobody_there(measure: Measure, tmp_path: Path) -> None:
    with lease_ports() as lease:
        target = Target(f"http://127.0.0.1:{lease.ports[0]}", "tiny", tmp_path)
        with pytest.raises(TrialFailure, match="nobody listens") as caught:
            measure(target)
    assert caught.value.failure == "network"


def test_a_death_with_every_request_under_way_is_noticed(stub: Stub, measure: Measure) -> None:
    served = stub(ttft=0.3, die_after=12)
    with pytest.raises(TrialFailure, match="nobody listens"):
        measure(served, Load(12, request_rate=20))


def test_a_finished_run_is_not_repeated_but_another_one_is(
    stub: Stub, trial: TrialRun, tmp_path: Path
) -> None:
    served = stub()

    def run(seed: int) -> BenchmarkResult:
        steps = make_benchmark(block()).run(
            TrialRun(trial.spec), served.target, Load(), stage="b", seed=seed, timeout=60
        )
        return drive(steps)

    first, again = run(1), run(1)
    assert again.metrics == first.metrics
    assert len(served.requests()) == 13
    run(2)
    assert len(served.requests()) == 26


def test_a_run_can_be_watched(stub: Stub, trial: TrialRun) -> None:
    gate = trial.folder / "gate"
    gate.touch()
    served = stub(ttft=0.02, tpot=0.04, gate=str(gate), gate_after=5)
    benchmark = make_benchmark(block(window_s=0.2))
    steps = benchmark.run(trial, served.target, Load(concurrency=2), stage="b", seed=0, timeout=200)
    seen: list[list[Window]] = []
    notes = []
    for progress in steps:
        seen.append(list(benchmark.windows(trial, "b")))
        notes.append(progress.note)
        if seen[-1]:
            gate.unlink(missing_ok=True)
    assert notes[0] == "0 of 12 requests"
    assert len(set(notes)) > 1
    early = next(windows for windows in seen if windows)
    assert sum(one.completed for one in early) < 12
    last = benchmark.windows(trial, "b")
    assert sum(one.completed for one in last) == 12
    assert sum(one.output_tokens for one in last) == 120
    assert len([value for one in last for value in one.ttft_s]) == 12
    assert statistics.median(value for one in last for value in one.tpot_s) > 0.03
    assert list(make_benchmark(block()).windows(trial, "b")) == list(last)


def test_the_client_needs_little_of_a_core(stub: Stub, measure: Measure) -> None:
    """At 200 requests and 2000 tokens per second, less than two thirds of one where Python decodes
    a chunk of JSON in 2 us; elsewhere in proportion."""
    workload = {**TINY, "output_tokens": 10}
    found = measure(stub(tpot=0.01), Load(400, request_rate=200), workload=workload)
    seconds = found.data["client"]["busy"] * found.metrics["duration_s"]
    assert found.metrics["success_rate"] == 1
    assert seconds / 400 < 0.0033 * decoding_s() / 2e-6


def decoding_s() -> float:
    """CPU time in which this machine decodes a chunk, at its best."""
    choice = {"index": 0, "text": "have ", "finish_reason": None}
    chunk = json.dumps({"id": "stub", "created": 1, "model": "tiny", "choices": [choice]})

    def once() -> float:
        begun = time.process_time()
        for _ in range(2000):
            json.loads(chunk)
        return (time.process_time() - begun) / 2000

    return min(once() for _ in range(9))
