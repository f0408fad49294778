"""``watch`` as a service: the systemd unit, and as the main process of a container."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.tuner.autotune.repo import flags, hold, speeds, write_repo

UNIT = Path(__file__).resolve().parents[3] / "configs" / "systemd" / "npu-tuner.service"
PROGRAM = "/opt/npu-tuner/.venv/bin/python"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    text = UNIT.read_text()
    assert PROGRAM in text
    unit.write_text(text.replace(PROGRAM, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")
def test_the_first_process_of_a_container_ends_the_run_in_order(tmp_path: Path) -> None:
    """As ``docker stop`` does it, without an init beside it."""
    repo = write_repo(tmp_path / "repo")
    inside = [sys.executable, "-m", "tuner", "watch", *flags(repo)]
    hold(repo, "0.97 1")
    environment = {**os.environ, **speeds(g97=100.0, g98=120.0, g99=110.0)}
    argv = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *inside]
    with subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL) as outside:
        try:
            while not (repo / "starts.log").exists():
                assert outside.poll() is None
                signal.sigtimedwait([], 0.1)
            (first,) = psutil.Process(outside.pid).children()
            first.send_signal(signal.SIGTERM)
            assert outside.wait(240) == 128 + signal.SIGTERM
        finally:
            outside.kill()
    log = (repo / "autotune.watchdog.log").read_text()
    assert "told to end by SIGTERM" in log
    assert "interrupted: resume continues where it stopped" in log
