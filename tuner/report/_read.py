"""Reads a run's folder into :class:`RunData`. Changes nothing in it, so a live run may be read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainables import Measurement, MeasurementError
from tuner._judge import BaselineMissing, judge
from tuner._status import read_status
from tuner._store import RunStore
from tuner._view import DEVICES
from tuner.experiment import ExperimentError, Objective, read_document
from tuner.report._data import Attempt, Json, RunData, Trial
from tuner.report._discreet import Discretion
from tuner.report._history import History, read_history

_SHOWN = (".sh", ".env", ".yaml", ".yml", ".toml", ".conf", ".service")
_UNSHOWN = frozenset(("manifest.json", "operating_point.json", "parameters.json", "result.json"))
_MOST_BYTES = 64_000
_MOST_FILES = 200
_JUDGED = ("candidate", "verification", "baseline")


def read_run(folder: Path) -> RunData:
    """What the folder of a run tells, secrets masked. A run under way gives what is there so far.

    What cannot be read is named in ``notes`` and costs nothing else.
    """
    store, notes = RunStore(folder), list[str]()
    document = _document(store.experiment_file, notes)
    discreet = Discretion(document)
    status = discreet(read_status(folder))
    status["storage"] = str(folder)
    objective = _objective(document, notes)
    record = store.record()
    sessions = [] if record is None else [str(one["started"]) for one in record.sessions]
    history = read_history(store.events_file, sessions, notes)
    measurements = _measurements(folder / "ledger.jsonl", notes)
    baseline = status.get("baseline")
    trials = [
        _judged(objective, baseline, trial)
        for trial in _trials(history, measurements, status, discreet)
    ]
    resource, amount = _devices(document)
    rows = {row["identity"][:16]: row for row in status.get("trials", ())}
    trials = [_placed(trial, rows.get(trial.identity, {}), amount) for trial in trials]
    trials = _timed(trials, history.attempts)
    result = status.get("result", {})
    return RunData(
        name=str(status.get("name", folder.name)),
        folder=str(folder),
        state=str(status.get("state", "not started")),
        document=discreet(document),
        objective=objective,
        result=result,
        status=status,
        trials=tuple(trials),
        attempts=tuple(_with_nodes(history.attempts, trials, discreet)),
        best=result.get("best") if result else status.get("best"),
        baseline=baseline,
        resource=resource,
        account=status.get("account") or result.get("account") or {},
        files=_files(store.best),
        commands=discreet(_commands(store.best)),
        node_events=tuple((at, discreet.text(said)) for at, said in history.nodes),
        notes=tuple(notes),
    )


def _document(file: Path, notes: list[str]) -> dict[str, Any]:
    try:
        return dict(read_document(file).data)
    except ExperimentError as error:
        notes.append(str(error))
        return {}


def _objective(document: Mapping[str, Json], notes: list[str]) -> Objective | None:
    try:
        return Objective.model_validate(document["objective"])
    except KeyError:
        return None
    except ValidationError as error:
        notes.append(f"objective: {error.error_count()} faults, so nothing could be judged")
        return None


def _measurements(file: Path, notes: list[str]) -> dict[str, Measurement]:
    """By the first 16 characters of their identity. A torn last line is being written."""
    found: dict[str, Measurement] = {}
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    except OSError:
        return found
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            continue
        try:
            measurement = Measurement.from_json(json.loads(line))
        except (ValueError, MeasurementError) as error:
            notes.append(f"{file.name}:{number}: {error}")
            continue
        found[measurement.identity[:16]] = measurement
    return found


def _trials(
    history: History,
    measurements: Mapping[str, Measurement],
    status: Mapping[str, Json],
    discreet: Discretion,
) -> Iterator[Trial]:
    """What the run was told, then what runs."""
    if not history.told:
        for number, identity in enumerate(measurements):
            told = Trial(identity, number, measurements[identity].kind, "measured")
            yield _measured(told, measurements, discreet)
    whys = {row["identity"][:16]: row["what"] for row in status.get("trials", ())}
    for trial in history.told:
        told = replace(
            trial,
            why=trial.why or whys.get(trial.identity, ""),
            said=discreet.text(trial.said),
            parameters=discreet(trial.parameters),
            failure=discreet(trial.failure),
        )
        yield _measured(told, measurements, discreet)
    if status.get("state") == "running":
        for row in status.get("running", ()):
            yield Trial(
                row["trial"],
                -1,
                row["kind"],
                "running",
                why=row["why"],
                said=f"{row['stage']} {row['note']}".strip(),
            )


def _measured(trial: Trial, measurements: Mapping[str, Measurement], discreet: Discretion) -> Trial:
    found = measurements.get(trial.identity)
    if found is None or trial.status not in ("measured", "reused"):
        return trial
    return replace(
        trial,
        repeat=found.repeat,
        parameters=discreet(found.parameters),
        metrics=found.metrics,
        data=discreet(found.data),
        environment=discreet(found.environment),
        seconds=found.seconds,
        stages=tuple(found.stages),
        node=str(found.environment.get("host", "")),
    )


def _judged(
    objective: Objective | None, baseline: Mapping[str, float] | None, trial: Trial
) -> Trial:
    if objective is None or trial.kind not in _JUDGED or not trial.metrics:
        return trial
    try:
        judgement = judge(objective, trial.metrics, baseline)
    except BaselineMissing:
        return trial
    value = judgement.objective
    if value is not None and objective.ranking is not None:
        value *= objective.ranking[1]
    satisfied = judgement.satisfied and trial.stopped is None
    return replace(trial, value=value, satisfied=satisfied)


def _devices(document: Mapping[str, Json]) -> tuple[str, float | None]:
    """What counts as a device, and how many a trial asks for; None: that differs."""
    cluster = document.get("cluster")
    asked = cluster.get("resources", {}) if isinstance(cluster, dict) else {}
    resource = next((name for name in DEVICES if name in asked), DEVICES[-1])
    amount = asked.get(resource, 1.0)
    return resource, float(amount) if isinstance(amount, int | float) else None


def _placed(trial: Trial, row: Mapping[str, Json], amount: float | None) -> Trial:
    """Devices as reported, else as measured, else as asked for."""
    known = [row.get("devices"), trial.metrics.get("devices"), amount, 1.0]
    devices = next(float(one) for one in known if one)
    return replace(trial, devices=devices, node=trial.node or str(row.get("node", "")))


def _timed(trials: list[Trial], attempts: Iterable[Attempt]) -> list[Trial]:
    """Those that left no measurement took as long as their last attempt."""
    took = {one.identity: one.carried for one in attempts}
    return [
        replace(trial, seconds=took.get(trial.identity))
        if trial.seconds is None and trial.status in ("failed", "cancelled")
        else trial
        for trial in trials
    ]


def _with_nodes(
    attempts: tuple[Attempt, ...], trials: list[Trial], discreet: Discretion
) -> Iterator[Attempt]:
    nodes = {trial.identity: trial.node for trial in trials}
    for attempt in attempts:
        node = nodes.get(attempt.identity) or attempt.address
        yield replace(attempt, node=node, failure=discreet(attempt.failure))


def _files(best: Path) -> dict[str, int]:
    """What is delivered: files, and folders with the size of what is in them."""
    found: dict[str, int] = {}
    for path in sorted(best.glob("*"))[:_MOST_FILES]:
        inside = [path] if path.is_file() else path.rglob("*")
        name = path.name if path.is_file() else f"{path.name}/"
        found[name] = sum(one.stat().st_size for one in inside if one.is_file())
    return found


def _commands(best: Path) -> dict[str, str]:
    """Texts that deploy the answer, scripts first."""
    found: dict[str, str] = {}
    paths = [*best.glob("*"), *best.glob("*/*")]
    shown = [path for path in paths if path.suffix in _SHOWN and path.name not in _UNSHOWN]
    for path in sorted(shown, key=lambda path: (_SHOWN.index(path.suffix), str(path)))[:20]:
        if path.is_file() and path.stat().st_size <= _MOST_BYTES:
            text = path.read_text(encoding="utf-8", errors="replace")
            found[str(path.relative_to(best))] = text
    return found
