"""Conformance suite of the engine contract, for our adapters and those of third parties.

One call from a test checks everything, with real processes::

    def test_my_engine_keeps_the_contract(tmp_path):
        check_engine({"type": "mine", ...}, model=..., folder=tmp_path, matters=[{"args": {...}}])

The engine is started three times: it serves and is stopped, is killed while it is used, and its
start is given up. Whatever breaks the contract raises :class:`ContractViolation`.
"""

from __future__ import annotations

import inspect
import json
import time
import uuid
from collections.abc import Generator, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from cluster import find_processes, lease_ports, port_owners, sweep
from trainables._contract import (
    ContractViolation as ContractViolation,
)
from trainables._contract import (
    json_identity,
    require,
    require_nothing_left,
)
from trainables._trial import Json, Progress, TrialFailure, TrialRun, TrialSpec
from trainables.engines._engine import Deployment, Engine, Launch, make_engine
from trainables.engines._service import Service, start_service

R = TypeVar("R")

_LONGEST_STEP_S = 60.0
"""A step that takes longer waits for something, and a trial could not be cancelled meanwhile. On a
machine under load, a step that waits for nothing may take many seconds."""
_DEATH_NOTICED_S = 120.0
_NEUTRAL: Mapping[str, Json] = {"host": "127.0.0.1", "port": 23456, "startup_timeout": 1234.5}


def check_engine(
    block: Mapping[str, Json],
    *,
    model: Path,
    folder: Path,
    matters: Iterable[Mapping[str, Json]] = (),
) -> None:
    """Check the whole contract.

    Args:
        block: An ``engine`` block that can be started here.
        model: Checkpoint it can serve.
        folder: Empty folder for trials.
        matters: Changes of the block, each of which changes results.
    """
    check_block(block, model=model, matters=matters)
    run_id = f"engine-{uuid.uuid4().hex}"
    try:
        _check_life(make_engine(block), model, trial_in(folder / "life", run_id))
        _check_death(make_engine(block), model, trial_in(folder / "death", run_id))
        _check_giving_up(make_engine(block), model, trial_in(folder / "start", run_id))
    finally:
        sweep(run_id, grace_s=0)


def check_block(
    block: Mapping[str, Json], *, model: Path, matters: Iterable[Mapping[str, Json]] = ()
) -> None:
    """Check what can be checked without starting the engine; arguments as :func:`check_engine`."""
    engine = make_engine(block)
    options = engine.options
    again = type(options).model_validate(json.loads(json.dumps(options.model_dump(mode="json"))))
    require(again == options, f"options change on the way through JSON: {options} -> {again}")
    require(engine.problems() == [], f"a sound block has problems: {engine.problems()}")
    identity = json_identity(make_engine(block))
    require(
        identity == json_identity(make_engine(block)),
        "the identity of one block is not always the same",
    )
    neutral = json_identity(make_engine({**block, **_NEUTRAL}))
    require(identity == neutral, "host, port or startup_timeout changes the identity")
    for change in matters:
        require(
            identity != json_identity(make_engine({**block, **change})),
            f"{change} does not change identity",
        )
    _check_launch(engine, model)


def trial_in(folder: Path, run_id: str) -> TrialRun:
    """A trial without a type, whose processes belong to ``run_id``."""
    folder.mkdir(parents=True)
    spec = TrialSpec(run_id, "cafe0123", str(folder), "engine", "candidate", {}, 0, {})
    return TrialRun(spec)


def drive(steps: Generator[Progress, None, R], *, within_s: float = 180.0) -> R:
    """The result of ``steps``, run to their end; none of them may take long."""
    deadline = time.monotonic() + within_s
    while True:
        begun = time.monotonic()
        try:
            progress = next(steps)
        except StopIteration as end:
            result: R = end.value
            return result
        seconds = time.monotonic() - begun
        require(seconds < _LONGEST_STEP_S, f"a step of {progress} took {seconds:.1f} s")
        require(begun < deadline, f"no end within {within_s} s: {progress}")


def words_of(launch: Launch) -> list[str]:
    """All words of a command and its environment, which have to be texts."""
    words = [*launch.argv, *launch.env, *launch.env.values()]
    text = all(isinstance(word, str) and "\0" not in word for word in words)
    require(bool(launch.argv) and text, f"not a command: {launch}")
    return words


def _check_launch(engine: Engine, model: Path) -> None:
    first = Deployment(model, "some-name", "127.0.0.1", 23456)
    launch = engine.launch(first)
    require(launch == engine.launch(first), "launch() of one deployment is not always the same")
    words_of(launch)
    other = Deployment(model, "some-name", "127.0.0.1", 23457)
    told = _words(launch), engine.configuration(first)
    same = told == (_words(engine.launch(other)), engine.configuration(other))
    require(not same, "two instances would use the same port")
    if engine.headless:
        _check_headless(engine, first)


def _check_headless(engine: Engine, deployment: Deployment) -> None:
    """A part without an API runs another command than its head, and listens for no clients."""
    part = words_of(engine.launch(replace(deployment, headless=True)))
    require(part != words_of(engine.launch(deployment)), "a headless part would have an API")
    require(str(deployment.port) not in part, "a headless part would listen for clients")


def _words(launch: Launch) -> list[Any]:
    return [launch.argv, sorted(launch.env.items())]


def _check_life(engine: Engine, model: Path, trial: TrialRun) -> None:
    with _started(engine, model, trial) as service:
        port = service.deployment.port
        strangers = port_owners(port) - {found.pid for found in find_processes(trial.spec.run_id)}
        require(not strangers, f"{strangers} listen on its port and are not of its run")
        if engine.completions_path is not None:
            answer = httpx.post(
                f"{service.base_url}{engine.completions_path}",
                json={"model": service.served_name, "prompt": "1+1=", "max_tokens": 4},
                timeout=60,
                trust_env=False,
            )
            require(answer.status_code == 200, f"{answer.status_code}: {answer.text}")
        require(service.log.stat().st_size > 0, "nothing in its log")
        require(drive(service.watch(_steps(2))) == 2, "watch() loses the result")
        service.stop()
        service.stop()
    require_nothing_left(trial.spec.run_id)
    lease_ports(ports=(port,)).release()


def _check_death(engine: Engine, model: Path, trial: TrialRun) -> None:
    with _started(engine, model, trial) as service:
        steps = _steps(10**9)
        watched = service.watch(steps)
        next(watched)
        for pid in port_owners(service.deployment.port):
            psutil.Process(pid).kill()
        try:
            drive(watched, within_s=_DEATH_NOTICED_S)
        except TrialFailure as failure:
            require(bool(str(failure)), "a death without a message")
        else:
            raise ContractViolation("the engine died and nobody noticed")
        closed = inspect.getgeneratorstate(steps) == inspect.GEN_CLOSED
        require(closed, "what used the dead engine was not closed")
    require_nothing_left(trial.spec.run_id)


def _check_giving_up(engine: Engine, model: Path, trial: TrialRun) -> None:
    steps = start_service(trial, engine, model=model)
    next(steps)
    steps.close()
    require_nothing_left(trial.spec.run_id)


def _started(engine: Engine, model: Path, trial: TrialRun) -> Service:
    steps = start_service(trial, engine, model=model)
    return drive(steps, within_s=engine.startup_timeout + 60)


def _steps(count: int) -> Generator[Progress, None, int]:
    for _ in range(count):
        time.sleep(0.01)
        yield Progress("use")
    return count
