"""Stage program of a rehearsal: takes its time and says so."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from trainables._program import run_program


def rehearse(request: Mapping[str, Any]) -> dict[str, Any]:
    """Spend ``request["seconds"]`` seconds."""
    print(f"rehearsing for {request['seconds']} s", flush=True)
    time.sleep(float(request["seconds"]))
    print("rehearsed", flush=True)
    return {"slept": request["seconds"]}


if __name__ == "__main__":
    run_program(rehearse)
