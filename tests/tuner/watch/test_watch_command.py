"""The command ``watch``, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tuner.autotune.repo import free_port
from tests.tuner.notify.sinks import http_sink
from tuner.cli import main


def experiment(folder: Path, **changes: Any) -> Path:
    document = {
        "name": "demo",
        "trial": {"type": "rehearsal", "layers": 4, "threshold": 1},
        "search": {"type": "binary_fallback"},
        "objective": {"expectations": [{"metric": "accuracy", "target": 0.9}]},
        "storage": str(folder),
        **changes,
    }
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def test_a_faulty_experiment_is_refused_before_anything_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = experiment(tmp_path, trial={"type": "rehearsal", "layers": 0})
    assert main(["watch", str(file), "--set", "budget.trials=none"]) == 2
    assert "2 problems; nothing was started" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_faulty_flags_of_auto_tune_are_refused_as_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["watch", "auto-tune", "--repo", str(tmp_path), "--port", "none", "--odd"]) == 2
    said = capsys.readouterr().err
    assert "--port: 'none' is no whole number" in said and "--odd: unknown" in said


@pytest.mark.parametrize("options", [["--crashes", "0"], ["--within", "soon"], []])
def test_wrong_options_exit_2(options: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["watch", *options])
    assert caught.value.code == 2


def test_everybody_hears_of_a_crash_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A run whose cluster is not there, over the real driver."""
    with http_sink() as sink:
        monkeypatch.setenv("HOOK", sink.url)
        file = experiment(
            tmp_path,
            cluster={"address": f"127.0.0.1:{free_port()}"},
            notify=[{"type": "webhook", "url": "${HOOK}"}],
        )
        code = main(["watch", "--crashes", "2", "--backoff", "0.01", str(file)])
    assert code == 1
    said = capfd.readouterr().err
    assert "exit code 1, 2 times within 3600 s; not started again" in said
    last = sink.received[-1]["json"]
    assert last["kind"] == "crashed" and "not started again" in json.dumps(last)
    log = (tmp_path / "demo" / "watch.log").read_text()
    assert log.count("started as process") == 2
    assert not (tmp_path / "demo" / "watch.pid").exists()
