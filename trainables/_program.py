"""How a stage of a trial runs in an interpreter of its own.

A stage program is ``python -m trainables.somewhere REQUEST.json RESULT.json``. It reads what to do
from the first file and writes what came of it to the second, atomically; everything it prints
goes to the stage's log. Living in its own process, it can be bounded in time, killed with its
whole tree, and loses no memory or accelerator handles to the next trial.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from cluster import Storage, write_json

FailureClass: TypeAlias = Literal[
    "startup", "out_of_memory", "device", "network", "timeout", "tool", "lost", "input"
]
"""What sort of failure ended a stage. ``input`` will fail again however often it is repeated
(a model the quantizer cannot read, a dataset that is not there); ``lost`` means that the worker
or its node died; the others may pass."""

FAILURE_CLASSES: tuple[FailureClass, ...] = get_args(FailureClass)


class StageError(Exception):
    """A stage failed for a reason that is known.

    Attributes:
        failure: The class of failure, which decides whether a retry makes sense.
        suggestion: What the user can do about it; empty when nothing is known.
    """

    def __init__(self, failure: FailureClass, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.failure: FailureClass = failure
        self.suggestion = suggestion


def run_program(work: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """Body of ``if __name__ == "__main__"`` in a stage program.

    ``work`` gets the request document and returns the result document, JSON both. A
    :class:`StageError` it raises is reported as such, memory exhaustion as ``out_of_memory``,
    anything else as ``tool``. A storage that is gone when the work is done is waited for. Never
    returns: exits 0 or 1.
    """
    request_file, result_file = (Path(argument) for argument in sys.argv[1:3])
    try:
        result = work(json.loads(request_file.read_text(encoding="utf-8")))
        storage = Storage(result_file.parent)
        storage.write_json(result_file, {"ok": True, "result": dict(result)})
    except Exception as error:
        traceback.print_exc()
        write_json(result_file, {"ok": False, "error": describe_error(error)})
        sys.exit(1)
    sys.exit(0)


def describe_error(error: Exception) -> dict[str, str]:
    """The error document ``{class, message, suggestion}`` of an exception."""
    if isinstance(error, StageError):
        failure, suggestion = error.failure, error.suggestion
    elif isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        failure, suggestion = "out_of_memory", "give the trial more memory or a smaller batch"
    else:
        failure, suggestion = "tool", ""
    message = str(error) if isinstance(error, StageError) else f"{type(error).__name__}: {error}"
    return {"class": failure, "message": message, "suggestion": suggestion}
