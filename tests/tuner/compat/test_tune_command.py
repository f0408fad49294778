"""The command ``tune``, as a user calls it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tiny_qwen3 import write_tiny_qwen3
from tests.tuner.compat.tune import CPU, PLANS, plan_text, tune
from tuner.cli import main
from tuner.cli._tune import _continues
from tuner.experiment import load_experiment

PLAN = PLANS / "binary_fallback.yaml"
STUBS = Path(__file__).parents[2] / "stubs"
KINDS = ("binary_fallback", "standing_high", "standing_high_with_experience")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of ours or of msModelSlim's from outside, none left behind."""
    for name in list(os.environ):
        if name.startswith(("TUNER_", "MSMODELSLIM_", "ASCEND_RT_")):
            monkeypatch.delenv(name)


@pytest.fixture
def tools(tmp_path: Path) -> list[str]:
    """Flags that name programs which are there; none of them is run."""
    quantizer = tmp_path / "msmodelslim"
    quantizer.write_text("#!/bin/sh\n")
    quantizer.chmod(0o755)
    return [
        *("--msmodelslim", str(quantizer)),
        *("--vllm", sys.executable),
        *("--ais_bench", f"{sys.executable} {STUBS / 'ais_bench.py'}"),
    ]


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return document


@pytest.mark.parametrize("kind", KINDS)
def test_the_printed_experiment_is_what_run_accepts_and_tune_would_run(
    kind: str, tmp_path: Path, tools: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_qwen3(tmp_path / "model")
    plan = PLANS / f"{kind}.yaml"
    assert tune(tmp_path, plan, *CPU, *tools, "--print-experiment") == 0
    file = tmp_path / "experiment.yaml"
    file.write_text(capsys.readouterr().out)
    experiment = load_experiment(file)
    assert experiment.search.type == kind
    assert experiment.storage == tmp_path / "save" / "tuner"
    assert tune(tmp_path, plan, *CPU, *tools, "--dry-run") == 0
    ours = capsys.readouterr()
    assert main(["run", str(file), "--dry-run"]) == 0
    assert capsys.readouterr().out == ours.out
    assert not (tmp_path / "save").exists()


def test_flags_go_into_the_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [
        *("--device", "npu", "--device_id", "0", "1", "--model_type", "Qwen3-32B"),
        *("--timeout", "7200", "--trust_remote_code", "--log_level", "debug"),
        *("--vllm", "/opt/vllm/bin/vllm", "--ais_bench", "a b", "--msmodelslim", "m"),
        *("--set", "cluster.address=auto"),
    ]
    assert tune(tmp_path, PLAN, *flags, "--print-experiment") == 0
    data = printed(capsys)
    assert data["trial"]["trust_remote_code"] is True
    assert data["trial"]["quantizer"] == {
        "type": "msmodelslim",
        "command": ["m"],
        "model_type": "Qwen3-32B",
    }
    assert data["trial"]["evaluation"]["engine"]["command"] == ["/opt/vllm/bin/vllm", "serve"]
    assert data["trial"]["evaluation"]["command"] == ["a", "b"]
    assert data["budget"] == {"trials": 30, "time": 7200}
    assert data["cluster"] == {"address": "auto", "resources": {"NPU": 2}}
    assert data["storage"] == str(tmp_path / "save")


def test_defaults_are_those_of_msmodelslim(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(tmp_path, PLAN, "--print-experiment") == 0
    data = printed(capsys)
    assert data["trial"]["device"] == "npu"
    assert data["trial"]["trust_remote_code"] is False
    assert data["trial"]["quantizer"]["model_type"] == "default"
    assert data["budget"] == {"trials": 30}
    assert "command" not in data["trial"]["evaluation"]["engine"]


def test_tools_and_the_repository_come_from_variables_and_flags_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNER_MSMODELSLIM", "/env/msmodelslim")
    monkeypatch.setenv("TUNER_AIS_BENCH", "/env/ais_bench")
    monkeypatch.setenv("TUNER_VLLM", "")
    monkeypatch.setenv("MSMODELSLIM_CUSTOM_PRACTICE_REPO", "practices")
    monkeypatch.setenv("MSMODELSLIM_LOG_LEVEL", "Debug")
    assert tune(tmp_path, PLAN, "--ais_bench", "/flag/ais_bench", "--print-experiment") == 0
    data = printed(capsys)
    assert data["trial"]["quantizer"]["command"] == ["/env/msmodelslim"]
    assert data["trial"]["evaluation"]["command"] == ["/flag/ais_bench"]
    assert "command" not in data["trial"]["evaluation"]["engine"]
    assert data["views"][0]["practice_repo"] == str(Path.cwd() / "practices")


def test_all_faults_of_flags_variables_and_plan_are_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MSMODELSLIM_LOG_LEVEL", "loud")
    monkeypatch.setenv("TUNER_VLLM", "vllm 'serve")
    plan = tmp_path / "plan.yaml"
    plan.write_text(plan_text("binary_fallback").replace('"83"', "-1"))
    (tmp_path / "file").touch()
    code = main(
        [
            *("tune", "--model_path", str(tmp_path / "none"), "-c", str(plan)),
            *("--save_path", str(tmp_path / "file/save"), "--device", "gpu"),
            *("--timeout", "soon", "--trust_remote_code", "maybe"),
        ]
    )
    assert code == 2
    *lines, last = capsys.readouterr().err.splitlines()
    assert last == "8 problems; nothing was started"
    assert [line.removeprefix(str(plan)).split(": ")[1] for line in lines] == [
        "evaluation.demand.expectations.0.target",
        "--device",
        "--model_path",
        "--save_path",
        "--timeout",
        "--trust_remote_code",
        "MSMODELSLIM_LOG_LEVEL",
        "TUNER_VLLM",
    ]


def test_a_missing_plan_does_not_hide_other_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(tmp_path, tmp_path / "plan.json", "--device", "gpu") == 2
    said = capsys.readouterr().err
    assert "cannot be read: No such file" in said
    assert "--config: " in said
    assert "--device: " in said


def test_paths_may_hold_any_character(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "模型 a+b=c"
    folder.mkdir()
    assert tune(folder, PLAN, "--print-experiment") == 0
    assert printed(capsys)["trial"]["model"] == str(folder / "model")


def test_faults_that_only_the_experiment_shows_are_placed_in_the_plan(
    tmp_path: Path, tools: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_qwen3(tmp_path / "model")
    plan = tmp_path / "plan.yaml"
    text = plan_text("binary_fallback").replace("mode: all\n    host", "mode: perf\n    host")
    plan.write_text(text.replace("enforce-eager: true", "api-key: secret"))
    missing = ["--ais_bench", "/nowhere/ais_bench"]
    assert tune(tmp_path, plan, *CPU, *tools, *missing) == 2
    said = capsys.readouterr().err
    for place in (
        "evaluation.evaluation.datasets.gsm8k.mode",
        "evaluation.inference_engine.args.api-key",
    ):
        number = 1 + next(
            index
            for index, line in enumerate(plan.read_text().splitlines())
            if line.strip() in ("mode: perf", "api-key: secret")
            and place.endswith(line.split(":")[0].strip())
        )
        assert f"{plan}:{number}: {place}: " in said
    assert f"{plan}: --ais_bench: " in said


def test_usage_errors_exit_2(tmp_path: Path) -> None:
    for arguments in (["tune"], ["tune", "--model_path", "x"], ["tune", "--log_level", "loud"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2


def test_only_a_session_of_the_same_question_is_continued(
    tmp_path: Path, tools: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_qwen3(tmp_path / "model")

    def experiment(*changes: str) -> Any:
        capsys.readouterr()
        assert tune(tmp_path, PLAN, *CPU, *tools, "--print-experiment", *changes) == 0
        file = tmp_path / "experiment.yaml"
        file.write_text(capsys.readouterr().out)
        return load_experiment(file)

    before = experiment()
    assert not _continues(before)
    before.storage.mkdir(parents=True)
    before.save(before.storage / "experiment.yaml")
    assert _continues(before)
    assert _continues(experiment("--timeout", "1H"))
    assert not _continues(experiment("--trust_remote_code", "True"))
    assert not _continues(experiment("--set", "objective.expectations.0.target=1"))
