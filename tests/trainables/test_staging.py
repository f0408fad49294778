"""Copies of models: whole or not there, made once, and nothing else is ever touched."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainables import LOCAL_WEIGHTS, StageError, TrialFailure, TrialRun, TrialSpec
from trainables import _staging as staging
from trainables._staging import Limits, is_copy, local_model, stage

MANY = Limits(copies=9)


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, size: int = 2000) -> Path:
        folder = tmp_path / "shared" / name
        (folder / "sub").mkdir(parents=True)
        (folder / "config.json").write_text(f'{{"name": "{name}"}}')
        (folder / "sub" / "weights.safetensors").write_bytes(os.urandom(size))
        return folder

    return make


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    folder = tmp_path / "nvme"
    folder.mkdir()
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def copies(disk: Path) -> list[Path]:
    return sorted((disk / "npu-tuner-weights").glob("*/*/"))


def test_a_copy_is_the_model_under_its_own_name(model: Callable[..., Path], disk: Path) -> None:
    source = model("qwen3")
    copy = stage(source, disk, MANY)
    assert copy.name == "qwen3" and content(copy) == content(source) and is_copy(copy)
    before = (copy / "config.json").stat().st_ino
    assert stage(source, disk, MANY) == copy
    assert (copy / "config.json").stat().st_ino == before, "it was made again"


def test_links_are_followed_as_model_caches_are_made_of_them(
    model: Callable[..., Path], disk: Path, tmp_path: Path
) -> None:
    source = model("blobs")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "config.json").symlink_to(source / "config.json")
    copy = stage(snapshot, disk, MANY)
    assert not (copy / "config.json").is_symlink()
    assert content(copy) == {"config.json": (source / "config.json").read_bytes()}


def test_a_model_that_changed_is_copied_anew(model: Callable[..., Path], disk: Path) -> None:
    source = model("qwen3")
    old = stage(source, disk, MANY)
    (source / "config.json").write_text("{}")
    new = stage(source, disk, MANY)
    assert new != old and (new / "config.json").read_text() == "{}"


@pytest.mark.parametrize("damage", ["missing", "short", "no record"])
def test_a_damaged_copy_is_made_again(model: Callable[..., Path], disk: Path, damage: str) -> None:
    source = model("qwen3")
    copy = stage(source, disk, MANY)
    if damage == "missing":
        (copy / "config.json").unlink()
    elif damage == "short":
        os.truncate(copy / "sub" / "weights.safetensors", 100)
    else:
        (copy.parent / "copy.json").unlink()
    assert not is_copy(copy)
    assert content(stage(source, disk, MANY)) == content(source)


def test_what_a_killed_copier_left_is_cleared(model: Callable[..., Path], disk: Path) -> None:
    source = model("qwen3")
    copy = stage(source, disk, MANY)
    part = copy.parent.with_name(f"{copy.parent.name}.part")
    copy.parent.rename(part)
    (part / "copy.json").unlink()
    assert content(stage(source, disk, MANY)) == content(source)
    assert not part.exists()


def test_the_longest_unused_goes_first(model: Callable[..., Path], disk: Path) -> None:
    sources = [model(name) for name in ("one", "two", "three")]
    first = [stage(source, disk, Limits(3)) for source in sources]
    for number, copy in enumerate(first):
        os.utime(copy.parent.with_name(f"{copy.parent.name}.lock"), (number, number))
    stage(sources[0], disk, Limits(3))
    fourth = stage(model("four"), disk, Limits(3))
    assert copies(disk) == sorted([first[0], first[2], fourth])


def test_what_is_in_use_is_not_removed(model: Callable[..., Path], disk: Path) -> None:
    used = stage(model("used"), disk, Limits(1))
    with used.parent.with_name(f"{used.parent.name}.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with pytest.raises(StageError, match="1 copies are in use, and 1 are permitted"):
            stage(model("other"), disk, Limits(1))
    assert copies(disk) == [used]
    other = stage(model("another"), disk, Limits(1))
    assert copies(disk) == [other]


def test_the_space_for_all_copies_is_kept(model: Callable[..., Path], disk: Path) -> None:
    limits = Limits(9, space=5000)
    stage(model("one", 2000), disk, limits)
    stage(model("two", 2000), disk, limits)
    third = stage(model("three", 4000), disk, limits)
    assert copies(disk) == [third]
    with pytest.raises(StageError, match="permitted") as failure:
        stage(model("four", 6000), disk, limits)
    assert "local_weights" in failure.value.suggestion


def test_a_full_disk_is_said_before_anything_is_copied(
    model: Callable[..., Path], disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "_SPARE", 1 << 60)
    with pytest.raises(StageError, match=r"takes .* GB, and .* has .* GB free"):
        stage(model("one"), disk, MANY)
    assert copies(disk) == []


def test_nothing_but_our_own_copies_is_removed(model: Callable[..., Path], disk: Path) -> None:
    ours = disk / "npu-tuner-weights"
    foreign = [ours / "keep" / "model", ours / ("0" * 24) / "model", disk / "model"]
    for folder in foreign:
        folder.mkdir(parents=True)
        (folder / "weights").write_text("precious")
    elsewhere = disk / "precious"
    elsewhere.mkdir()
    (ours / ("1" * 24)).symlink_to(elsewhere)
    stage(model("one"), disk, Limits(1))
    stage(model("two"), disk, Limits(1))
    assert all((folder / "weights").exists() for folder in foreign) and elsewhere.exists()


def test_several_at_once_make_one_copy(model: Callable[..., Path], disk: Path) -> None:
    source = model("big", 5_000_000)
    made: list[str] = []
    count = staging._copy_file

    def counted(one: Path, other: Path) -> tuple[int, str]:
        made.append(one.name)
        return count(one, other)

    staging._copy_file = counted
    try:
        threads = [threading.Thread(target=stage, args=(source, disk, MANY)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        staging._copy_file = count
    assert sorted(made) == ["config.json", "weights.safetensors"]


def test_a_source_without_files_is_no_model(tmp_path: Path, disk: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StageError, match="holds no files"):
        stage(tmp_path / "empty", disk, MANY)


def trial(folder: Path, local: dict[str, Any] | None) -> TrialRun:
    context = {} if local is None else {LOCAL_WEIGHTS: local}
    spec = TrialSpec("run", "id", str(folder / "trial"), "serving", "candidate", {}, 0, {})
    run = TrialRun(TrialSpec(**{**vars(spec), "context": context}))
    run.folder.mkdir(exist_ok=True)
    return run


def finish(steps: Any) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_without_local_weights_a_model_is_read_where_it_lies(
    model: Callable[..., Path], tmp_path: Path
) -> None:
    source = model("qwen3")
    assert finish(local_model(trial(tmp_path, None), str(source))) == source


def test_a_trial_serves_from_the_copy_and_holds_it(
    model: Callable[..., Path], disk: Path, tmp_path: Path
) -> None:
    source = model("qwen3")
    local = {"folder": str(disk), "copies": 1, "space": None, "timeout": 600.0}
    run = trial(tmp_path, local)
    copy = finish(local_model(run, str(source)))
    assert content(copy) == content(source)
    assert [one["name"] for one in run.stages] == ["weights"]
    try:
        with pytest.raises(StageError, match="in use"):
            stage(model("other"), disk, Limits(1))
    finally:
        os.close(staging._USED.pop(copy))


def test_no_room_is_a_failure_of_the_trial_with_a_suggestion(
    model: Callable[..., Path], disk: Path, tmp_path: Path
) -> None:
    local = {"folder": str(disk), "copies": 1, "space": 10, "timeout": 600.0}
    with pytest.raises(TrialFailure, match="no room for a copy") as failure:
        finish(local_model(trial(tmp_path, local), str(model("qwen3"))))
    assert failure.value.failure == "tool" and "local_weights" in failure.value.suggestion


def test_a_copier_that_waits_too_long_is_ended(
    model: Callable[..., Path], disk: Path, tmp_path: Path
) -> None:
    source = model("qwen3")
    copy = stage(source, disk, MANY)
    lock = copy.parent.with_name(f"{copy.parent.name}.lock")
    code = "import fcntl,sys,time; f=open(sys.argv[1]); fcntl.flock(f, 2); time.sleep(600)"
    argv = [sys.executable, "-c", code, str(lock)]
    with subprocess.Popen(argv) as holder:
        try:
            wait_until_locked(lock)
            local = {"folder": str(disk), "copies": 9, "space": None, "timeout": 2.0}
            with pytest.raises(TrialFailure, match="weights did not finish within 2 s"):
                finish(local_model(trial(tmp_path, local), str(source)))
        finally:
            holder.kill()


def wait_until_locked(lock: Path) -> None:
    while True:
        with lock.open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
