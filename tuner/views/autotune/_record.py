"""One line of ``tune_results.jsonl``, in the fields and the order of the original. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from searchers import Json
from tuner.views._contract import Finished

METRICS = {
    "accuracy": "avg_accuracy",
    "total_tps": "avg_total_tps",
    "answer_tps": "avg_answer_tps",
    "total_time_s": "avg_total_time_s",
}
"""Our names of the metrics, with those of the records, in their order."""
_RUN_METRICS = ("accuracy", "answer_tps", "total_tps", "total_time_s")
_PORT = "port"
"""The stage in which a trial waits for its port."""
_TOLD_ANEW = ("ts", "server_log", "param_under_test")
"""What differs when a measurement that is known is told once more."""


def trial_key(params: Mapping[str, str]) -> str:
    """``NAME=value`` of all parameters, sorted by name and joined by ``|``."""
    return "|".join(f"{name}={params[name]}" for name in sorted(params))


def local_time(at: str) -> str:
    """A UTC time as the original writes it: local, without a zone, whole seconds."""
    return datetime.fromisoformat(at).astimezone().replace(tzinfo=None).isoformat("T", "seconds")


def record(finished: Finished, params: Mapping[str, str], log: str) -> dict[str, Json]:
    """The line of a trial that ended.

    Args:
        params: All that the server was told.
        log: Its log, relative to the repo.
    """
    head: dict[str, Json] = {"ts": local_time(finished.at), "trial_key": trial_key(params)}
    story = _story(finished)
    if story is None or (finished.failure or {}).get("stage") == _PORT:
        reason = str((finished.failure or {}).get("message", "it was not carried out"))
        return {**head, "status": "failed", "reason": reason, "params": dict(params)}
    head |= {
        "status": story["status"],
        "phase": story["phase"],
        "param_under_test": param_of(finished.labels),
    }
    health = _health(story["health"])
    if story["phase"] == "startup":
        return {
            **head,
            "health": health,
            "exit_code": story["exit_code"],
            "server_log": log,
            "params": dict(params),
            "startup_s": story["startup_s"],
        }
    metrics = {} if finished.measurement is None else finished.measurement.metrics
    runs = story["eval_runs"]
    return {
        **head,
        "params": dict(params),
        "health": health,
        "eval_ok_n": sum(bool(run["ok"]) for run in runs),
        "eval_runs": [_run(run) for run in runs],
        **{theirs: metrics.get(ours) for ours, theirs in METRICS.items()},
        "server_log": log,
        "total_s": _total(finished, story),
    }


def param_of(labels: Mapping[str, Json]) -> str:
    """The parameter, or parameters, that a trial tries values of."""
    return str(labels.get("group", ""))


def result_of(line: Mapping[str, Json]) -> dict[str, Json]:
    """What the status file says of a line."""
    keys = ("status", "avg_accuracy", "avg_total_tps", "avg_total_time_s")
    return {key: line.get(key) for key in keys}


def fingerprint(line: Mapping[str, Any]) -> str:
    """Equal for two lines of one trial that was carried out once."""
    measured = line.get("status") in ("ok", "partial")
    left_out = _TOLD_ANEW if measured else ("server_log",)
    kept = {key: value for key, value in line.items() if key not in left_out}
    return json.dumps(kept, sort_keys=True)


def _story(finished: Finished) -> Mapping[str, Any] | None:
    """The trial's own record; None where it left none, as when its worker died."""
    if finished.measurement is not None:
        data = finished.measurement.data
        return data if "eval_runs" in data else None
    found: Mapping[str, Any] | None = (finished.failure or {}).get("record")
    return found


def _health(health: Mapping[str, Json]) -> str:
    status = health.get("status")
    said = str(health.get("said", ""))
    return said if status is None else f"health={status} {said}".rstrip()


def _run(run: Mapping[str, Any]) -> dict[str, Json]:
    if run["timeout"]:
        return {"i": run["i"], "ok": False, "timeout": True}
    metrics = run["metrics"]
    return {
        "i": run["i"],
        "ok": run["ok"],
        "returncode": run["returncode"],
        **{name: metrics.get(name) for name in _RUN_METRICS},
        "elapsed_s": run["elapsed_s"],
    }


def _total(finished: Finished, story: Mapping[str, Any]) -> float:
    if finished.measurement is not None:
        return round(finished.measurement.seconds, 3)
    runs = [*story["eval_runs"], *story.get("eval_repeated", ())]
    seconds: float = (story["startup_s"] or 0.0) + sum(run["elapsed_s"] for run in runs)
    return round(seconds, 3)
