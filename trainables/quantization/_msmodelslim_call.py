"""One run of msModelSlim's command line."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from cluster import write_atomic
from trainables._program import StageError
from trainables.quantization._calibration import Calibration, CalibrationError
from trainables.quantization._msmodelslim_errors import tool_failure
from trainables.quantization._msmodelslim_plan import calibration_lines, owns_dataset
from trainables.quantization._msmodelslim_tool import MsModelSlimOptions
from trainables.quantization._practice import Practice

_KEPT_LINES = 200_000
_JUDGED_LINES = 2000
_DRAIN_S = 10.0
"""What a dead program left in the pipe is read at once, unless something it started holds it."""


def run_msmodelslim(
    options: MsModelSlimOptions, arguments: Sequence[str], *, threads: int | None
) -> list[str]:
    """Run the command with ``arguments``; the lines it printed, which also go to our own output.

    It reads nothing: its questions would never be answered. It lives in the process tree of the
    stage, so that it ends with it.

    Raises:
        StageError: It cannot be started, or ended with an error.
    """
    argv = [*options.program(), *arguments]
    what = f"msmodelslim {arguments[0]}"
    print("running:", *argv, flush=True)
    try:
        process = subprocess.Popen(
            argv,
            env=options.environment(threads),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        message = f"{what} cannot be started: {error}"
        raise StageError("input", message, "see quantizer.command") from error
    assert process.stdout is not None
    lines: deque[str] = deque(maxlen=_KEPT_LINES)
    reader = threading.Thread(target=_copy, args=(process.stdout, lines), daemon=True)
    reader.start()
    code = process.wait()
    reader.join(_DRAIN_S)
    printed = list(lines)
    if code != 0:
        raise tool_failure(what, code, "".join(printed[-_JUDGED_LINES:]))
    return printed


def engine_dataset(practice: Practice, calibration: Calibration, folder: Path) -> str:
    """What to call the calibration data on msModelSlim's command line or in its practice.

    Data of the trial's are written into ``folder`` in the form it reads.

    Raises:
        StageError: There are none.
    """
    named = practice.spec.dataset
    if owns_dataset(practice, calibration):
        return str(Path(named).resolve()) if Path(named).is_file() else named
    file = folder.resolve() / "calibration.jsonl"
    try:
        write_atomic(file, calibration_lines(calibration))
    except CalibrationError as error:
        raise StageError("input", str(error)) from error
    return str(file)


def _copy(source: IO[str], lines: deque[str]) -> None:
    for line in source:
        lines.append(line)
        sys.stdout.write(line)
        sys.stdout.flush()


def flag(value: bool) -> str:
    """A truth value as msModelSlim's command line spells it."""
    return "True" if value else "False"
