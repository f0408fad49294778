"""``python -m tuner train``: msserviceprofiler's flags, exit codes, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trainables.latency.cost_engine import device, serve
from trainables.latency import Served, make_latency_model, write_records
from trainables.simulation import Batch, Chunk
from tuner.cli import main

pytest.importorskip("xgboost")

HEADER = (
    "\"('batch_stage', 'batch_size', 'total_need_blocks', 'total_prefill_token', 'max_seq_len', "
    "'model_execute_time')\",\"('input_length', 'need_blocks', 'output_length')\"\n"
)


def profile(folder: Path) -> Path:
    """A profile of MindIE as msserviceprofiler keeps it: prefills and decodes never together."""
    lines = []
    for step in range(150):
        prompt, decodes = 50 + step, 1 + step % 8
        batch = Batch((Chunk(prompt),))
        lines.append(f"('prefill', 1, 1, {prompt}, {prompt}, {device(batch) * 1e6})")
        lines[-1] = f'"{lines[-1]}","(({prompt}, 1, 0),)"\n'
        members = ", ".join(f"({prompt}, 1, {step + 1})" for _ in range(decodes))
        context = prompt + step
        seconds = device(Batch((), decodes, decodes * context, context, context))
        about = f"('decode', {decodes}, 1, {prompt * decodes}, {prompt}, {seconds * 1e6})"
        lines.append(f'"{about}","({members},)"\n')
    path = folder / "output_csv" / "pid_1" / "feature.csv"
    path.parent.mkdir(parents=True)
    path.write_text(HEADER + "".join(lines))
    return path


def test_msserviceprofilers_own_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without -o it writes to ./output; without -t it is MindIE."""
    profile(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    assert main(["train", f"-i={tmp_path / 'in'}"]) == 0
    said = capsys.readouterr()
    assert str(tmp_path / "output") in said.out
    assert "median error" in said.err
    source = make_latency_model({"type": "xgboost", "path": str(tmp_path / "output")})
    model = source.model(Served(config={}))
    for batch in (Batch((Chunk(120),)), Batch((), 4, 4 * 200, 200, 200)):
        assert model.seconds(batch) == pytest.approx(device(batch), rel=0.03)


def test_json_is_one_object_with_the_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_records(tmp_path / "iterations.jsonl", serve(device, 200, seed=1))
    command = ["train", "-i", tmp_path, "-o", tmp_path / "out", "-t", "vllm", "--json"]
    assert main([str(word) for word in command]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["model"] == str(tmp_path / "out")
    assert said["framework"] == "vllm"
    assert said["held_out"]["all"]["median"] < 0.05


def test_malformed_rows_are_said_and_the_others_are_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = profile(tmp_path)
    text = path.read_text().splitlines(keepends=True)
    path.write_text("".join((*text[:5], "torn\n", *text[5:])))
    assert main(["train", "-i", str(tmp_path), "-o", str(tmp_path / "out")]) == 0
    assert f"{path}:6: " in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "", "a,b\n1,2\n", "few"])
def test_input_that_cannot_be_used_is_an_error_of_use(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    if content is not None:
        folder.mkdir()
        (folder / "batch.csv").write_text(content)
    if content == "few":
        write_records(folder / "iterations.jsonl", serve(device, 10, seed=1))
    assert main(["train", "--input", str(folder), "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile(tmp_path / "in")
    (tmp_path / "out").write_text("a file")
    assert main(["train", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 1
    assert str(tmp_path / "out") in capsys.readouterr().err


def test_an_unknown_engine_is_an_error_of_use(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", "-i", str(tmp_path), "-t", "tensorrt"])
    assert caught.value.code == 2
