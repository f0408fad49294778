"""What trials with a served model leave in their folders."""

from __future__ import annotations

import re
from pathlib import Path

_EXPERIMENT = re.compile(r"\d{8}_\d{6}")


def newest_engine_log(trials: Path) -> Path | None:
    """The engine log written to last in all of a run, failed trials included."""
    found: list[tuple[float, Path]] = []
    for log in trials.glob("*/*engine.log"):
        try:
            found.append((log.stat().st_mtime, log))
        except FileNotFoundError:
            continue
    return max(found)[1] if found else None


def benchmark_outputs(trial: Path) -> tuple[Path, ...]:
    """AISBench's own folders, one for each time it ran, named by when it started."""
    found = sorted(trial.glob("aisbench_output/*/output/*"))
    return tuple(path for path in found if _EXPERIMENT.fullmatch(path.name) and path.is_dir())
