"""Results of the real ``vllm bench serve`` 0.32, recorded with a tiny model and a stub engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainables.benchmarks import METRICS, ResultError, read_vllm_bench_json
from trainables.benchmarks._vllm_benchmark_results import failures

DATA = Path(__file__).parent / "data" / "vllm_bench"


def document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return found


@pytest.fixture
def changed(tmp_path: Path) -> Any:
    """Write a recorded result with some keys replaced; None takes a key away."""

    def write(name: str, **keys: Any) -> Path:
        result = {**document(name), **keys}
        file = tmp_path / "result.json"
        file.write_text(json.dumps({key: v for key, v in result.items() if v is not None}))
        return file

    return write


def test_milliseconds_become_seconds_under_our_names() -> None:
    metrics, theirs = read_vllm_bench_json(DATA / "plain.json"), document("plain")
    assert set(metrics) <= METRICS
    for latency in ("ttft", "tpot", "itl", "e2el"):
        for ours, name in (("mean", "mean"), ("p50", "median"), ("p95", "p95"), ("p99", "p99")):
            value = theirs[f"{name}_{latency}_ms"]
            assert metrics[f"{latency}_{ours}_s"] == pytest.approx(value / 1000)
        assert f"{latency}_min_s" not in metrics
    assert metrics["output_tokens_per_s"] == theirs["output_throughput"]
    assert metrics["goodput_per_s"] == theirs["request_goodput"] > 0
    assert (metrics["request_rate"], metrics["concurrency"]) == (20, 6)
    assert (metrics["requests"], metrics["success_rate"]) == (12, 1)
    assert metrics["output_tokens"] == 12 * 16


def test_details_tell_minima_and_maxima_of_the_same_requests() -> None:
    metrics, theirs = read_vllm_bench_json(DATA / "detailed.json"), document("detailed")
    assert metrics["ttft_min_s"] == min(theirs["ttfts"])
    assert metrics["e2el_max_s"] == max(theirs["latencies"])
    for latency in ("ttft", "tpot", "itl", "e2el"):
        names = ("min", "p50", "p75", "p90", "p95", "p99", "max")
        values = [metrics[f"{latency}_{name}_s"] for name in names]
        assert values == sorted(values)
    little = sum(theirs["latencies"]) / theirs["duration"]
    assert metrics["mean_concurrency"] == pytest.approx(little)


def test_an_unlimited_load_has_no_number() -> None:
    metrics = read_vllm_bench_json(DATA / "some_failed.json")
    assert not {"request_rate", "concurrency", "goodput_per_s"} & set(metrics)
    assert metrics["success_rate"] == pytest.approx(7 / 20)


def test_requests_that_failed_are_no_part_of_the_details() -> None:
    metrics = read_vllm_bench_json(DATA / "some_failed_detailed.json")
    assert metrics["success_rate"] == pytest.approx(9 / 12)
    assert metrics["ttft_min_s"] > 0


def test_zeros_of_no_values_are_left_out() -> None:
    metrics = read_vllm_bench_json(DATA / "one_token.json")
    assert not [name for name in metrics if name.startswith(("tpot", "itl"))]
    assert metrics["ttft_mean_s"] > 0


def test_tokens_that_all_came_at_once_have_a_tpot(changed: Any) -> None:
    metrics = read_vllm_bench_json(changed("one_token", total_output_tokens=40))
    assert metrics["tpot_mean_s"] == 0


def test_older_versions_do_not_count_failures(changed: Any) -> None:
    metrics = read_vllm_bench_json(changed("some_failed", failed=None))
    assert metrics["success_rate"] == pytest.approx(7 / 20)


@pytest.mark.parametrize(
    ("name", "failed"),
    [
        ("plain", {}),
        ("some_failed", {"Internal Server Error": 10, "no reason given": 3}),
        ("some_failed_detailed", {"Internal Server Error": 3}),
        (
            "nobody_there",
            {
                "aiohttp.client_exceptions.ClientConnectorError: Cannot connect to host "
                "127.0.0.1:18799 ssl:default [Connect call failed ('127.0.0.1', 18799)]": 4
            },
        ),
    ],
)
def test_failures_are_counted_by_their_reason(name: str, failed: dict[str, int]) -> None:
    log = DATA / f"{name}.log"
    assert failures(document(name), log.read_text() if log.exists() else "") == failed


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"completed": 0, "failed": 20}, "all 20 requests failed"),
        ({"completed": None}, "completed is missing"),
        ({"duration": "long"}, "duration is 'long'"),
        ({"duration": float("nan")}, "duration is nan"),
        ({"mean_ttft_ms": "?"}, r"mean_ttft_ms is '\?'"),
    ],
)
def test_what_is_no_measurement_is_refused(keys: dict[str, Any], said: str, changed: Any) -> None:
    with pytest.raises(ResultError, match=said):
        read_vllm_bench_json(changed("plain", **keys))


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    for text, said in (
        (None, "there is no result"),
        ((DATA / "plain.json").read_text()[:500], "cannot be read"),
        ("[]", "is no object"),
    ):
        if text is not None:
            file.write_text(text)
        with pytest.raises(ResultError, match=said):
            read_vllm_bench_json(file)
