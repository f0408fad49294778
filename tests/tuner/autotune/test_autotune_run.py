"""A real run over servers that crash, hang, and find their port taken."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from tests.trainables.script.conftest import foreign_server
from tests.tuner.autotune.repo import flags, free_port, results, speeds, write_repo
from tests.tuner.notify.sinks import http_sink, smtp_sink
from tests.tuner.runs import Run, assert_nothing_left

VALUES = ("0.94", "0.95", "0.96", "0.97", "0.98", "0.99")


@pytest.mark.slow
def test_a_run_among_crashes_hangs_and_a_taken_port(tmp_path: Path) -> None:
    repo = write_repo(tmp_path)
    with http_sink() as http, smtp_sink() as mail, socket.create_server(("127.0.0.1", 0)) as taken:
        call = flags(
            repo,
            *("--port", str(taken.getsockname()[1])),
            *("--port_busy_retries", "1", "--port_busy_wait_s", "5"),
            *("--startup_timeout", "8", "--eval_timeout", "6"),
            *("--heartbeat_trials", "2", "--notify_trial_done"),
            values=VALUES,
        )
        environment = {
            **speeds(g97=100.0, g98=90.0, g99=130.0),
            "CRASHES": "0.95",
            "HANGS": "0.96",
            "EVAL_HANGS": "0.98",
            "TUNE_WEBHOOK_URL": http.url,
            "TUNE_WEBHOOK_KIND": "generic",
            "TUNE_SMTP_HOST": "127.0.0.1",
            "TUNE_SMTP_PORT": str(mail.port),
            "TUNE_SMTP_TO": "you@example.com",
            "TUNE_SMTP_NO_STARTTLS": "1",
        }
        # The webhook refuses what is also mailed.
        http.answer = lambda message: 500 if message["kind"] == "best" else {"code": 0}
        run = Run(*call, storage=repo / "tune_runs", name="tune_results", environment=environment)
        run.until(lambda run: results(repo))
        taken.close()
        assert run.wait() == 0, run.said()
    lines = {line["params"]["GPU_MEMORY_UTILIZATION"]: line for line in results(repo)}
    assert {value: (lines[value]["status"], lines[value].get("phase")) for value in VALUES} == {
        "0.94": ("failed", None),
        "0.95": ("crashed", "startup"),
        "0.96": ("timeout", "startup"),
        "0.97": ("ok", "eval"),
        "0.98": ("timeout", "eval"),
        "0.99": ("ok", "eval"),
    }
    assert "is taken by" in lines["0.94"]["reason"]
    assert "out of blocks" in (repo / lines["0.95"]["server_log"]).read_text()
    best = json.loads((repo / "best_params.json").read_text())
    assert best["GPU_MEMORY_UTILIZATION"] == "0.99"
    status = json.loads((repo / "tune_status.json").read_text())
    assert status["phase"] == "done" and status["best_params"] == best
    assert {"start", "heartbeat", "trial_done", "timeout", "crashed", "done"} <= set(http.kinds)
    subjects = [str(message["Subject"]) for message in mail.received]
    assert len(subjects) == 2, subjects
    assert_nothing_left(run.folder)


@pytest.mark.ray
def test_a_foreign_server_on_the_port_is_neither_measured_nor_ended(tmp_path: Path) -> None:
    repo, port = write_repo(tmp_path), free_port()
    with foreign_server(port) as asked:
        call = flags(
            repo,
            *("--port", str(port), "--port_busy_retries", "1", "--port_busy_wait_s", "0.5"),
            "--port_busy_kill",
            values=("0.97", "0.98"),
        )
        environment = speeds(g97=100.0, g98=90.0)
        run = Run(*call, storage=repo / "tune_runs", name="tune_results", environment=environment)
        assert run.wait() not in (0, 2), run.said()
        assert asked == []
        with socket.create_connection(("127.0.0.1", port), timeout=120):
            pass
    lines = results(repo)
    assert {line["status"] for line in lines} == {"failed"}
    assert all(f"port {port} is taken by process {os.getpid()}" in line["reason"] for line in lines)
    # No server of ours was started beside it, and nothing was evaluated.
    assert not (repo / "starts.log").exists()
    assert not (repo / "evaluations.log").exists()
    assert not (repo / "best_params.json").exists()
    assert_nothing_left(run.folder)
