"""What an experiment may say, what of it decides results, and the preset ``rouge``."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from searchers import Proposal, Space, make_strategy, strategy_options
from tests.trainables.script.conftest import Carried, merged
from trainables.script import rouge_preset
from trainables.script._json_path import steps, value_at
from trainables.script._options import ScriptTrialOptions
from trainables.script._trial import ScriptTrial

SAMPLE = """\
Questions: 1200, OK: 1200, Total time: 31.50s
Accuracy (RougeL-F1 mean, RAW): 0.8812
Throughput RAW: answer_tokens/s=1900.12, (prompt+answer)_tokens/s=7421.55
"""


def trial(block: dict[str, Any], **changes: Any) -> ScriptTrial:
    return ScriptTrial(ScriptTrialOptions.model_validate(merged(block, changes)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": {"a": {"pattern": "x=[0-9]"}}}, "has no group"),
        ({"metrics": {"a": {"pattern": "x=([0-9]"}}}, "no regular expression"),
        ({"metrics": {"a": {"json_path": "a..b"}}}, "no path into JSON"),
        ({"metrics": {"a": {"json_path": "a", "pattern": "(b)"}}}, "either pattern or json_path"),
        ({"metrics": {"a": {"pattern": "(b)", "file": "c"}}}, "file needs json_path"),
        ({"metrics": {"ok_runs": {"pattern": "(b)"}}}, "the trial's own metrics"),
        ({"metrics": {"tps_se": {"pattern": "(b)"}}}, "the trial's own metrics"),
        ({"ready": {"statuses": [499, 200]}}, "no range"),
        ({"ready": {"statuses": [20, 499]}}, "no status of HTTP"),
        ({"ready": {"path": "health"}}, "no path of a URL"),
        ({"host": "8.8.8.8"}, "can be reached from outside"),
        ({"start": {"command": []}}, "at least 1 item"),
        ({"retries": 1}, "Extra inputs"),
    ],
)
def test_faults_are_refused(block: dict[str, Any], changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        trial(block, **changes)


def test_options_survive_their_way_to_a_node(block: dict[str, Any]) -> None:
    for options in (trial(block), trial({"type": "script", "preset": "rouge"}, port=9000)):
        settings = json.loads(json.dumps(options.settings()))
        assert ScriptTrial.from_settings(settings).options == options.options


def test_a_program_a_folder_and_a_script_that_are_not_there_are_named(
    block: dict[str, Any], tmp_path: Path
) -> None:
    assert trial(block).problems() == []
    gone = str(tmp_path / "gone")
    assert trial(block, start={"cwd": gone}).problems()[0] == (
        "trial.start.cwd",
        f"there is no folder {gone}",
    )
    problems = dict(trial(block, evaluate={"command": ["no-such-program"]}).problems())
    assert problems == {"trial.evaluate.command": "there is no program 'no-such-program' here"}
    problems = dict(trial(block, start={"command": ["bash", "run_model.sh"]}).problems())
    assert "there is no file run_model.sh in" in problems["trial.start.command"]
    problems = dict(trial(block, start={"cwd": None}).problems())
    assert "say trial.start.cwd" in problems["trial.start.command"]


def test_the_schema_asks_for_the_commands_where_no_preset_has_them(block: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(ScriptTrial.schema())
    whole = {"type": "script", "preset": "rouge", "start": {"cwd": "/srv"}}
    assert validator.is_valid(whole)
    assert validator.is_valid(block)
    assert not validator.is_valid({**whole, "preset": "none"})
    assert not validator.is_valid({**block, "start": {}})
    assert not validator.is_valid({**whole, "port": "http"})


def test_names_that_the_trial_decides_are_no_parameters(block: dict[str, Any]) -> None:
    one = trial(block, port_env="SERVICE_PORT", start={"env": {"MINE": 1}})
    found = dict(one.parameter_problems(["SERVICE_PORT", "BASE_URL", "MINE", "PORT", "a=b", "OK"]))
    assert set(found) == {"SERVICE_PORT", "BASE_URL", "MINE", "a=b"}
    assert "trial.start.env sets it too" in found["MINE"]
    assert dict(trial(block, constants={"PORT": 1}).problems()).keys() == {"trial.constants.PORT"}


def test_identity_is_what_decides_numbers(block: dict[str, Any], tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text("exec true\n")
    block = merged(block, {"start": {"command": ["bash", "run.sh"], "cwd": str(tmp_path)}})
    same = [
        {"port": 9000, "host": "localhost", "port_busy_wait": 1, "cooldown": 5, "stop_grace": 1},
        {"ready": {"timeout": 9, "path": "/health"}, "retry_partial": 3},
        {"evaluate": {"timeout": 9}},
    ]
    other = [
        {"evaluate": {"runs": 5}},
        {"evaluate": {"env": {"A": 1}}},
        {"start": {"env": {"A": 1}}},
        {"constants": {"A": 1}},
        {"metrics": {"more": {"pattern": "(a)"}}},
    ]
    identity = trial(block).identity("candidate")
    assert all(trial(block, **change).identity("candidate") == identity for change in same)
    assert all(trial(block, **change).identity("candidate") != identity for change in other)
    script.write_text("exec false\n")
    assert trial(block).identity("candidate") != identity


@pytest.mark.parametrize(
    ("path", "found"),
    [("a.b[0].c", 1), ("a.b[-1]", [2]), ("a.b[1][0]", 2), ("d e", 3)],
)
def test_a_json_path_finds_its_value(path: str, found: object) -> None:
    assert value_at({"a": {"b": [{"c": 1}, [2]]}, "d e": 3}, path) == found


@pytest.mark.parametrize("path", ["", ".a", "a.", "a..b", "a[b]", "a[0]b", "a[", "a b "])
def test_what_is_no_json_path_is_refused_or_finds_nothing(path: str) -> None:
    try:
        steps(path)
    except ValueError:
        return
    with pytest.raises(LookupError):
        value_at({"a": {"b": 1}}, path or "none")


def test_the_preset_reads_the_lines_of_the_original() -> None:
    found = {
        name: float(re.search(pattern, SAMPLE)[1])  # type: ignore[index]
        for name, pattern in rouge_preset().patterns.items()
    }
    assert found == {
        "accuracy": 0.8812,
        "answer_tps": 1900.12,
        "total_tps": 7421.55,
        "total_time_s": 31.5,
    }


def test_the_preset_explores_every_parameter_of_its_base() -> None:
    preset = rouge_preset()
    assert preset.base.keys() == preset.candidates.keys()
    order = list(preset.candidates)
    assert order[0] == "GPU_MEMORY_UTILIZATION"
    assert order[-2:] == ["REPETITION_PENALTY", "FREQUENCY_PENALTY"]
    assert len(order) == 17
    candidates = [value for values in preset.candidates.values() for value in values]
    assert len(candidates) == 54
    assert all(isinstance(text, str) for text in (*preset.base.values(), *candidates))


def first_points(search: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """What the strategy of a ``search`` block asks before it has heard anything."""
    kind, space = search["type"], Space.model_validate(search["space"])
    options = strategy_options(kind).model_validate({"start": search["start"]})
    strategy = make_strategy(kind, options, space=space, seed=0)
    strategy.width = count
    asked = [strategy.ask() for _ in range(count)]
    return [dict(step.parameters) for step in asked if isinstance(step, Proposal)]


def test_the_search_of_the_preset_starts_at_the_base_and_keeps_the_order() -> None:
    preset = rouge_preset()
    search = preset.search()
    base, second, third, *rest = first_points(search, 4)
    assert base == dict(preset.base)
    assert second == {**base, "GPU_MEMORY_UTILIZATION": "0.98"}
    assert third == {**base, "GPU_MEMORY_UTILIZATION": "0.99"}
    assert not rest


def test_a_base_and_candidates_of_the_users_own_are_merged_into_it() -> None:
    search = rouge_preset().search(
        {"MAX_MODEL_LEN": "4096"}, {"MAX_NEW_TOKENS": ["64", "128"], "NEW": ["a", "b"]}
    )
    space = {name: parameter["values"] for name, parameter in search["space"].items()}
    assert space["MAX_MODEL_LEN"] == ["4096", "768", "1024", "1536", "2048"]
    assert space["MAX_NEW_TOKENS"] == ["32", "48", "64", "80", "128"]
    assert list(space)[-1] == "NEW"
    assert space["NEW"] == ["a", "b"]
    assert search["start"]["NEW"] == "a"
    assert space["FREQUENCY_PENALTY"] == ["0.1", "0.00", "0.05"]


def test_the_preset_runs_the_service_with_its_base_and_without_downloads(
    carry_out: Carried, monkeypatch: pytest.MonkeyPatch, block: dict[str, Any]
) -> None:
    monkeypatch.delenv("SKIP_PIP_INSTALL", raising=False)
    monkeypatch.setenv("SKIP_MODEL_DOWNLOAD", "0")
    show = 'printenv SKIP_PIP_INSTALL SKIP_MODEL_DOWNLOAD MAX_NEW_TOKENS STOP_STRINGS; exec "$@"'
    command = ["bash", "-c", show, "start", *block["start"]["command"]]
    report = carry_out(
        {"MAX_NEW_TOKENS": "48"}, preset="rouge", port=None, start={"command": command}
    )
    metrics = report["measurement"].metrics
    assert metrics["ok_runs"] == 5
    assert {"accuracy", "total_tps", "answer_tps", "total_time_s"} <= metrics.keys()
    lines = (report["folder"] / "server.log").read_text().splitlines()
    assert lines[1:5] == ["1", "0", "48", "<|im_end|>,<|endoftext|>"]


def test_what_is_delivered_starts_the_service_without_us(block: dict[str, Any]) -> None:
    text = trial(block, preset="rouge").deliverables({"MAX_NEW_TOKENS": "48"})["serve.sh"]
    lines = text.splitlines()
    assert "export MAX_NEW_TOKENS=48" in lines
    assert "export STOP_STRINGS='<|im_end|>,<|endoftext|>'" in lines
    assert "export PORT=8000" in lines
    assert "SKIP_PIP_INSTALL" not in text
    assert lines[-1] == f"exec {sys.executable} server.py --size 4"
