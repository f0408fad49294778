"""The command ``optimizer``, as a user calls it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tuner.compat.serviceparam.settings import filled, vllm
from tuner.cli import main

VLLM = ("-e", "vllm", "-b", "vllm_benchmark", "--device", "cpu")
PRINT = "--print-experiment"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings and no variables but those of the test."""
    for name in list(os.environ):
        if name.upper().startswith(("MODEL_EVAL", "MODELEVAL", "TUNER_", "MIES_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(filled("vllm"))


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return document


def test_an_experiment_is_printed_with_its_notes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["optimizer", *VLLM, PRINT]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# ")
    assert "# vllm.command.port: 8000 is not used" in text
    data = yaml.safe_load(text)
    assert data["search"]["type"] == "particle_swarm"
    assert data["storage"] == str(tmp_path / "result")
    assert not (tmp_path / "result").exists()


def test_flags_go_into_the_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.toml").write_text("iters = 3\n")
    flags = ["-c", "mine.toml", "--backup", "--native", "--search", "random"]
    flags += ["--vllm", "/opt/vllm/bin/vllm", "--set", "search.seed=7", "--pd", "competition"]
    assert main(["optimizer", *VLLM, *flags, "-d", "single", PRINT]) == 0
    data = printed(capsys)
    assert data["search"]["trials"] == 30
    assert data["views"][0]["backup"] is True
    assert data["trial"]["load"]["type"] == "operating_point"
    assert (data["search"]["type"], data["search"]["seed"]) == ("random", 7)
    assert data["trial"]["engine"]["command"] == ["/opt/vllm/bin/vllm", "serve"]


@pytest.mark.parametrize(("words", "backup"), [((), False), (("True",), True), (("False",), False)])
def test_backup_is_said_in_words_too(
    words: tuple[str, ...], backup: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--backup", *words] if words else []
    assert main(["optimizer", *VLLM, *flags, PRINT]) == 0
    assert printed(capsys)["views"][0].get("backup", False) is backup


def test_mindie_and_ais_bench_are_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimizer", PRINT]) == 2
    said = capsys.readouterr().err
    assert "mindie.config_path" in said
    assert "ais_bench.command.num_prompts" in said
    assert "nothing was started" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--pd", "disaggregation"), "--pd: the settings of vllm cannot say how many instances"),
        (
            ("-e", "mindie", "--pd", "disaggregation", "-d", "multiple"),
            "--deploy_policy: the scripts of Kubernetes deploy on the node they lie on",
        ),
        (("-e", "sglang"), "--engine: unknown 'sglang'; there are mindie, vllm"),
        (("-b", "benchmark"), "--benchmark_policy: unknown 'benchmark'"),
        (("--backup", "maybe"), "--backup: 'maybe': write True or False"),
        (("-c", "gone.toml"), "--config: "),
        (("--vllm", "'"), "--vllm: "),
        (("--search", "swarm"), "--search: unknown strategy 'swarm'"),
    ],
)
def test_what_cannot_be_had_ends_with_2_and_what_to_do(
    flags: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["optimizer", *VLLM, *flags]) == 2
    assert said in capsys.readouterr().err


def test_several_machines_are_those_of_the_ray_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimizer", *VLLM, "-d", "multiple", PRINT]) == 0
    text = capsys.readouterr().out
    assert "# --deploy_policy: each engine is on one node, and several trials run at once" in text
    assert yaml.safe_load(text)["cluster"]["address"] == "auto"
    settings = Path("config.toml")
    settings.write_text(settings.read_text().replace('service = "master"', 'service = "slave"'))
    assert main(["optimizer", *VLLM, "-d", "multiple", PRINT]) == 2
    assert "service: no machine is started as a slave" in capsys.readouterr().err


@pytest.mark.parametrize("switch", ["MODEL_EVAL_STATE_ALL", "MODEL_EVAL_STATE_SIMULATE"])
def test_the_simulation_mode_needs_the_trained_model_and_no_engine(
    switch: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(switch, "True")
    assert main(["optimizer", *VLLM, PRINT]) == 0
    document = yaml.safe_load(capsys.readouterr().out)
    engine = document["trial"]["engine"]
    assert (engine["type"], engine["of"]["type"]) == ("simulated", "vllm")
    folder = Path(document["storage"]) / "latency_model"
    assert engine["latency"] == {"type": "xgboost", "path": str(folder)}
    assert document["cluster"]["resources"] == {"CPU": 1}
    assert main(["optimizer", *VLLM]) == 2
    assert "train one with `python -m tuner train`" in capsys.readouterr().err
    monkeypatch.setenv("MODEL_EVAL_STATE_LATENCY_MODEL", json.dumps({"base_path": "mine"}))
    assert main(["optimizer", *VLLM, PRINT]) == 0
    assert f"path: {tmp_path / 'mine'}" in capsys.readouterr().out
    monkeypatch.setenv(switch, "false")
    assert main(["optimizer", *VLLM, PRINT]) == 0
    assert "simulated" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "folder"),
    [
        ('base_path = "lm"', "lm"),
        ('model_path = "lm/bak/base/xgb_model.ubj"', "lm"),
        ('model_path = "lm"', "lm"),
    ],
)
def test_the_settings_name_the_trained_model(
    table: str,
    folder: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = Path("config.toml")
    settings.write_text(f"{settings.read_text()}\n[latency_model]\n{table}\n")
    monkeypatch.setenv("MODEL_EVAL_STATE_SIMULATE", "True")
    assert main(["optimizer", *VLLM, PRINT]) == 0
    assert f"path: {Path(folder).absolute()}" in capsys.readouterr().out


def test_all_faults_of_flags_variables_and_settings_are_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.toml").write_text("iters = 0\n\nttft_slo = 'x'\n")
    monkeypatch.setenv("MODELEVALSTATE_LEVEL", "loud")
    assert main(["optimizer", *VLLM, "--pd", "disaggregation"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        "config.toml:1",
        "config.toml:3",
        "--pd",
        "MODELEVALSTATE_LEVEL",
        "4 problems; nothing was started",
    ]


def test_a_breakpoint_is_what_lies_in_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["optimizer", *VLLM, "-lb", PRINT]) == 0
    assert "known" not in printed(capsys)["search"]
    store = tmp_path / "result" / "store"
    store.mkdir(parents=True)
    (store / "data_storage_1.csv").write_text("")
    assert main(["optimizer", *VLLM, "-lb", PRINT]) == 0
    document = capsys.readouterr().out
    data = yaml.safe_load(document)
    assert data["search"]["known"] == [str(store / "data_storage_1.csv")]
    run = tmp_path / "result" / "tuner"
    run.mkdir()
    (run / "experiment.yaml").write_text(document)
    (store / "data_storage_2.csv").write_text("")
    assert main(["optimizer", *VLLM, "-lb", PRINT]) == 0
    assert printed(capsys)["search"]["known"] == [str(store / "data_storage_1.csv")]
    other = ("--set", "trial.seed=4")
    assert main(["optimizer", *VLLM, *other, "-lb", PRINT]) == 0
    assert len(printed(capsys)["search"]["known"]) == 2


def test_faults_of_the_experiment_are_placed_in_the_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    field = "[[vllm.target_field]]\nname='A'\nconfig_position='env'\nmin=1\nmax=4\ndtype='int'\n"
    others = "--host 10.0.0.7"
    (tmp_path / "config.toml").write_text(vllm(field, others=others))
    assert main(["optimizer", *VLLM]) == 2
    said = capsys.readouterr().err
    assert "vllm.command.model: " in said
    assert "vllm.command.others" in said
