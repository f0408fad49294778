"""Finds and ends the processes of a run that nobody supervises any more.

A process belongs to a run when the environment it was started with says so, or when it descends
from one that does. Names and ports are never evidence.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

RUN_VARIABLE = "TUNER_RUN_ID"
"""Marks every process of a run. Never set it in the driver itself: Ray's own processes would
inherit it and be taken for leftovers."""
LABEL_VARIABLE = "TUNER_LABEL"
TREE_VARIABLE = "TUNER_TREE"
"""Marks every process of one process tree; unique per start."""

_KILL_BOUND_S = 15.0
_LOOK_AGAIN_S = 0.05


@dataclass(frozen=True)
class FoundProcess:
    """A living process of a run.

    Attributes:
        pid: Process id on this host.
        label: What it was started as (``TUNER_LABEL``); empty for a descendant without a label.
        command: Its command line; empty when it cannot be read.
    """

    pid: int
    label: str
    command: str

    def __str__(self) -> str:
        return f"{self.pid} [{self.label or 'no label'}] {self.command[:120]}"


class ProcessesRemainError(RuntimeError):
    """Processes did not vanish after KILL, as happens to those stuck in a device driver.

    Attributes:
        processes: What is left.
    """

    def __init__(self, processes: Collection[FoundProcess]) -> None:
        listed = "; ".join(map(str, processes))
        super().__init__(
            f"these processes do not end even after SIGKILL: {listed}. They are stuck in the "
            "kernel, usually in a device driver: look at dmesg and at the device before using it"
        )
        self.processes = tuple(processes)


def find_processes(run_id: str, *, keep: Collection[int] = ()) -> list[FoundProcess]:
    """Living processes of this user on this host that belong to run ``run_id``.

    ``keep`` names processes to leave out, together with their ancestors (their wardens among
    them) and descendants. The caller and its ancestors are always left out, zombies too.
    """
    return [_describe(process) for process in _find(RUN_VARIABLE, run_id, keep)]


def sweep(run_id: str, *, keep: Collection[int] = (), grace_s: float = 5.0) -> list[FoundProcess]:
    """End what :func:`find_processes` finds: TERM, after ``grace_s`` seconds KILL.

    Returns what was found first. Raises :class:`ProcessesRemainError` when something is still
    there 15 s after KILL.
    """
    return end_all(lambda: _find(RUN_VARIABLE, run_id, keep), grace_s)


def sweep_tree(tree: str, *, grace_s: float) -> list[FoundProcess]:
    """:func:`sweep` for a single process tree, known by its ``TUNER_TREE``."""
    return end_all(lambda: _find(TREE_VARIABLE, tree, ()), grace_s)


def find_marked(variable: str, value: str) -> list[FoundProcess]:
    """Processes started with ``variable`` in their environment, and their descendants."""
    return [_describe(process) for process in _find(variable, value, ())]


def sweep_marked(variable: str, value: str, *, grace_s: float) -> list[FoundProcess]:
    """:func:`sweep` for what :func:`find_marked` finds."""
    return end_all(lambda: _find(variable, value, ()), grace_s)


def end_all(find: Callable[[], list[psutil.Process]], grace_s: float) -> list[FoundProcess]:
    """TERM and later KILL whatever ``find`` returns, until it returns nothing.

    Raises :class:`ProcessesRemainError` when that takes longer than the grace and 15 s.
    """
    processes = find()
    ended = [_describe(process) for process in processes]
    kill_at = time.monotonic() + grace_s
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
            process.resume()
    while processes:
        now = time.monotonic()
        if now >= kill_at + _KILL_BOUND_S:
            raise ProcessesRemainError([_describe(process) for process in processes])
        if now >= kill_at:
            for process in processes:
                with suppress(psutil.Error):
                    process.kill()
        # Not psutil.wait_procs: it would take the exit status of a child of ours from its Popen.
        time.sleep(_LOOK_AGAIN_S)
        processes = find()
    return ended


def describe(pids: Iterable[int]) -> list[FoundProcess]:
    """Those of ``pids`` that live."""
    found = []
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(_describe(process))
    return found


def _find(variable: str, value: str, keep: Collection[int]) -> list[psutil.Process]:
    """Marked processes and their descendants, without the spared ones."""
    if not value or "\0" in value:
        raise ValueError(f"{variable} must be a non-empty text to search for, not {value!r}")
    entry = f"{variable}={value}".encode()
    children: dict[int, list[psutil.Process]] = {}
    queue: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            children.setdefault(process.ppid(), []).append(process)
            if process.uids().real == os.getuid() and entry in _environment(process.pid):
                queue.append(process)
    spared = _with_descendants(keep, children)
    for pid in (*keep, os.getpid()):
        spared |= _with_ancestors(pid)
    found: dict[int, psutil.Process] = {}
    while queue:
        process = queue.pop()
        if process.pid not in spared and process.pid not in found:
            queue.extend(children.get(process.pid, ()))
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = process
    return [found[pid] for pid in sorted(found)]


def _environment(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def _with_descendants(pids: Collection[int], children: dict[int, list[psutil.Process]]) -> set[int]:
    found, queue = set(pids), list(pids)
    while queue:
        below = [child.pid for child in children.get(queue.pop(), ())]
        queue.extend(pid for pid in below if pid not in found)
        found.update(below)
    return found


def _with_ancestors(pid: int) -> set[int]:
    with suppress(psutil.Error):
        return {pid, *(parent.pid for parent in psutil.Process(pid).parents())}
    return set()


def _describe(process: psutil.Process) -> FoundProcess:
    label = command = ""
    with suppress(psutil.Error, OSError):
        command = " ".join(process.cmdline())
        prefix = f"{LABEL_VARIABLE}=".encode()
        for entry in _environment(process.pid):
            if entry.startswith(prefix):
                label = entry.removeprefix(prefix).decode(errors="replace")
    return FoundProcess(process.pid, label, command)
