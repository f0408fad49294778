"""Which folder a run works in, and why it may not."""

from __future__ import annotations

from pathlib import Path


class RunError(Exception):
    """The run cannot start: no node fits, the model is not to be had, Ray does not come up."""


def resolve_run_folder(folder: Path) -> Path:
    """The run folder a user means: the folder itself, or the only run inside it.

    Raises:
        RunError: There is no run, or more than one to choose from.
    """
    if (folder / "experiment.yaml").exists():
        return folder
    runs = sorted(path.parent for path in folder.glob("*/experiment.yaml"))
    if len(runs) == 1:
        return runs[0]
    if not runs:
        raise RunError(f"{folder}: no run is stored here (no experiment.yaml)")
    raise RunError(f"{folder}: several runs; name one: {', '.join(str(run) for run in runs)}")
