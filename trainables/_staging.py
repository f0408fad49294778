"""Copies of models on a node's own disk, so that an engine's start does not read from far away.

A model is copied once for each node, by whoever needs it first; others wait for it. A copy is
whole or it is not there: it is made beside its place, checked byte for byte, and then renamed.
Where room is needed the copies that nobody uses go, the longest unused first. Nothing is ever
removed that was not made here.

Below the folder that the user named::

    npu-tuner-weights/<digest>/<name of the model's folder>/
    npu-tuner-weights/<digest>/copy.json        what is in it; without it, it is no copy
    npu-tuner-weights/<digest>.lock             shared while used, exclusive while made or removed
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypedDict, TypeVar

from cluster import sync_folder, write_json
from trainables._blocks import model_folder
from trainables._program import StageError
from trainables._trial import Json, Progress, TrialFailure, TrialRun
from trainables.models import is_builtin

R = TypeVar("R")

LOCAL_WEIGHTS = "local_weights"
"""Entry of a trial's context: ``{folder, copies, space, timeout}``; nothing is copied without."""
STAGE = "weights"

_OURS = "npu-tuner-weights"
_RECORD = "copy.json"
_NAME = re.compile(r"[0-9a-f]{24}")
_CHUNK = 8 << 20
_SPARE = 256 << 20
"""Bytes that are left free on the disk."""
_TRIES = 3
_LOCK_S = 30.0
_AGAIN_S = 0.1
_SUGGESTION = "make room there, or leave cluster.local_weights out"

_USED: dict[Path, int] = {}
"""Copies that this process uses, and the open lock that says so until the process ends."""


class CopyRecord(TypedDict):
    """``copy.json``: the folder that was copied, and size and digest of each file by its path."""

    source: str
    files: dict[str, tuple[int, str]]


@dataclass(frozen=True)
class Limits:
    """What copies may take.

    Attributes:
        copies: How many there may be.
        space: Bytes of all of them together; None: whatever the disk has.
    """

    copies: int
    space: int | None = None


def local_model(trial: TrialRun, model: str) -> Generator[Progress, None, Path]:
    """The folder a node should serve a model from: a copy on its own disk where that is wanted.

    The copy stays as long as this process lives. Raises ``TrialFailure`` when it cannot be had.

    Args:
        trial: Its context has :data:`LOCAL_WEIGHTS`, or nothing is copied.
        model: A folder, or ``builtin:``, which is on the node's own disk anyway.
    """
    source, wanted = model_folder(model), trial.spec.context.get(LOCAL_WEIGHTS)
    if wanted is None or is_builtin(model):
        return source
    request = {"source": str(source), **wanted}
    for _ in range(_TRIES):
        copying = trial.program(
            STAGE,
            "trainables._staging_program",
            request,
            timeout=float(wanted["timeout"]),
            valid=lambda result: is_copy(Path(result["folder"])),
        )
        found = yield from _told(copying, trial.folder / f"{STAGE}.log", source)
        copy = Path(found["folder"])
        if (yield from _used(copy)):
            return copy
    said = f"the copy of {source} was removed as soon as it was made, {_TRIES} times"
    raise TrialFailure("tool", STAGE, said, suggestion="permit more copies in local_weights")


def stage(source: Path, folder: Path, limits: Limits) -> Path:
    """A copy of ``source`` below ``folder``; made if it is not there. Waits for who makes it.

    Raises ``StageError`` where there is no room for it, or it cannot be made.
    """
    files = _files(source)
    if not files:
        raise StageError("input", f"{source} holds no files that could be copied")
    digest = hashlib.sha256(json.dumps([str(source), files]).encode()).hexdigest()[:24]
    home = folder / _OURS / digest
    target = home / source.name
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        while not _is_there(target):
            with _lock_of(home).open("a+") as lock:
                if not _is_mine(lock):
                    time.sleep(_AGAIN_S)
                elif not is_copy(target):
                    need = sum(size for _, size, _ in files)
                    with _locked(home.parent / ".lock"):
                        _make_room(home, need, limits)
                    _copy(source, home, [name for name, _, _ in files])
        os.utime(_lock_of(home))
    except OSError as error:
        said = f"{source} cannot be copied to {home.parent}: {error.strerror or error}"
        raise StageError("tool", said, _SUGGESTION) from error
    return target


def is_copy(folder: Path) -> bool:
    """Whether ``folder`` is a copy made here, with all of its files in their sizes."""
    record = _record(folder.parent)
    if record is None:
        return False
    sizes = {name: size for name, (size, _) in record["files"].items()}
    return all(_size(folder / name) == size for name, size in sizes.items())


def _told(
    steps: Generator[Progress, None, R], log: Path, source: Path
) -> Generator[Progress, None, R]:
    """``steps``, telling what the program that copies has said last."""
    try:
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: R = end.value
                return result
            yield Progress(STAGE, f"{source} to the node's disk: {_last_line(log)}")
    finally:
        steps.close()


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        lines = []
    return next((line for line in reversed(lines) if line), "waiting for who copies it already")


def _files(source: Path) -> list[tuple[str, int, int]]:
    """Path, size and time of change of every file. Links are followed: caches are made of them."""
    found = []
    for path in sorted(source.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            state = path.stat()
            found.append((str(path.relative_to(source)), state.st_size, state.st_mtime_ns))
    return found


def _copy(source: Path, home: Path, names: Sequence[str]) -> None:
    """Copy, check, and give it its name."""
    part = home.with_name(f"{home.name}.part")
    for old in (part, home):
        _remove(old)
    files: dict[str, tuple[int, str]] = {}
    for name in names:
        place = part / source.name / name
        place.parent.mkdir(parents=True, exist_ok=True)
        print(f"copying {name}", flush=True)
        files[name] = _copy_file(source / name, place)
    for name, (_, digest) in files.items():
        with (part / source.name / name).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                said = f"the copy of {source / name} is not what was read; check the node's disk"
                raise StageError("tool", said)
    write_json(part / _RECORD, {"source": str(source), "files": files})
    part.rename(home)
    sync_folder(home.parent)


def _copy_file(source: Path, target: Path) -> tuple[int, str]:
    """Size and digest of what was copied."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    return size, digest.hexdigest()


def _make_room(home: Path, need: int, limits: Limits) -> None:
    """Remove unused copies until one more is permitted and has room."""
    others = [one for one in home.parent.iterdir() if one != home and _record(one) is not None]
    others.sort(key=lambda one: _lock_of(one).stat().st_mtime if _lock_of(one).exists() else 0.0)
    sizes = {one: _bytes(one) for one in others}
    while reason := _missing(home.parent, need, sizes, limits):
        victim = next((one for one in others if one in sizes and _remove_unused(one)), None)
        if victim is None:
            raise StageError("tool", f"no room for a copy of the model: {reason}", _SUGGESTION)
        del sizes[victim]


def _missing(root: Path, need: int, sizes: Mapping[Path, int], limits: Limits) -> str | None:
    """Why one more copy of ``need`` bytes must not be made; None when it may."""
    used, free = sum(sizes.values()), shutil.disk_usage(root).free
    if len(sizes) >= limits.copies:
        return f"{len(sizes)} copies are in use, and {limits.copies} are permitted"
    if limits.space is not None and used + need > limits.space:
        have = f"{_gigabytes(used)} of it are in use"
        return f"it takes {_gigabytes(need)}, {_gigabytes(limits.space)} are permitted, {have}"
    if free < need + _SPARE:
        return f"it takes {_gigabytes(need)}, and {root} has {_gigabytes(free)} free"
    return None


def _remove_unused(home: Path) -> bool:
    """Whether a copy could be removed; not while somebody uses it."""
    handle = os.open(_lock_of(home), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(home)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _remove(home: Path) -> None:
    """Remove a folder that was made here, whole or not, and nothing else."""
    name = home.name.removesuffix(".part")
    if home.parent.name != _OURS or not _NAME.fullmatch(name) or home.is_symlink():
        raise StageError("tool", f"{home} is no copy of ours")
    if home.exists():
        (home / _RECORD).unlink(missing_ok=True)
        shutil.rmtree(home)


def _used(copy: Path) -> Generator[Progress, None, bool]:
    """Hold a copy until this process ends; False when it is gone."""
    if copy not in _USED:
        handle = os.open(_lock_of(copy.parent), os.O_RDWR | os.O_CREAT, 0o644)
        deadline = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(handle)
                    return False
                yield Progress(STAGE, "waiting for the copy")
                time.sleep(0.1)
        if _USED.setdefault(copy, handle) != handle:
            os.close(handle)  # another trial of this process was faster
    if is_copy(copy):
        return True
    if (gone := _USED.pop(copy, None)) is not None:
        os.close(gone)
    return False


def _is_there(target: Path) -> bool:
    """Whether a copy is there, after waiting for who makes it, but not for those who use it."""
    with _lock_of(target.parent).open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        return is_copy(target)


def _is_mine(lock: IO[str]) -> bool:
    """Whether nobody makes or uses the copy, nor will as long as this is open. Said at once: who
    makes it may go on to serve from it for hours."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Exclusive, after waiting for others; whoever runs this bounds the time."""
    with file.open("a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _lock_of(home: Path) -> Path:
    return home.with_name(f"{home.name}.lock")


def _record(home: Path) -> CopyRecord | None:
    """The record of a copy; None for anything else."""
    if not _NAME.fullmatch(home.name) or home.is_symlink():
        return None
    try:
        document: Json = json.loads((home / _RECORD).read_text(encoding="utf-8"))
        files = {
            name: (int(size), str(digest)) for name, (size, digest) in document["files"].items()
        }
        return {"source": str(document["source"]), "files": files}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _bytes(home: Path) -> int:
    record = _record(home)
    return 0 if record is None else sum(size for size, _ in record["files"].values())


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None


def _gigabytes(amount: int) -> str:
    return f"{amount / 1e9:.3g} GB"
