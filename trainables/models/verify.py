"""Stage program: compare a checkpoint with its digest.

Request ``{"folder", "files": {name: sha256}}``; result ``{"faults": [...]}``, empty when every byte
is what it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables._program import run_program
from trainables.models._fingerprint import verify_digest


def verify(request: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out ``request``."""
    return {"faults": verify_digest(Path(request["folder"]), request["files"])}


if __name__ == "__main__":
    run_program(verify)
