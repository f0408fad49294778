"""The folder of a run: what lies where, and who is working in it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster import GrowingFile, RunLock, Storage, is_gone, probe
from tuner._ledger import Ledger
from tuner._run_folder import RunError

ARTIFACTS = "artifacts"
"""Folder inside a trial's folder for what is heavy, such as weights; pruned when not needed."""


@dataclass
class RunRecord:
    """``run.json``: what outlives a session.

    Attributes:
        run_id: New with every ``run``, kept by ``resume``; marks all processes of the run.
        cwd: The folder that relative paths of the experiment refer to.
        folder: Where the run's folder was; Ray's snapshot speaks of paths in it.
        spent_s: Seconds of search time used, all sessions together.
        sessions: ``{pid, started, ended}`` of each driver; ``ended`` is null after a crash.
        finished: The run came to a verdict; there is nothing to resume.
        verdict: The last verdict.
    """

    run_id: str
    cwd: str
    folder: str
    spent_s: float = 0.0
    sessions: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False
    verdict: str | None = None


class RunStore:
    """``<storage>/<name>`` and everything in it.

    Args:
        folder: Its path.
        storage: Through which all is written that the driver of a run writes.
    """

    def __init__(self, folder: Path, storage: Storage | None = None) -> None:
        self.folder = folder
        self.storage = storage or Storage(folder)
        self.experiment_file = folder / "experiment.yaml"
        self.status_file = folder / "status.json"
        self.events_file = folder / "events.jsonl"
        self.trials = folder / "trials"
        self.best = folder / "best"
        self.ray = folder / "ray"
        self._record_file = folder / "run.json"
        self._events = GrowingFile(self.events_file, durable=False)

    def lock(self) -> RunLock:
        """Exclusive right to work here; see :class:`cluster.RunLock`.

        Where a run can be read but nothing can be written, that is waited for. Raises
        :class:`RunError` where there is no run yet.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._record_file.exists():
                self.storage.was_gone()
            else:
                probe(self.folder)
        except OSError as error:
            said = f"{self.folder} cannot be written to: {error.strerror}"
            raise RunError(said) from error
        return RunLock(self.folder)

    def ledger(self) -> Ledger:
        """The ledger, with whatever trials finished unheard."""
        return self.storage.do(self._ledger)

    def _ledger(self) -> Ledger:
        ledger = Ledger(self.folder / "ledger.jsonl", self.storage.do)
        ledger.adopt(self.trials)
        return ledger

    def record(self) -> RunRecord | None:
        """The last run's record; None when there is none or it cannot be read."""
        try:
            return RunRecord(**json.loads(self._record_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def save_record(self, record: RunRecord) -> None:
        self.storage.write_json(self._record_file, asdict(record))

    def begin(self, *, resume: bool) -> RunRecord:
        """Open a session: continue the last run's record, or start a new one."""
        record = self.record() if resume else None
        if record is None:
            record = RunRecord(uuid.uuid4().hex[:12], str(Path.cwd()), str(self.folder))
        record.finished = False
        record.sessions.append({"pid": os.getpid(), "started": now(), "ended": None})
        self.save_record(record)
        self.storage.mark(self._record_file)
        self.storage.do(lambda: self.trials.mkdir(exist_ok=True))
        return record

    def trial_folder(self, identity: str) -> Path:
        return self.trials / identity[:16]

    def prune(self, keep: Iterable[str]) -> None:
        """Delete heavy artifacts of all trials but those of the named identities."""
        kept = {self.trial_folder(identity) for identity in keep}
        self.storage.do(lambda: self._prune(kept))

    def _prune(self, kept: Collection[Path]) -> None:
        for heavy in self.trials.glob(f"*/{ARTIFACTS}"):
            if heavy.parent not in kept:
                shutil.rmtree(heavy, onerror=_unless_gone)

    def log_event(self, event: dict[str, Any]) -> None:
        """Append to ``events.jsonl``, the story of the run. Not a source of truth."""
        line = json.dumps({"ts": round(time.time(), 3), **event}, default=str) + "\n"
        self.storage.do(lambda: self._events.append(line.encode()))


def _unless_gone(function: Any, path: str, found: Any) -> None:
    """What cannot be removed stays, but for what a storage that is gone has kept."""
    error = found[1]
    if isinstance(error, OSError) and is_gone(error) and error.errno != errno.ENOENT:
        raise error


def now() -> str:
    """UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
