"""A configuration file that is edited for a while is never left edited, whoever is killed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainables import StageError
from trainables.engines._config_file import ConfigFile

TEXT = '{"名": "手工 ±",\r\n  "n" :1}'

HOLDER = """
import sys
from pathlib import Path
from trainables.engines._config_file import ConfigFile
with ConfigFile(Path(sys.argv[1])).edited(lambda text: "edited", "run-1"):
    print("edited", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "conf" / "config.json"
    path.parent.mkdir()
    path.write_bytes(TEXT.encode())
    path.chmod(0o640)
    return path


@pytest.fixture
def holder(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the file edited."""
    pipe: Any = subprocess.PIPE
    argv = [sys.executable, "-c", HOLDER, str(file)]
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], 120)
        assert ready
        assert process.stdout.readline() == "edited\n"
        yield process
        process.kill()


def assert_untouched(file: Path) -> None:
    assert file.read_bytes() == TEXT.encode()
    assert file.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in file.parent.iterdir()) == [
        ".config.json.npu-tuner",
        "config.json",
    ]
    assert [path.name for path in (file.parent / ".config.json.npu-tuner").iterdir()] == [
        "run.lock"
    ]


def edit(file: Path) -> list[str]:
    with ConfigFile(file).edited(lambda text: f"{text}!", "run-2") as notes:
        assert file.read_text("utf-8") == f"{TEXT}!".replace("\r\n", "\n")
        return notes


def test_the_edit_ends_with_the_context(file: Path) -> None:
    with ConfigFile(file).edited(lambda text: "edited", "run-1") as notes:
        assert file.read_text() == "edited"
        assert file.stat().st_mode & 0o777 == 0o640
        marker = json.loads((file.parent / ".config.json.npu-tuner/edited.json").read_text())
        assert marker["run_id"] == "run-1"
        assert ConfigFile(file).original() == TEXT.replace("\r\n", "\n")
        assert notes == []
    assert_untouched(file)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_the_edit_ends_with_a_failure(file: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), ConfigFile(file).edited(lambda text: "edited", "run-1"):
        raise error
    assert_untouched(file)


def test_what_cannot_be_changed_is_not_touched(file: Path) -> None:
    def refuse(text: str) -> str:
        raise StageError("input", "no")

    with pytest.raises(StageError, match="no"), ConfigFile(file).edited(refuse, "run-1"):
        pass
    assert_untouched(file)


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "latest.json"
    link.symlink_to(file)
    with ConfigFile(link).edited(lambda text: "edited", "run-1"):
        assert link.is_symlink()
        assert file.read_text() == "edited"
    assert link.is_symlink()
    assert_untouched(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_owner_stays(file: Path) -> None:
    os.chown(file, 65534, 65534)
    with ConfigFile(file).edited(lambda text: "edited", "run-1"):
        assert file.stat().st_uid == 65534
    assert (file.stat().st_uid, file.stat().st_gid) == (65534, 65534)


def test_one_living_process_at_a_time(file: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(StageError, match=f"process {holder.pid} ") as caught:
        edit(file)
    assert caught.value.failure == "startup"
    assert "concurrent" in caught.value.suggestion
    assert file.read_text() == "edited"
    holder.communicate("", timeout=120)
    assert_untouched(file)


def test_the_next_one_repairs_what_a_killed_one_left(
    file: Path, holder: subprocess.Popen[str]
) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(120)
    assert file.read_text() == "edited"
    assert ConfigFile(file).original() == TEXT.replace("\r\n", "\n")
    notes = edit(file)
    assert len(notes) == 1
    assert "run-1" in notes[0]
    assert_untouched(file)
    assert edit(file) == []


def test_a_file_that_a_killed_one_left_and_somebody_removed_comes_back(
    file: Path, holder: subprocess.Popen[str]
) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(120)
    file.unlink()
    assert len(edit(file)) == 1
    assert_untouched(file)


def test_what_somebody_wrote_after_a_killed_one_is_not_lost(
    file: Path, holder: subprocess.Popen[str]
) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(120)
    file.write_text("by hand")
    with pytest.raises(StageError, match="changed by somebody else") as caught:
        edit(file)
    assert caught.value.failure == "input"
    assert file.read_text() == "by hand"
    file.write_bytes(TEXT.encode())
    assert edit(file) == []
    assert_untouched(file)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read(file: Path, content: bytes | None) -> None:
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StageError, match=r"config\.json cannot be read") as caught:
        ConfigFile(file).original()
    assert "config_path" in caught.value.suggestion
