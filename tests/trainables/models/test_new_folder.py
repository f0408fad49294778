"""Folders that appear whole or not at all."""

import os

import pytest

from trainables.models import new_folder, remove_unfinished


def test_nothing_is_seen_before_the_end(tmp_path):
    target = tmp_path / "a" / "out"
    with new_folder(target) as folder:
        (folder / "file").write_text("x")
        assert not target.exists()
    assert (target / "file").read_text() == "x"
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_an_error_leaves_the_old_folder(tmp_path):
    target = tmp_path / "out"
    with new_folder(target) as folder:
        (folder / "old").touch()
    with pytest.raises(RuntimeError), new_folder(target) as folder:
        (folder / "new").touch()
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_new_folder_replaces_the_old_one(tmp_path):
    target = tmp_path / "out"
    for name in ("old", "new"):
        with new_folder(target) as folder:
            (folder / name).touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_access_rights_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with new_folder(tmp_path / "out") as folder:
            (folder / "file").touch(mode=0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "out" / "file").stat().st_mode & 0o777 == 0o640


def test_what_a_killed_process_left_is_removed(tmp_path):
    target, other = tmp_path / "out", tmp_path / "other"
    other.mkdir()
    filling = new_folder(target)
    (filling.__enter__() / "file").touch()
    remove_unfinished(target)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
