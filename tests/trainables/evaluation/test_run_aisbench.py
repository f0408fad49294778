"""The stage program that runs AISBench, against its stub and a stub engine over HTTP."""

import importlib.util
import json
import os
import sys
import threading
from pathlib import Path

import psutil
import pytest

from trainables import StageError
from trainables.evaluation import make_evaluator
from trainables.evaluation._aisbench_command import call_for
from trainables.evaluation.run_aisbench import run_aisbench

STUBS = Path(__file__).parents[2] / "stubs"


@pytest.fixture(scope="module")
def engine():
    spec = importlib.util.spec_from_file_location("stub_engine", STUBS / "openai_engine.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    server = module.Stub("127.0.0.1", 0, "m", module.Behaviour(correct=0.75))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(aisbench, engine, tmp_path):
    """Evaluate the dataset ``add`` as the keywords of the block say."""

    def evaluate(*, mishap="", port=None, config="add_gen", settings=None, work="work", **keys):
        extra = {"extra_args": ["--stub", mishap]} if mishap else {}
        block = aisbench(
            datasets={"add": {"config_name": config, **extra}}, settings=settings, **keys
        )
        served = {"path": "", "model": "m", "host_ip": "127.0.0.1"}
        served["host_port"] = engine.server_address[1] if port is None else port
        call = call_for(
            make_evaluator(block).options,
            "add",
            served=served,
            trial="cafe",
            folder=tmp_path / work,
            log=tmp_path / "logs" / "add_trialcafe.log",
            timeout=240,
        )
        return run_aisbench(call.model_dump(mode="json"))

    return evaluate


def test_a_dataset_is_evaluated(run, tmp_path):
    found = run()
    assert 0 < float(found["values"]["accuracy"]) < 100
    assert found["items"] == 20
    assert found["results"]["add"]["values"] == found["values"]
    log = Path(found["log"]).read_text()
    heads = [line for line in log.splitlines() if line in ("[COMMAND]", "[STDOUT]", "[STDERR]")]
    assert heads == ["[COMMAND]", "[STDOUT]", "[STDERR]"]
    assert "--datasets add_gen" in log
    assert "Current exp folder: " in log
    assert list(Path(found["log"]).parent.iterdir()) == [Path(found["log"])]


def test_details_do_not_change_the_numbers(run):
    plain = run()
    detailed = run(settings={"extra_args": ["--dump-eval-details"]}, work="detailed")
    assert (detailed["values"], detailed["items"]) == (plain["values"], plain["items"])


@pytest.mark.parametrize(
    ("mishap", "failure", "said"),
    [
        ("exit", "tool", "exit code 3: RuntimeError: the stub fails"),
        ("killed", "out_of_memory", "SIGKILL"),
        ("no-folder", "tool", "does not say where its results are"),
        ("no-results", "tool", "left no result"),
        ("bad-json", "tool", "cannot be read"),
        ("nan", "tool", "NaN is no number"),
        ("no-number", "tool", "holds no number"),
        ("other-key", "input", "no accuracy, but score"),
        ("lost-answers", "tool", "lost the answers to 1 of its questions"),
        ("worker-killed", "tool", "its inference left no answers"),
    ],
)
def test_a_tool_that_fails_is_no_number(run, tmp_path, mishap, failure, said):
    with pytest.raises(StageError) as caught:
        run(mishap=mishap)
    assert said in str(caught.value)
    assert caught.value.failure == failure
    assert (tmp_path / "logs" / "add_trialcafe.log").is_file()
    assert not list(tmp_path.rglob("vllm_api_general_chat*"))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("no_such_gen", "none, or several, of the dataset configuration 'no_such_gen'"),
        ("lost_gen", r"Dataset path: .*lost\.jsonl is not exist"),
    ],
)
def test_a_dataset_that_is_not_there_is_a_fault_of_the_input(run, config, said):
    with pytest.raises(StageError, match=said) as caught:
        run(config=config)
    assert caught.value.failure == "input"


def test_an_absent_engine_is_a_failure_of_the_network(run):
    with pytest.raises(StageError, match=r"no result of add: .*Cannot connect to host") as caught:
        run(port=1)
    assert caught.value.failure == "network"


def test_an_absent_tool_is_named(run):
    with pytest.raises(StageError, match="/nowhere/ais_bench cannot be started") as caught:
        run(command=["/nowhere/ais_bench"])
    assert caught.value.failure == "input"


def test_a_tool_that_hangs_is_ended_with_all_it_started(run):
    with pytest.raises(StageError, match="did not finish add within 1 s") as caught:
        run(mishap="hang", settings={"timeout": 1})
    assert caught.value.failure == "timeout"
    assert psutil.Process().children(recursive=True) == []


def test_its_environment_is_the_users_and_offline(run, tmp_path, monkeypatch):
    """AISBench has an interpreter of its own, for which our packages are not."""
    spy = tmp_path / "spy.py"
    spy.write_text(
        "import json, os, sys\n"
        f"json.dump(dict(os.environ), open({str(tmp_path / 'env.json')!r}, 'w'))\n"
        "sys.exit(1)\n"
    )
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "0")
    monkeypatch.setenv("PYTHONPATH", str(STUBS.parents[1]))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(StageError, match="exit code 1"):
        run(command=[sys.executable, str(spy)])
    seen = json.loads((tmp_path / "env.json").read_text())
    assert (seen["HF_HUB_OFFLINE"], seen["HF_DATASETS_OFFLINE"]) == ("1", "0")
    assert "PYTHONPATH" not in seen
    assert "PYTHONPATH" in os.environ


def test_a_wrong_request_is_refused():
    with pytest.raises(StageError, match="the request is wrong") as caught:
        run_aisbench({"dataset": "add"})
    assert caught.value.failure == "input"
