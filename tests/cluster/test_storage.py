"""A storage that is gone for a while costs time, and nothing else."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import GrowingFile, Storage, StorageError


def failure(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Told:
    """A storage whose time passes only while it is waited for, and what happens meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.now = 0.0
        self.then: dict[float, Callable[[], object]] = {}
        self.impatient = False
        self.folder = folder
        self.storage = Storage(
            folder,
            say=self.said.append,
            interrupted=lambda: self.impatient,
            wait_s=600.0,
            clock=lambda: self.now,
            sleep=self._sleep,
        )

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        for at in [at for at in self.then if at <= self.now]:
            self.then.pop(at)()


@pytest.fixture
def told(tmp_path: Path) -> Told:
    folder = tmp_path / "storage" / "run"
    folder.mkdir(parents=True)
    (folder / "run.json").touch()
    return Told(folder)


def vanish(folder: Path) -> None:
    folder.parent.rename(folder.parent.with_name("gone"))


def come_back(folder: Path) -> None:
    folder.parent.with_name("gone").rename(folder.parent)


def test_what_cannot_be_written_is_written_once_the_storage_is_back(told: Told) -> None:
    told.storage.mark(told.folder / "run.json")
    vanish(told.folder)
    told.then[12.0] = lambda: come_back(told.folder)
    told.storage.write(told.folder / "status.json", "{}")
    assert (told.folder / "status.json").read_text() == "{}"
    folder = told.folder
    assert told.said == [
        f"{folder} cannot be written to: No such file or directory; waiting 600 s for it",
        f"{folder} is back after 12 s",
    ]


def test_an_empty_folder_where_the_storage_was_mounted_is_not_the_storage(told: Told) -> None:
    told.storage.mark(told.folder / "run.json")
    vanish(told.folder)
    told.folder.parent.mkdir()

    def mount() -> None:
        told.folder.parent.rmdir()
        come_back(told.folder)

    told.then[3.0] = mount
    told.storage.write_json(told.folder / "trials" / "x.json", {})
    assert (told.folder / "trials" / "x.json").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_waited_for_although_small_files_fit(told: Told, number: int) -> None:
    full = True

    def empty() -> None:
        nonlocal full
        full = False

    def operation() -> str:
        if full:
            raise failure(number)
        return "written"

    told.then[30.0] = empty
    assert told.storage.do(operation) == "written"
    assert told.said[0].endswith(f"{os.strerror(number)}; waiting 600 s for it")


def test_a_storage_that_stays_away_is_given_up_and_not_waited_for_again(told: Told) -> None:
    vanish(told.folder)
    with pytest.raises(StorageError, match=r"cannot be written to: .*, for 600 s; resume goes on"):
        told.storage.do(told.folder.stat)
    assert told.now == 600.0 and len(told.said) == 1
    with pytest.raises(StorageError):
        told.storage.do(told.folder.stat)
    assert told.now == 600.0 and len(told.said) == 1
    come_back(told.folder)
    told.storage.do(told.folder.stat)


def test_who_wants_an_end_need_not_wait(told: Told) -> None:
    vanish(told.folder)
    told.then[5.0] = lambda: setattr(told, "impatient", True)
    with pytest.raises(KeyboardInterrupt):
        told.storage.do(told.folder.stat)
    assert told.now == 5.0


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EROFS, errno.EACCES])
def test_errors_that_are_not_the_storages_are_the_callers(told: Told, number: int) -> None:
    def operation() -> None:
        raise failure(number)

    with pytest.raises(OSError, match=os.strerror(number)):
        told.storage.do(operation)
    assert told.now == 0.0 and told.said == []


def test_time_spent_waiting_is_not_time_spent_working(told: Told) -> None:
    vanish(told.folder)
    told.then[40.0] = lambda: come_back(told.folder)
    told.storage.do(told.folder.stat)
    told.now += 2.0
    assert told.storage.working() == 2.0


def test_whether_it_was_gone_is_known_when_it_is_back(told: Told) -> None:
    assert not told.storage.was_gone()
    vanish(told.folder)
    told.then[7.0] = lambda: come_back(told.folder)
    assert told.storage.was_gone()
    assert told.now == 7.0 and sorted(told.folder.iterdir()) == [told.folder / "run.json"]


@pytest.mark.parametrize("durable", [True, False])
def test_an_entry_that_was_written_in_part_stands_in_the_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    file = tmp_path / "log"
    log = GrowingFile(file, durable=durable)
    log.append(b"one\n")
    write = os.write
    left = 5

    def full(descriptor: int, data: memoryview) -> int:
        nonlocal left
        if not left:
            raise failure(errno.ENOSPC)
        part = write(descriptor, data[:left])
        left -= part
        return part

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            log.append(b"two and more\n")
    assert file.read_bytes() == b"one\ntwo a"
    log.append(b"two and more\n")
    log.append(b"three\n")
    assert file.read_bytes() == b"one\ntwo and more\nthree\n"


def test_entries_of_others_are_not_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "log"
    log = GrowingFile(file, durable=False)
    log.append(b"mine\n")
    GrowingFile(file, durable=False).append(b"theirs\n")
    log.append(b"mine again\n")
    assert file.read_bytes() == b"mine\ntheirs\nmine again\n"
