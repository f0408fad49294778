"""Files that matter are old or new, never half, and NaN never reaches one."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import write_atomic, write_json


def test_content_and_mode_arrive_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    write_atomic(path, "one", mode=0o600)
    write_atomic(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_document_with_nan_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    write_json(path, {"x": [1, "é"]})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"x": [1, "é"]}


def test_a_killed_writer_leaves_a_whole_file(
    program: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    code = (
        "import sys, cluster, pathlib, itertools\n"
        "for n in itertools.count():\n"
        "    cluster.write_json(pathlib.Path(sys.argv[1]), [n] * 100_000)"
    )
    path = tmp_path / "document.json"
    for _ in range(3):
        writer = program("-c", code, path)
        while not path.exists():
            time.sleep(0.01)
        time.sleep(0.3)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert len(set(json.loads(path.read_text()))) == 1
        path.unlink()
