"""The answer of a run as it was printed at its end."""

from __future__ import annotations

from tuner._report import Line, RunResult
from tuner._view import Counts
from tuner.report._answer import metric_names
from tuner.report._data import RunData

_MOST_METRICS = 14


def result_of(run: RunData) -> RunResult | None:
    """What :func:`tuner._report.print_result` prints; None while there is no verdict.

    Of a run that was read from its folder, so a signal is no longer known.
    """
    found = run.result
    if not found:
        return None
    lines = [Line(one["what"], one["metrics"], one["satisfied"]) for one in found["comparison"]]
    counts = run.status.get("counts", {})
    names = metric_names(run, [line.metrics for line in lines])
    return RunResult(
        name=run.name,
        verdict=found["verdict"],
        message=found["message"],
        best=found["best"],
        objective=found["objective"],
        lines=tuple(lines),
        counts=Counts(**{name: counts.get(name, 0) for name in vars(Counts())}),
        storage=found["storage"],
        delivered=found["delivered"],
        notes=tuple(found["notes"]),
        headlines=tuple(names[:_MOST_METRICS]),
        front=tuple((one["parameters"], one["metrics"]) for one in found["front"]),
    )
