"""Words of the user's in an engine's log, after which a trial is given up."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from trainables import Progress, TrialFailure, TrialRun
from trainables.engines import (
    ErrorPatterns,
    ForeseenFailure,
    HealthCheck,
    Service,
    make_engine,
    start_service,
)
from trainables.engines._log import EngineLog
from trainables.engines.testing import drive

Block = Callable[..., dict[str, Any]]
Model = Callable[..., Path]


def looks_for(**errors: dict[str, list[str]]) -> dict[str, Any]:
    return {"service_errors": errors, "log_snippet_length": 3}


def fails_at_start(trial: TrialRun, block: dict[str, Any], model: Path) -> ForeseenFailure:
    with pytest.raises(ForeseenFailure) as caught:
        drive(start_service(trial, make_engine(block), model=model))
    return caught.value


@pytest.mark.parametrize(
    ("kind", "failure"),
    [
        ("out_of_memory", "out_of_memory"),
        ("device_error", "device"),
        ("network_error", "network"),
        ("io_error", "tool"),
        ("unknown", "tool"),
    ],
)
@pytest.mark.parametrize("severity", ["fatal_patterns", "retryable_patterns"])
def test_kinds_of_errors(kind: Any, failure: str, severity: str) -> None:
    errors = HealthCheck.model_validate(looks_for(**{severity: {kind: ["Dead"]}})).service_errors
    assert errors
    found = errors.found_in(["fine", "  it is DEAD now  "])
    assert found is not None
    assert found.failure == failure
    assert found.fatal == (severity == "fatal_patterns")
    assert str(found) == f"its log has 'Dead' ({kind}): it is DEAD now"
    document = ForeseenFailure(found, "deploy", "m", excerpt="").to_json()
    assert document["retry"] == ("never" if found.fatal else "may")
    assert document["class"] == failure
    assert errors.found_in(["de ad", ""]) is None


def test_fatal_words_go_before_the_others_and_earlier_lines_before_later_ones() -> None:
    errors = ErrorPatterns(
        fatal_patterns={"device_error": ["fault"]}, retryable_patterns={"io_error": ["fault"]}
    )
    found = errors.found_in(["fault 1", "fault 2"])
    assert found is not None
    assert found.fatal
    assert "fault 1" in str(found)


def test_nothing_is_looked_for_by_default() -> None:
    assert not HealthCheck().service_errors
    assert not HealthCheck().benchmark_errors
    empty = looks_for(fatal_patterns={"out_of_memory": []})
    assert not HealthCheck.model_validate(empty).service_errors


@pytest.mark.parametrize(
    "wrong",
    [
        {"service_errors": {"fatal_patterns": {"memory": ["x"]}}},
        {"service_errors": {"fatal_patterns": {"unknown": [" "]}}},
        {"service_errors": {"fatal": {}}},
        {"log_snippet_length": 0},
        {"log_snippet_length": 1001},
        {"benchmark_errors": {"fatal_patterns": {"unknown": [""]}}},
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make_engine({"type": "vllm", "health_check": wrong})


def test_a_start_is_given_up(block: Block, model: Model, trial: TrialRun) -> None:
    check = looks_for(fatal_patterns={"device_error": ["ras error"]})
    folder = model(say="one\ntwo\nthree\nRAS Error on card 3", start_delay=600)
    failure = fails_at_start(trial, block(health_check=check), folder)
    assert (failure.failure, failure.stage, failure.fatal) == ("device", "deploy", True)
    assert "'ras error' (device_error): RAS Error on card 3" in str(failure)
    assert failure.excerpt.splitlines() == ["two", "three", "RAS Error on card 3"]
    assert "engine.health_check" in failure.suggestion


def test_what_the_user_says_goes_before_what_the_end_looks_like(
    block: Block, model: Model, trial: TrialRun
) -> None:
    check = looks_for(retryable_patterns={"network_error": ["link is down"]})
    folder = model(die_at_start="RuntimeError: NPU out of memory, the link is down")
    failure = fails_at_start(trial, block(health_check=check), folder)
    assert (failure.failure, failure.fatal) == ("network", False)


def test_the_command_line_is_no_word_of_the_engine(
    start: Callable[..., Service], block: Block, model: Model
) -> None:
    check = looks_for(fatal_patterns={"unknown": ["=== "]})
    start(make_engine(block(health_check=check)), model())


def test_an_engine_that_serves_is_given_up(
    start: Callable[..., Service], block: Block, model: Model
) -> None:
    check = looks_for(retryable_patterns={"network_error": ["connection reset"]})
    service = start(make_engine(block(health_check=check)), model())

    def uses() -> Generator[Progress, None, None]:
        with service.log.open("a") as log:
            log.write("connection re")
            log.flush()
            for rest in ("", "set by peer\n"):
                log.write(rest)
                log.flush()
                yield Progress("benchmark")
        while True:
            yield Progress("benchmark")

    steps = uses()
    with pytest.raises(TrialFailure, match="connection reset by peer") as caught:
        drive(service.watch(steps), within_s=120)
    assert (caught.value.failure, caught.value.stage) == ("network", "benchmark")
    assert steps.gi_frame is None


def test_lines_are_read_once_and_whole(tmp_path: Path) -> None:
    log = EngineLog(tmp_path / "engine.log", ["engine"], ["a note"])
    assert log.file.read_text().endswith("=== a note\n")
    with log.file.open("a") as stream:
        stream.write("one\n\x1b[31mtwo\x1b[0m\nthr")
        stream.flush()
        assert log.new_lines() == ["one", "two"]
        assert log.new_lines() == []
        stream.write("ee\nfour")
        stream.flush()
        assert log.new_lines() == ["three"]
        assert log.new_lines(ended=True) == ["four"]
        assert log.new_lines(ended=True) == []
