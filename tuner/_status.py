"""What a run is doing, read from its folder while or after it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluster import RunLock, RunLockedError
from tuner._agreement import Agreement
from tuner._store import RunStore
from tuner._terminal import describe_parameters, ended
from tuner._tried import called
from tuner._words import counted
from tuner.experiment import format_duration


def read_status(folder: Path) -> dict[str, Any]:
    """Content of ``status.json``, corrected by whether its driver is still alive.

    A driver that was killed could not write that it is no longer running.
    """
    store = RunStore(folder)
    try:
        status: dict[str, Any] = json.loads(store.status_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        status = {"name": folder.name, "state": "not started"}
    status["storage"] = str(folder)
    try:
        with RunLock(folder):
            pass
    except RunLockedError as error:
        if error.holder is not None:
            status["pid"] = error.holder.pid
        return status
    if status["state"] == "running":
        status["state"] = "died"
        status["running"] = []
    return status


def describe_status(status: dict[str, Any]) -> str:
    """The status for a person."""
    lines = [f"{status['name']}: {status['state']} ({status['storage']})"]
    if status["state"] == "died":
        lines.append(f"its driver was killed; continue: python -m tuner resume {status['storage']}")
    counts = status.get("counts")
    if counts:
        lines.append(", ".join(f"{number} {name}" for name, number in counts.items()))
    if "elapsed_s" in status:
        times = [f"elapsed {format_duration(status['elapsed_s'])}"]
        if status.get("remaining_s") is not None and status["state"] == "running":
            times.append(f"about {format_duration(status['remaining_s'])} to go")
        lines.append(", ".join(times))
    nodes = status.get("nodes") or {}
    several = nodes.get("living", 0) > 1
    lines += _describe_nodes(nodes, several=several)
    if status.get("wanted"):
        lines.append(f"wanted: {status['wanted']}")
    if status.get("notes"):
        lines.append(f"for all trials: {'; '.join(status['notes'])}")
    for row in status.get("trials", []):
        name = called(row["number"], row["kind"])
        lines.append(f"  {name} {ended(row)} <- {row['what']}  [{row['identity'][:16]}]")
    for running in status.get("running", []):
        lines.append(f"  {_describe_running(running, several=several)}")
    if status.get("best") is not None:
        final = status.get("result", {}).get("best") is not None
        so_far = "" if final else " so far"
        lines.append(f"best{so_far}: {describe_parameters(status['best'])}")
    if (prior := status.get("prior")) is not None and "result" not in status:
        lines.append(str(Agreement.from_json(prior)))
    if "result" in status:
        result = status["result"]
        lines.append(f"{result['verdict']}: {result['message']}")
        lines += result.get("notes", [])
        if result["delivered"]:
            lines.append(f"delivered in {result['delivered']}")
    return "\n".join(lines)


def _describe_running(running: dict[str, Any], *, several: bool) -> str:
    number = f"#{running['number']} " if "number" in running else ""
    where = f" on {running['node']}" if several and running.get("node") else ""
    stage = f"{running['stage']}{where} for {format_duration(running['stage_s'])}"
    return f"{number}{running['kind']} {stage}: {running['why']}  [{running['trial']}]"


def _describe_nodes(nodes: dict[str, Any], *, several: bool) -> list[str]:
    """How many there are, and which get no more trials; nothing to tell of one that is well."""
    lines = []
    if several:
        room = counted(nodes["width"], "trial")
        lines.append(f"{nodes['living']} nodes, room for {room} at once")
    for one in nodes.get("excluded", []):
        lines.append(
            f"node {one['address']} gets no more trials since {one['at']}: {one['reason']}"
        )
    return lines
