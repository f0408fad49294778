"""Stage program: make a built-in model ready.

Request ``{"model": "builtin:<name>"}``; result ``{"folder", "fingerprint", "converted",
"seconds"}``. Processes that ask at the same time wait for the one that converts; one that is
killed leaves nothing a later call would take for a model.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cluster import write_json
from trainables._program import StageError, run_program
from trainables.models._builtin import (
    COMPLETE,
    ModelError,
    builtin_folder,
    builtin_source,
    is_complete,
)
from trainables.models._fingerprint import model_fingerprint
from trainables.models._folder import new_folder, remove_unfinished

_LOCK_SECONDS = 900


def convert(request: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the model of ``request`` unless that was done before.

    Raises:
        StageError: The package or a library is missing, the file is unusable, or another process
            holds the conversion for 15 minutes.
    """
    started = time.monotonic()
    try:
        folder = builtin_folder(request["model"])
        converted = not is_complete(folder) and _convert_once(request["model"], folder)
    except ModelError as error:
        raise StageError("input", str(error)) from error
    return {
        "folder": str(folder),
        "fingerprint": model_fingerprint(folder),
        "converted": converted,
        "seconds": round(time.monotonic() - started, 3),
    }


def _convert_once(reference: str, folder: Path) -> bool:
    """Convert under the lock; False when another process was faster."""
    source = builtin_source(reference)
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f"{folder.name}.lock")
    try:
        with FileLock(lock, timeout=_LOCK_SECONDS):
            if is_complete(folder):
                return False
            remove_unfinished(folder)
            with new_folder(folder) as building:
                _write_checkpoint(source, building)
    except Timeout as error:
        message = f"another process has been converting {reference} for {_LOCK_SECONDS} s"
        raise StageError("timeout", message, f"see who holds {lock}") from error
    return True


def _write_checkpoint(source: Path, folder: Path) -> None:
    try:
        from trainables.models._gguf import GgufModel
    except ImportError as error:
        raise ModelError(
            f"converting a built-in model needs {error.name}; "
            "install it with: pip install 'npu-tuner[quantize]'"
        ) from error
    try:
        GgufModel(source).write(folder)
    except ValueError as error:
        raise ModelError(f"{source} cannot be converted: {error}") from error
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    write_json(folder / COMPLETE, sizes)


if __name__ == "__main__":
    run_program(convert)
