"""What the user gets: ``best/``, whole, verified, and replaced in one step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster import sync_folder
from trainables import Measurement, TrialType
from tuner._ledger import Ledger
from tuner._store import ARTIFACTS, RunStore

_MANIFEST = "manifest.json"


class Delivery:
    """Keeps ``best/`` true: nothing stands there that was not measured from there."""

    def __init__(self, store: RunStore, trial: TrialType) -> None:
        self._store = store
        self._trial = trial

    def forget_undelivered(self, ledger: Ledger) -> None:
        """Make the ledger forget verifications whose weights are neither delivered nor kept.

        Their numbers are facts, but what they were measured from has to be made again.
        """
        for measurement in list(ledger):
            if measurement.kind == "verification" and not self._is_kept(measurement):
                ledger.forget(measurement.identity)

    def deliver(
        self, verified: Measurement | None, parameters: Mapping[str, Any], summary: Any
    ) -> None:
        """Fill ``best/`` with the winner: its artifacts, its parameters and what was measured.

        The old ``best/`` stands until the new one is complete. ``verified`` is None for trial
        types whose answer is parameters alone.
        """
        best, storage = self._store.best, self._store.storage
        if verified is not None and storage.do(lambda: self._stands(verified)):
            return
        new = best.with_name("best.new")
        storage.do(lambda: _make_empty(new))
        if verified is not None:
            storage.do(lambda: self._fill(new, verified))
        for name, text in self._trial.deliverables(parameters).items():
            storage.write(new / name, text, mode=0o755 if name.endswith(".sh") else 0o644)
        storage.write_json(new / "parameters.json", dict(parameters))
        storage.write_json(new / "result.json", summary)
        identity = None if verified is None else verified.identity
        storage.write_json(new / _MANIFEST, {"verification": identity})
        storage.do(lambda: _replace(best, new))

    def _fill(self, new: Path, verified: Measurement) -> None:
        """Artifacts are moved, and only once: an attempt may have failed after it had done so."""
        if not any(new.iterdir()):
            self._trial.deliver(verified, new)

    def _is_kept(self, measurement: Measurement) -> bool:
        """Whether what a verification measured still lies in ``best/`` or in its own folder."""
        folder = self._store.trial_folder(measurement.identity) / ARTIFACTS
        return self._stands(measurement) or self._trial.holds(measurement, folder)

    def _stands(self, verified: Measurement) -> bool:
        """Whether ``best/`` is that verification's delivery, and whole."""
        try:
            manifest = json.loads((self._store.best / _MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        theirs = manifest.get("verification") if isinstance(manifest, dict) else None
        return theirs == verified.identity and self._trial.holds(verified, self._store.best)


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _replace(best: Path, new: Path) -> None:
    """Put ``new`` in the place of ``best``, unless an earlier attempt has."""
    old = best.with_name("best.old")
    if new.exists():
        shutil.rmtree(old, ignore_errors=True)
        if best.exists():
            best.rename(old)
        new.rename(best)
    sync_folder(best.parent)
    shutil.rmtree(old, ignore_errors=True)
