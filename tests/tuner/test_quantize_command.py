"""``tuner quantize`` with the skill's call, on a stand-in for msModelSlim that really quantizes."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from tests.tiny_qwen3 import write_tiny_qwen3
from trainables.models import verify_digest
from trainables.quantization import practice_from_scheme
from tuner.cli import main

STUB = Path(__file__).parents[1] / "stubs" / "msmodelslim.py"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    write_tiny_qwen3(folder)
    return folder


@pytest.fixture
def practice(tmp_path: Path) -> Path:
    file = tmp_path / "practice.yaml"
    file.write_text(practice_from_scheme("w8a8_dynamic").yaml())
    return file


def call(model: Path, practice: Path, output: Path, *more: str) -> list[str]:
    tool = shlex.join([sys.executable, str(STUB)])
    paths = ["--model_path", str(model), "--config_path", str(practice)]
    others = ["--save_path", str(output), "--device", "cpu", "--msmodelslim", tool]
    return ["quantize", *paths, *others, "--json", *more]


def test_the_weights_lie_where_the_skill_wants_them(
    model: Path, practice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "work" / "round_1" / "quantized"
    assert main(call(model, practice, output)) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["ok"] and said["path"] == str(output)
    assert verify_digest(output, said["files"]) == []
    assert said["quantized_layers"]


def test_a_failed_tool_ends_the_command_and_leaves_no_weights(
    model: Path,
    practice: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MSMODELSLIM_STUB_CAUSE", '"RuntimeError: NPU out of memory"')
    output = tmp_path / "round_1" / "quantized"
    assert main(call(model, practice, output)) == 1
    captured = capsys.readouterr()
    said = json.loads(captured.out.splitlines()[-1])
    assert not said["ok"] and said["error_code"] == "OOM_ERROR"
    assert "out of memory" in captured.err
    assert not output.exists()


def test_weights_of_an_earlier_round_are_never_overwritten(
    model: Path, practice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "round_1" / "quantized"
    output.mkdir(parents=True)
    kept = output / "model.safetensors"
    kept.write_text("of the last round")
    assert main(call(model, practice, output)) == 2
    assert "--save_path" in capsys.readouterr().err
    assert kept.read_text() == "of the last round"


def test_all_faults_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    practice = tmp_path / "practice.yaml"
    practice.write_text(yaml.safe_dump({"apiversion": "unknown"}))
    arguments = call(tmp_path / "gone", practice, tmp_path / "out", "--trust_remote_code", "maybe")
    arguments[arguments.index("cpu")] = "gpu"
    assert main([*arguments, "--timeout", "soon"]) == 2
    said = capsys.readouterr().err
    for flag in ("--model_path", "--config_path", "--device", "--trust_remote_code", "--timeout"):
        assert flag in said
