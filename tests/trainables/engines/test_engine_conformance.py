"""The conformance suite passes sound adapters and catches the others, each for its own reason."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.later import Later, until_late
from trainables import TrialFailure, TrialRun
from trainables.engines import (
    Deployment,
    Engine,
    EngineOptions,
    Launch,
    Service,
    make_engine,
    register_engine,
    start_service,
    testing,
)
from trainables.engines._engine import _ENGINES
from trainables.engines.testing import (
    ContractViolation,
    check_block,
    check_engine,
    drive,
)

STUB = Path(__file__).parents[2] / "stubs" / "openai_engine.py"
MATTERS: list[Mapping[str, Any]] = [{"env_vars": {"STUB_LATENCY": 0.1}}]


@register_engine("configured-stub")
class ConfiguredStub(Engine):
    """An engine of another sort: it reads a file and says in its log when it is up."""

    Options = EngineOptions
    ready_line = re.compile(r"^ready to serve$", re.MULTILINE)
    symptoms = ()

    def launch(self, deployment: Deployment) -> Launch:
        place = ["--host", deployment.host, "--port", str(deployment.port)]
        argv = [sys.executable, str(STUB), "serve", str(deployment.model), *place]
        named = [*argv, "--served-model-name", deployment.served_name]
        return Launch(tuple(named), self.options.env_vars)

    def identity(self) -> Any:
        return {"type": self.options.type, "env_vars": self.options.env_vars}

    @contextmanager
    def prepared(self, deployment: Deployment) -> Iterator[None]:
        file = deployment.model / "config"
        file.write_text("edited")
        try:
            yield
        finally:
            file.write_text("as before")


class PortInIdentity(ConfiguredStub):
    def identity(self) -> Any:
        return {**super().identity(), "port": self.options.port}


class BlindToVariables(ConfiguredStub):
    def identity(self) -> Any:
        return self.options.type


class NoJson(ConfiguredStub):
    def identity(self) -> Any:
        return {"env": tuple(self.options.env_vars)}


class OnePortForAll(ConfiguredStub):
    def launch(self, deployment: Deployment) -> Launch:
        return Launch(("engine", "--port", "8000"))


class Forgetful(ConfiguredStub):
    count = 0

    def launch(self, deployment: Deployment) -> Launch:
        type(self).count += 1
        return Launch(("engine", str(self.count), str(deployment.port)))


class Complains(ConfiguredStub):
    def problems(self) -> list[tuple[str, str]]:
        return [("port", "is odd")]


class NumberInEnvironment(ConfiguredStub):
    def launch(self, deployment: Deployment) -> Launch:
        numbers: Any = {"PORT": deployment.port}
        return Launch(("engine",), numbers)


class HeadlessWithAnApi(ConfiguredStub):
    headless = True


class HeadlessThatListens(ConfiguredStub):
    headless = True

    def launch(self, deployment: Deployment) -> Launch:
        launch = super().launch(deployment)
        part = ("--headless",) if deployment.headless else ()
        return Launch((*launch.argv, *part), launch.env)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (PortInIdentity, "host, port or startup_timeout changes"),
        (BlindToVariables, "does not change identity"),
        (NoJson, "not JSON"),
        (OnePortForAll, "the same port"),
        (Forgetful, "not always the same"),
        (Complains, "is odd"),
        (NumberInEnvironment, "not a command"),
        (HeadlessWithAnApi, "would have an API"),
        (HeadlessThatListens, "would listen for clients"),
    ],
)
def test_broken_adapters_are_caught(
    broken: type[Engine], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ENGINES, "find", lambda _: broken)
    with pytest.raises(ContractViolation, match=said):
        check_block({"type": "broken"}, model=tmp_path, matters=MATTERS)


def test_an_engine_that_does_not_use_its_port_is_caught(
    model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(self: Engine, deployment: Deployment) -> Launch:
        other = Deployment(**{**vars(deployment), "port": deployment.port ^ 1})
        return launch(self, other)

    launch = ConfiguredStub.launch
    monkeypatch.setattr(ConfiguredStub, "launch", elsewhere)
    block = {"type": "configured-stub", "startup_timeout": 1.5}
    with pytest.raises(TrialFailure, match="does not listen on port"):
        check_engine(block, model=model(say="ready to serve"), folder=tmp_path / "trials")


def test_vllm_keeps_the_contract(
    block: Callable[..., dict[str, Any]], model: Callable[..., Path], tmp_path: Path
) -> None:
    changed = [{"args": {"dtype": "float32"}}, {"env_vars": {"A": "1"}}, {"entrypoint": "other"}]
    check_engine(block(), model=model(), folder=tmp_path / "trials", matters=changed)


def test_an_engine_of_another_sort_keeps_the_contract(
    model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = model(say="ready to serve")
    block = {"type": "configured-stub", "startup_timeout": 300}
    check_engine(block, model=folder, folder=tmp_path / "trials", matters=MATTERS)
    assert (folder / "config").read_text() == "as before"


def test_what_is_prepared_lasts_as_long_as_the_engine(
    start: Callable[..., Service], model: Callable[..., Path]
) -> None:
    folder = model(say="ready to serve")
    service = start(make_engine({"type": "configured-stub"}), folder)
    assert (folder / "config").read_text() == "edited"
    service.stop()
    assert (folder / "config").read_text() == "as before"


def test_what_is_prepared_is_undone_when_the_engine_cannot_be_started(
    model: Callable[..., Path], trial: TrialRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ConfiguredStub, "launch", lambda *_: Launch(("/no/such/engine",)))
    folder = model()
    with pytest.raises(TrialFailure, match="/no/such/engine"):
        drive(start_service(trial, make_engine({"type": "configured-stub"}), model=folder))
    assert (folder / "config").read_text() == "as before"


def test_an_engine_that_announces_itself_is_not_asked_before(
    model: Callable[..., Path], trial: TrialRun, clock: Later
) -> None:
    engine = make_engine({"type": "configured-stub", "startup_timeout": 300})
    steps = start_service(trial, engine, model=model(say="almost ready to serve"))
    said, log = "does not say '^ready to serve", trial.folder / "engine.log"
    with pytest.raises(TrialFailure, match=re.escape(said)):
        until_late(steps, clock, said, after=lambda: "almost ready" in log.read_text())
    assert "GET" not in log.read_text()


def test_a_step_that_takes_long_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "_LONGEST_STEP_S", 0.2)

    def slow() -> Any:
        signal.sigtimedwait([], 0.3)
        yield "slow"

    with pytest.raises(ContractViolation, match="a step of slow took"):
        drive(slow())
