"""One configuration of a serving or disaggregated experiment, simulated: numbers, picture, trace.

Apart from the package, because it is for people who look at one run, not for searches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import write_json
from trainables._extras import how_to_install, missing_modules
from trainables._program import StageError
from trainables._trial import Json, Result, TrialFailure, TrialRun, TrialSpec
from trainables._types import TrialType
from trainables.engines._simulated import TYPE
from trainables.serving._served import ServedTrial
from trainables.serving._simulated_service import Played
from trainables.serving._timeline import write_pictures
from trainables.serving._trace import write_trace

__all__ = ["SimulationReport", "simulate_trial", "write_report"]


@dataclass(frozen=True)
class SimulationReport:
    """What a simulated configuration came to.

    Attributes:
        parameters: Of the configuration.
        metrics: Of its full run, as a trial would report them.
        data: As in the trial's measurement: ``runs``, ``note``, ``simulation``.
        played: The run that the metrics are of.
    """

    parameters: Mapping[str, Json]
    metrics: Mapping[str, float]
    data: Mapping[str, Any]
    played: Played

    @property
    def speed_up(self) -> float:
        """Virtual time over wall time, of all runs together."""
        simulation = self.data["simulation"]
        return float(simulation["virtual_s"] / max(simulation["wall_s"], 1e-9))


def simulate_trial(
    trial: TrialType, parameters: Mapping[str, Json], folder: Path
) -> SimulationReport:
    """Carry out one configuration of an experiment whose engine is simulated.

    Args:
        parameters: Those of the configuration.
        folder: Where a trial's files would lie; made.

    Raises:
        StageError: It is no such experiment, or the configuration cannot be simulated.
    """
    if not isinstance(trial, ServedTrial) or trial.options.engine.get("type") != TYPE:
        said = "only experiments whose engine is simulated can be played"
        raise StageError("input", said, "say engine: {type: simulated, of: ..., latency: ...}")
    rejects = trial.options.early_rejection.model_copy(update={"windows": False})
    options = trial.options.model_copy(update={"final_repeats": 1, "early_rejection": rejects})
    once = type(trial)(options)
    once.goal = trial.goal
    folder.mkdir(parents=True, exist_ok=True)
    spec = TrialSpec(
        "simulate", "simulate", str(folder), options.type, "baseline", parameters, 0, {}
    )
    try:
        result = _carried_out(once, TrialRun(spec))
    except TrialFailure as failure:
        raise StageError(failure.failure, str(failure), failure.suggestion) from failure
    assert once.played is not None
    return SimulationReport(dict(parameters), result.metrics, result.data, once.played)


def write_report(
    report: SimulationReport,
    folder: Path,
    *,
    title: str,
    limits: Mapping[str, float],
    pictures: bool = True,
) -> Sequence[str]:
    """Write ``simulation.json``, ``trace.json``, ``timeline.png`` and ``timeline.svg``.

    Args:
        limits: Upper bounds of the objective by metric, to be drawn.

    Returns: What was written and what was not, a line each.
    """
    played = report.played
    document = {
        "parameters": dict(report.parameters),
        "real_evaluation": False,
        "metrics": dict(report.metrics),
        "speed_up": report.speed_up,
        **{key: report.data[key] for key in ("simulation", "runs", "note") if key in report.data},
    }
    write_json(folder / "simulation.json", document)
    write_trace(played.simulated, folder / "trace.json")
    lines = [f"numbers:  {folder / 'simulation.json'}"]
    lines.append(f"trace:    {folder / 'trace.json'} (open it in ui.perfetto.dev)")
    if not pictures:
        return lines
    if missing_modules("picture"):
        return [*lines, f"no picture: needs matplotlib; {how_to_install('simulate')}"]
    files = [folder / "timeline.png", folder / "timeline.svg"]
    write_pictures(played.simulated, title, limits, files)
    return [*lines, f"picture:  {files[0]} (and .svg)"]


def _carried_out(trial: ServedTrial, run: TrialRun) -> Result:
    steps = trial.run(run)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
