"""How an engine comes up, or does not: the real adapter over a stub that behaves as it must."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster import find_processes, lease_ports
from tests.later import Later, until_late
from trainables import Progress, TrialFailure, TrialRun
from trainables.engines import Service, make_engine, start_service
from trainables.engines._vllm import VllmEngine
from trainables.engines.testing import drive

Block = Callable[..., dict[str, Any]]
Model = Callable[..., Path]


@pytest.fixture
def fails(trial: TrialRun, block: Block) -> Callable[..., TrialFailure]:
    """Start an engine that must not come up; what it fails with."""

    def begin(model: Path, **keys: Any) -> TrialFailure:
        with pytest.raises(TrialFailure) as caught:
            drive(start_service(trial, make_engine(block(**keys)), model=model))
        assert not find_processes(trial.spec.run_id)
        return caught.value

    return begin


@pytest.fixture
def foreign() -> Iterator[tuple[int, list[str]]]:
    """Somebody else's server: its port, and what it was asked."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", lease_port())) as server:
        server.settimeout(0.05)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    client, _ = server.accept()
                except TimeoutError:
                    continue
                with client:
                    asked.append(client.recv(4096).decode())
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], asked
        ended.set()
        thread.join()


def lease_port() -> int:
    with lease_ports() as lease:
        return lease.ports[0]


def test_an_engine_is_ready_when_it_has_answered(
    start: Callable[..., Service], block: Block, model: Model, trial: TrialRun
) -> None:
    service = start(make_engine(block()), model(start_delay=0.3))
    assert service.served_name == "tiny-model"
    asked = {"model": service.served_name, "prompt": "19+23=", "max_tokens": 4}
    answer = httpx.post(f"{service.base_url}/v1/completions", json=asked).json()
    assert answer["choices"][0]["text"] == "42"
    assert service.log == trial.folder / "engine.log"
    assert "POST /v1/completions" in service.log.read_text()
    assert service.seconds["deploy"] > 0.3
    assert service.seconds["health"] >= 0
    service.check()


def test_stages_tell_what_is_waited_for(block: Block, model: Model, trial: TrialRun) -> None:
    gate = trial.folder / "gate"
    gate.touch()
    folder = model(gate=str(gate), gate_after=0)
    steps = start_service(trial, make_engine(block()), model=folder, prefix="decode-1-")
    seen: list[Progress] = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            end.value.stop()
            break
        if "completion" in seen[-1].note:
            gate.unlink(missing_ok=True)
    assert list(dict.fromkeys(progress.stage for progress in seen)) == [
        "decode-1-deploy",
        "decode-1-health",
    ]
    assert "port" in seen[0].note
    assert "completion" in seen[-1].note
    assert (trial.folder / "decode-1-engine.log").exists()


def test_name_port_and_variables_reach_the_engine(
    start: Callable[..., Service], block: Block, model: Model
) -> None:
    port = lease_port()
    engine = make_engine(block(port=port, served_model_name="m", env_vars={"STUB_SAY": "hear me"}))
    service = start(engine, model())
    assert service.base_url == f"http://localhost:{port}"
    assert service.served_name == "m"
    log = service.log.read_text()
    assert "hear me" in log
    assert "'--served-model-name', 'm'" in log


def test_what_the_caller_says_wins_over_the_block(
    start: Callable[..., Service], block: Block, model: Model
) -> None:
    engine = make_engine(block(port=1, served_model_name="m", args={"seed": 1}))
    port = lease_port()
    service = start(engine, model(), port=port, served_name="n", options={"seed": 2})
    assert (service.deployment.port, service.served_name) == (port, "n")
    assert "'--seed', '2'" in service.log.read_text()


def test_a_proxy_of_the_environment_is_not_asked(
    start: Callable[..., Service], block: Block, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{lease_port()}")
    start(make_engine(block()), model())


def test_ipv6(start: Callable[..., Service], block: Block, model: Model) -> None:
    service = start(make_engine(block(host="::1")), model())
    assert httpx.get(f"{service.base_url}/health").status_code == 200


def test_several_engines_of_one_trial_share_nothing(
    start: Callable[..., Service], block: Block, model: Model
) -> None:
    engine = make_engine(block())
    one = start(engine, model(), prefix="prefill-0-")
    two = start(engine, model(), prefix="decode-0-")
    assert one.base_url != two.base_url
    one.stop()
    two.check()


def test_stopping_leaves_nothing_not_even_what_ignores_term(
    start: Callable[..., Service],
    block: Block,
    model: Model,
    trial: TrialRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(VllmEngine, "stop_grace", 0.5)
    service = start(make_engine(block()), model(stubborn_child=True))
    assert "VLLM::EngineCore stub" in service.log.read_text()
    service.stop()
    assert not find_processes(trial.spec.run_id)
    lease_ports(ports=(service.deployment.port,)).release()
    service.stop()


def test_giving_up_a_start_leaves_nothing(block: Block, model: Model, trial: TrialRun) -> None:
    port = lease_port()
    steps = start_service(trial, make_engine(block(port=port)), model=model(hang=True))
    while next(steps).stage != "health":
        pass
    steps.close()
    assert not find_processes(trial.spec.run_id)
    lease_ports(ports=(port,)).release()


def test_death_during_startup_is_seen_at_once(
    fails: Callable[..., TrialFailure], model: Model
) -> None:
    failure = fails(model(die_at_start="ValueError: this is why", start_delay=0.3))
    assert (failure.failure, failure.stage) == ("startup", "deploy")
    assert "exit code 1: ValueError: this is why" in str(failure)
    assert "this is why" in failure.excerpt


def test_death_before_anything_else_is_seen_at_once(
    fails: Callable[..., TrialFailure], model: Model
) -> None:
    failure = fails(model(), entrypoint="no_such_module")
    assert failure.failure == "input"
    assert "No module named no_such_module" in str(failure)
    assert "engine.command" in failure.suggestion


def test_a_program_that_is_not_there(fails: Callable[..., TrialFailure], model: Model) -> None:
    failure = fails(model(), command=["/no/such/python"])
    assert (failure.failure, failure.stage) == ("input", "deploy")
    assert "/no/such/python" in str(failure)


def test_a_demanded_port_that_a_stranger_serves_is_refused(
    fails: Callable[..., TrialFailure], model: Model, foreign: tuple[int, list[str]]
) -> None:
    port, asked = foreign
    failure = fails(model(), port=port)
    assert (failure.failure, failure.stage) == ("startup", "deploy")
    assert f"port {port} is taken by process {os.getpid()}" in str(failure)
    assert asked == []


def test_a_stranger_on_the_port_is_never_asked(
    fails: Callable[..., TrialFailure],
    model: Model,
    foreign: tuple[int, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It came between the lease and the engine's start, and the engine does not notice."""
    port, asked = foreign
    leased = lease_ports()
    leased.ports = (port,)
    monkeypatch.setattr("trainables.engines._service.lease_ports", lambda **_: leased)
    failure = fails(model(start_delay=600))
    assert (failure.failure, failure.stage) == ("startup", "deploy")
    assert f"process {os.getpid()}" in str(failure)
    assert asked == []


def test_an_engine_that_lists_its_model_but_cannot_infer(
    fails: Callable[..., TrialFailure], model: Model
) -> None:
    failure = fails(model(status=500))
    assert (failure.failure, failure.stage) == ("startup", "health")
    assert "500" in str(failure)
    assert "stub: inference is broken" in str(failure)


def test_an_engine_that_serves_something_else(
    fails: Callable[..., TrialFailure], model: Model
) -> None:
    failure = fails(model(list_as="gpt"))
    assert (failure.failure, failure.stage) == ("startup", "health")
    assert "'gpt'" in str(failure)
    assert "'tiny-model'" in str(failure)


@pytest.mark.parametrize(
    ("behaviour", "stage", "note"),
    [
        ({"start_delay": 600}, "deploy", "does not listen"),
        ({"health_status": 503}, "health", "503: {"),
        ({"status": 503}, "health", "503: {"),
        ({"hang": True}, "health", "completion"),
    ],
)
def test_an_engine_that_is_late(
    block: Block,
    model: Model,
    trial: TrialRun,
    clock: Later,
    behaviour: dict[str, Any],
    stage: str,
    note: str,
) -> None:
    steps = start_service(trial, make_engine(block()), model=model(**behaviour))
    with pytest.raises(TrialFailure) as caught:
        until_late(steps, clock, note)
    assert not find_processes(trial.spec.run_id)
    failure = caught.value
    assert (failure.failure, failure.stage) == ("timeout", stage)
    assert note in str(failure)
    assert "startup_timeout" in failure.suggestion


def test_an_engine_that_wants_a_key(fails: Callable[..., TrialFailure], model: Model) -> None:
    failure = fails(model(health_status=401))
    assert failure.failure == "startup"
    assert "API key" in failure.suggestion


def test_a_start_that_has_failed_but_does_not_end_is_not_waited_for(
    fails: Callable[..., TrialFailure], model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.engines._service._LAST_WORDS_S", 0.3)
    line = "ValueError: No available memory for the cache blocks. Try increasing it"
    failure = fails(model(say=line, start_delay=600))
    assert failure.failure == "out_of_memory"
    assert line in str(failure)


def test_earlier_starts_stay_in_the_log_and_explain_nothing(
    fails: Callable[..., TrialFailure], model: Model, trial: TrialRun
) -> None:
    fails(model(die_at_start="RuntimeError: NPU out of memory. Tried to allocate 2 GiB"))
    failure = fails(model(die_at_start="second start"))
    assert failure.failure == "startup"
    assert "second start" in str(failure)
    assert "NPU" not in failure.excerpt
    assert "NPU out of memory" in (trial.folder / "engine.log").read_text()
