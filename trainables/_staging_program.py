"""Stage program: a copy of a model on this node's disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables._program import run_program
from trainables._staging import Limits, stage


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """``{source, folder, copies, space}``; the result names the copy's ``folder``."""
    limits = Limits(request["copies"], request["space"])
    copy = stage(Path(request["source"]), Path(request["folder"]), limits)
    return {"folder": str(copy)}


if __name__ == "__main__":
    run_program(run)
