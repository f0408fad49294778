"""Words of the user's in a benchmark's log, after which its trial is given up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HANGS = "import sys, time; print('NPU 3: link is down', flush=True); time.sleep(3600)"
STUB = str(Path(__file__).parents[2] / "stubs" / "vllm_bench.py")
Carried = Callable[..., dict[str, Any]]


@pytest.fixture
def measure(carry_out: Carried, options: dict[str, Any]) -> Carried:
    """Carry a trial out with a command as its benchmark, whose log is searched; its last report."""

    def carry(*command: str, stub: str = "", **errors: Any) -> dict[str, Any]:
        benchmark = {"type": "vllm_benchmark", "command": [sys.executable, *command]}
        if stub:
            benchmark["args"] = {"stub": stub}
        engine = options["engine"] | {
            "health_check": {"benchmark_errors": errors, "log_snippet_length": 1}
        }
        load = {"type": "fixed", "requests": 4}
        return carry_out({}, engine=engine, benchmark=benchmark, load=load)

    return carry


def test_a_benchmark_that_hangs_is_given_up(measure: Carried) -> None:
    report = measure("-c", HANGS, fatal_patterns={"device_error": ["link IS down"]})
    failure = report["failure"]
    assert (failure["class"], failure["retry"]) == ("device", "never")
    assert failure["stage"] == "benchmark-1"
    said = "the benchmark vllm_benchmark: its log has 'link IS down' (device_error)"
    assert failure["message"] == f"{said}: NPU 3: link is down"
    assert failure["excerpt"] == "NPU 3: link is down"


def test_what_the_user_says_goes_before_what_the_end_looks_like(measure: Carried) -> None:
    words = {"fatal_patterns": {"unknown": ["--stub"]}}  # in the command line alone
    words["retryable_patterns"] = {"network_error": ["the stub fails"]}
    failure = measure(STUB, stub="exit", **words)["failure"]
    assert (failure["class"], failure["retry"]) == ("network", "may")


def test_numbers_of_a_run_whose_log_has_the_words_do_not_count(measure: Carried) -> None:
    words = {"unknown": ["Serving Benchmark Result"]}
    report = measure(STUB, retryable_patterns=words)
    assert report["measurement"] is None
    assert report["failure"]["retry"] == "may"


def test_other_words_do_no_harm(measure: Carried) -> None:
    report = measure(STUB, fatal_patterns={"unknown": ["out of memory", "--base-url"]})
    assert report["status"] == "measured", report
