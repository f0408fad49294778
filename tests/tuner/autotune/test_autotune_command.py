"""The command ``auto-tune`` where it runs no trial."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.tuner.autotune.repo import flags, free_port, key, original_record, write_repo
from tests.tuner.notify.sinks import http_sink
from tuner.cli import main


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return write_repo(tmp_path / "repo")


def test_the_dry_run_prints_every_trial_in_order_and_writes_nothing(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(repo.rglob("*"))
    assert main(["auto-tune", "--repo", str(repo), "--dry_run"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "[dry_run] trials=38 known=0 to measure=38"
    assert lines[0] == f"1 new {key()}"
    assert lines[2] == f"3 new {key(GPU_MEMORY_UTILIZATION='0.99')}"
    assert lines[-1] == f"38 new {key(FREQUENCY_PENALTY='0.05')}"
    assert len(lines) == len({line.split(" ", 2)[2] for line in lines}) == 38
    assert sorted(repo.rglob("*")) == before


def test_the_dry_run_goes_on_from_what_is_known(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [original_record(100.0), original_record(120.0, GPU_MEMORY_UTILIZATION="0.99")]
    text = "".join(json.dumps(one) + "\n" for one in records)
    (repo / "tune_results.jsonl").write_text(text)
    assert main([*flags(repo), "--dry_run"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "[dry_run] trials=3 known=2 to measure=1",
        f"1 known {key()}",
        f"2 new {key(GPU_MEMORY_UTILIZATION='0.98')}",
        f"3 known {key(GPU_MEMORY_UTILIZATION='0.99')}",
    ]
    assert "2 trials in" in said.err
    whole = ["auto-tune", "--repo", str(repo), "--eval_runs", "2", "--dry_run"]
    assert main(whole) == 0
    assert key(GPU_MEMORY_UTILIZATION="0.99", MAX_MODEL_LEN="768") in capsys.readouterr().out


def test_the_self_test_finds_everything_in_order(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags(repo), "--selftest"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "notification channels: none"
    assert all(line.endswith(": ok") for line in said[:-1])
    names = [line.split(":")[0] for line in said]
    for name in ("start command", "evaluation command", "port", "storage", "results file"):
        assert name in names
    assert not (repo / "tune_runs").exists() and not (repo / "tune_server_logs").exists()


def test_the_self_test_says_who_has_the_port(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert main([*flags(repo), "--port", port, "--selftest"]) == 2
    assert f"port: port {port} is taken by" in capsys.readouterr().out


def test_a_missing_script_is_a_fault_of_the_call(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repo / "run_model.sh").unlink()
    assert main([*flags(repo), "--selftest"]) == 2
    assert "run_model.sh" in capsys.readouterr().err


def test_the_self_test_sends_a_message_to_every_channel(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with http_sink() as sink:
        assert main([*flags(repo), "--webhook_url", sink.url, "--selftest_notify"]) == 0
    assert len(sink.received) == 1
    assert "notify.0 (feishu): sent" in capsys.readouterr().out
    nobody = f"http://127.0.0.1:{free_port()}/hook"
    assert main([*flags(repo), "--webhook_url", nobody, "--selftest_notify"]) == 2
    assert "not sent" in capsys.readouterr().out
    assert main([*flags(repo), "--selftest_notify"]) == 2
