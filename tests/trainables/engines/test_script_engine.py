"""Any program as an engine: what it is told, how it shows that it serves."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cluster import find_processes, lease_ports
from tests.later import Later, until_late
from trainables import StageError, TrialFailure, TrialRun
from trainables.engines import Deployment, Service, make_engine, start_service
from trainables.engines.testing import check_engine, drive

STUB = Path(__file__).parents[2] / "stubs" / "openai_engine.py"
SERVE = f"""#!/bin/bash
echo "variables: $MAX_NUM_SEQS $SKIP $1"
echo "here: $PWD"
exec {sys.executable} {STUB} --model "$MODEL" --host "$HOST" --port "$PORT" \
  --served-model-name "$SERVED_MODEL_NAME"
"""
ONLY_A_PAGE = """
import http.server, os
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(404)
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Page).serve_forever()
"""

Model = Callable[..., Path]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    file = tmp_path / "run_model.sh"
    file.write_text(SERVE)
    return file


def block(script: Path, **keys: Any) -> dict[str, Any]:
    how = {"health_check_endpoint": "/health", "startup_timeout": 300, **keys}
    return {"type": "script", "script": str(script), **how}


def command(**keys: Any) -> dict[str, Any]:
    argv = [sys.executable, str(STUB), "serve", "$MODEL", "--host", "$HOST", "--port", "${PORT}"]
    named = {"command": argv, "args": ["--served-model-name", "$SERVED_MODEL_NAME"]}
    return {"type": "script", "health_check_endpoint": "/health", **named, **keys}


def test_a_script_keeps_the_contract(script: Path, model: Model, tmp_path: Path) -> None:
    changed = [{"env_vars": {"A": "1"}}, {"args": ["x"]}, {"interpreter": ["sh"]}]
    check_engine(block(script), model=model(), folder=tmp_path / "trials", matters=changed)


def test_a_command_keeps_the_contract(model: Model, tmp_path: Path) -> None:
    changed = [{"env_vars": {"A": "1"}}, {"args": ["x"]}]
    folder = tmp_path / "trials"
    check_engine(command(startup_timeout=300), model=model(), folder=folder, matters=changed)


def test_an_engine_that_only_has_a_page_keeps_the_contract(tmp_path: Path) -> None:
    page = {
        "type": "script",
        "command": [sys.executable, "-c", ONLY_A_PAGE],
        "ready_statuses": "200-499",
        "models_path": None,
        "completions_path": None,
        "startup_timeout": 300,
    }
    check_engine(page, model=tmp_path, folder=tmp_path / "trials")


def test_tuned_parameters_are_variables(
    start: Callable[..., Service], script: Path, model: Model, tmp_path: Path
) -> None:
    keys = {"env_vars": {"SKIP": 1}, "args": ["seqs=$MAX_NUM_SEQS"], "work_path": str(tmp_path)}
    service = start(make_engine(block(script, **keys)), model(), options={"MAX_NUM_SEQS": 64})
    log = service.log.read_text()
    assert "variables: 64 1 seqs=64" in log
    assert f"here: {tmp_path}\n" in log
    assert service.notes == ()


def test_what_is_not_proven_is_said(
    start: Callable[..., Service], script: Path, model: Model
) -> None:
    keys = {"completions_path": None, "models_path": None}
    service = start(make_engine(block(script, **keys)), model(status=500))
    (note,) = service.notes
    assert "no completion is asked for" in note
    assert f"=== {note}" in service.log.read_text()


def test_what_can_be_proven_is_proven(script: Path, model: Model, trial: TrialRun) -> None:
    with pytest.raises(TrialFailure, match="cannot complete a text"):
        drive(start_service(trial, make_engine(block(script)), model=model(status=500)))


@pytest.mark.parametrize(
    ("status", "accepted", "fine"),
    [(204, "200-399", True), (404, "200-499", True), (500, "200-499", False), (401, "401", True)],
)
def test_the_statuses_that_mean_ready(
    script: Path,
    model: Model,
    trial: TrialRun,
    clock: Later,
    status: int,
    accepted: str,
    fine: bool,
) -> None:
    keys = {"ready_statuses": accepted, "models_path": None}
    steps = start_service(
        trial, make_engine(block(script, **keys)), model=model(health_status=status)
    )
    if fine:
        drive(steps).stop()
    else:
        with pytest.raises(TrialFailure, match=f"/health answers {status}"):
            until_late(steps, clock, f"/health answers {status}")


def test_a_line_of_its_log_can_be_waited_for(
    script: Path, model: Model, trial: TrialRun, clock: Later
) -> None:
    engine = make_engine(block(script, ready_line="ready (to serve)"))
    steps = start_service(trial, engine, model=model(say="ready to serve"))
    log = trial.folder / "engine.log"

    def heard() -> bool:
        return "ready to serve" in log.read_text()

    with pytest.raises(TrialFailure, match="its log does not say"):
        until_late(steps, clock, "its log does not say", after=heard)
    drive(start_service(trial, engine, model=model(say="ready (to serve)"))).stop()


def test_a_program_that_serves_where_it_likes_is_found_at_its_port(
    start: Callable[..., Service], script: Path, model: Model
) -> None:
    with lease_ports() as lease:
        port = lease.ports[0]
    script.write_text(SERVE.replace('"$PORT"', str(port)))
    assert start(make_engine(block(script, port=port)), model()).base_url.endswith(f":{port}")


def test_another_name_for_the_port(start: Callable[..., Service], model: Model) -> None:
    argv = [sys.executable, str(STUB), "serve", "$MODEL", "--port", "$HTTP_PORT"]
    keys = {"port_variable": "HTTP_PORT", "command": argv, "args": []}
    folder = model()
    service = start(make_engine(command(**keys)), folder, served_name=str(folder))
    assert "'--port', '" in service.log.read_text()


def test_an_end_at_once_is_explained(script: Path, model: Model, trial: TrialRun) -> None:
    script.write_text("echo 'ValueError: no such model' >&2\nexit 3\n")
    with pytest.raises(TrialFailure, match="exit code 3: ValueError: no such model"):
        drive(start_service(trial, make_engine(block(script)), model=model()))
    assert not find_processes(trial.spec.run_id)


def test_what_it_cannot_be_told() -> None:
    engine = make_engine({"type": "script", "command": ["run"], "args": ["x$N"]})
    place = (Path("/m"), "m", "localhost", 20001)
    with pytest.raises(StageError, match="MODEL: the deployment decides"):
        engine.launch(Deployment(*place, options={"MODEL": "other"}))
    with pytest.raises(StageError, match=r"\$N has no value"):
        engine.launch(Deployment(*place, env={"N": ""}))


def test_configuration_files_are_not_for_it(script: Path, model: Model, trial: TrialRun) -> None:
    engine = make_engine(block(script))
    with pytest.raises(TrialFailure, match=r"a\.b: .* script has no configuration") as caught:
        drive(start_service(trial, engine, model=model(), config={"a.b": 1}))
    assert (caught.value.failure, caught.value.stage) == ("input", "deploy")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "give either command or script"),
        ({"command": ["a"], "script": "b"}, "give either command or script"),
        ({"command": ["a"], "ready_statuses": "2xx"}, "ready_statuses"),
        ({"command": ["a"], "ready_statuses": "399-200"}, "ready_statuses"),
        ({"command": ["a"], "completions_path": "v1"}, "completions_path"),
        ({"command": ["a"], "port_variable": "A=B"}, "port_variable"),
    ],
)
def test_blocks_that_cannot_be_meant(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make_engine({"type": "script", **keys})


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    keys = {"interpreter": ["no-such-shell"], "work_path": str(tmp_path / "nowhere")}
    found = dict(make_engine(block(tmp_path / "no.sh", **keys)).problems())
    assert list(found) == ["interpreter", "script", "work_path"]


def test_the_text_of_the_script_is_in_the_identity(script: Path) -> None:
    one = make_engine(block(script)).identity()
    json.dumps(one, allow_nan=False)
    neutral = {"ready_statuses": "200", "models_path": None, "env_vars": {"APP_LOG_LEVEL": "x"}}
    assert make_engine(block(script, **neutral)).identity() == one
    script.write_text(SERVE + "# changed\n")
    assert make_engine(block(script)).identity() != one
