"""An engine that ends, or stops answering, while somebody uses it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from trainables import Progress, TrialFailure
from trainables.engines import Service, make_engine
from trainables.engines.testing import drive

Block = Callable[..., dict[str, Any]]
Model = Callable[..., Path]


def uses(seconds: float, closed: list[str] | None = None) -> Generator[Progress, None, str]:
    """Steps of somebody who uses the engine."""
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.02)
            yield Progress("gsm8k")
        return "done"
    finally:
        if closed is not None:
            closed.append("closed")


def test_watching_returns_what_the_steps_found(
    start: Callable[..., Service], block: Block, model: Model
) -> None:
    service = start(make_engine(block()), model())
    assert drive(service.watch(uses(0.1))) == "done"
    assert drive(service.watch(uses(0))) == "done"


def test_the_end_of_an_engine_ends_what_uses_it(
    start: Callable[..., Service], block: Block, model: Model
) -> None:
    service = start(make_engine(block()), model(stubborn_child=True, say="last words"))
    closed: list[str] = []
    steps = service.watch(uses(60, closed))
    next(steps)
    psutil.Process(service._tree.pid).send_signal(signal.SIGABRT)
    with pytest.raises(TrialFailure) as caught:
        drive(steps, within_s=120)
    assert closed == ["closed"]
    failure = caught.value
    assert (failure.failure, failure.stage) == ("tool", "gsm8k")
    assert "SIGABRT" in str(failure)
    assert "last words" in failure.excerpt
    with pytest.raises(TrialFailure):
        service.check()


def test_results_of_an_engine_that_died_on_the_way_do_not_count(
    start: Callable[..., Service], block: Block, model: Model
) -> None:
    """Who uses it may take a dropped connection for a wrong answer and finish."""
    service = start(make_engine(block()), model(die_after=1, die_message="EngineDeadError: gone"))

    def careless() -> Generator[Progress, None, float]:
        yield Progress("gsm8k")
        with pytest.raises(httpx.HTTPError):
            asked = {"model": service.served_name, "prompt": "1+1="}
            httpx.post(f"{service.base_url}/v1/completions", json=asked)
        return 0.0

    with pytest.raises(TrialFailure, match="EngineDeadError: gone"):
        drive(service.watch(careless()))


def test_results_of_an_engine_that_cannot_infer_any_more_do_not_count(
    start: Callable[..., Service], block: Block, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.engines._service._LAST_PROOF_S", 1.0)
    service = start(make_engine(block()), model())
    for process in psutil.Process(service._tree.pid), *psutil.Process(service._tree.pid).children():
        process.suspend()
    with pytest.raises(TrialFailure, match="does not answer any more") as caught:
        drive(service.watch(uses(0.1)))
    assert caught.value.failure == "timeout"


def test_the_engine_is_blamed_for_what_its_end_did_to_its_user(
    start: Callable[..., Service], block: Block, model: Model
) -> None:
    service = start(make_engine(block()), model(die_after=1, die_message="NPU out of memory"))

    def strict() -> Generator[Progress, None, None]:
        yield Progress("gsm8k")
        try:
            asked = {"model": service.served_name, "prompt": "1+1="}
            httpx.post(f"{service.base_url}/v1/completions", json=asked)
        except httpx.HTTPError as error:
            raise TrialFailure("network", "gsm8k", "connection reset") from error

    with pytest.raises(TrialFailure) as caught:
        drive(service.watch(strict()))
    assert caught.value.failure == "out_of_memory"
    assert isinstance(caught.value.__cause__, TrialFailure)


def test_what_the_log_says_of_requests_is_not_why_an_engine_died(
    start: Callable[..., Service], block: Block, model: Model
) -> None:
    last = "ValidationError: Value error, top_k must be positive"
    service = start(make_engine(block()), model(die_after=1, die_message=last))
    with pytest.raises(TrialFailure, match="top_k") as caught:
        drive(service.watch(uses(0)))
    assert caught.value.failure == "tool"


def test_a_failure_that_is_not_the_engines_stays_what_it_is(
    start: Callable[..., Service], block: Block, model: Model
) -> None:
    service = start(make_engine(block()), model())

    def broken() -> Generator[Progress, None, None]:
        yield Progress("gsm8k")
        raise TrialFailure("tool", "gsm8k", "no summary")

    with pytest.raises(TrialFailure, match="no summary"):
        drive(service.watch(broken()))
    service.check()


def test_closing_what_watches_closes_what_it_watches(
    start: Callable[..., Service], block: Block, model: Model
) -> None:
    service = start(make_engine(block()), model())
    closed: list[str] = []
    steps = service.watch(uses(60, closed))
    next(steps)
    steps.close()
    assert closed == ["closed"]
    service.check()
