"""The answer of a run: for a person, for a program, for the exit code."""

from __future__ import annotations

import signal as signals
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from searchers import Proposal
from trainables import Measurement
from tuner._campaign import Campaign
from tuner._fitness import fitness
from tuner._front import pareto_front
from tuner._gain import gain_note
from tuner._judge import BaselineMissing, judge
from tuner._ledger import Ledger
from tuner._view import Counts
from tuner._words import five_digits
from tuner.experiment import Experiment, Objective

_EXIT_CODES = {"satisfied": 0, "failed": 1, "exhausted": 3, "budget": 4}


@dataclass(frozen=True)
class Line:
    """One row of the final comparison."""

    what: str
    metrics: Mapping[str, float]
    satisfied: bool | None


@dataclass(frozen=True)
class RunResult:
    """What a session came to.

    Attributes:
        verdict: ``satisfied``, ``exhausted``, ``budget``, ``interrupted`` or ``failed``.
        best: Parameters of the winner; None when there is none.
        objective: The winner's value of what is maximised or minimised; None for pure demands.
        lines: Baseline, unchanged start, winner and verification side by side.
        notes: What the user should know beside the verdict, such as deviations in the data.
        headlines: The metrics to show; None: all.
        front: With several objectives, parameters and metrics of each point of the Pareto front.
    """

    name: str
    verdict: str
    message: str
    best: Mapping[str, Any] | None
    objective: float | None
    lines: tuple[Line, ...]
    counts: Counts
    storage: str
    delivered: str | None
    signal: int | None = None
    notes: tuple[str, ...] = field(default=())
    headlines: tuple[str, ...] | None = None
    front: tuple[tuple[Mapping[str, Any], Mapping[str, float]], ...] = ()

    @property
    def exit_code(self) -> int:
        if self.verdict == "interrupted":
            return 128 + (self.signal or signals.SIGINT)
        return _EXIT_CODES[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """The object of ``--json``."""
        return {
            "verdict": self.verdict,
            "message": self.message,
            "best": None if self.best is None else dict(self.best),
            "objective": self.objective,
            "trials_run": self.counts.measured,
            "reused": self.counts.reused,
            "failed": self.counts.failed,
            "cancelled": self.counts.cancelled,
            "storage": self.storage,
            "delivered": self.delivered,
            "notes": list(self.notes),
            "front": [
                {"parameters": dict(parameters), "metrics": dict(metrics)}
                for parameters, metrics in self.front
            ],
            "comparison": [
                {"what": line.what, "metrics": dict(line.metrics), "satisfied": line.satisfied}
                for line in self.lines
            ],
        }

    def last_line(self) -> str:
        """Verdict, what was delivered, and where, in one line."""
        said = f"{self.verdict}: {self.message}" if self.message else self.verdict
        where = f"delivered in {self.delivered}" if self.delivered else f"records in {self.storage}"
        return f"{said.rstrip('.')}; {where}"


def summarize(
    *,
    verdict: str,
    best: Proposal | None,
    message: str,
    verified: Measurement | None,
    experiment: Experiment,
    ledger: Ledger,
    campaign: Campaign,
    counts: Counts,
    signal: int | None,
) -> RunResult:
    """Gather the answer of a session from its measurements."""
    delivers = best is not None and verdict in ("satisfied", "budget")
    lines = _lines(best if delivers else None, verified, experiment, ledger, campaign)
    return RunResult(
        name=experiment.name,
        verdict=verdict,
        message=message,
        best=None if best is None else dict(best.parameters),
        objective=_objective(experiment.objective, lines, campaign.baseline) if delivers else None,
        lines=tuple(lines),
        counts=counts,
        storage=str(experiment.storage),
        delivered=str(experiment.storage / "best") if delivers else None,
        signal=signal,
        notes=(*_unmeasured(ledger, campaign), *_notes(experiment.objective, verified, campaign)),
        headlines=_headlines(experiment),
        front=tuple(
            (item.parameters, item.metrics)
            for item in pareto_front(
                _candidates(ledger, campaign), experiment.objective, campaign.baseline
            )
        ),
    )


def print_result(result: RunResult, console: Console) -> None:
    """The comparison table, the winner's parameters, and the last line."""
    if result.lines:
        console.print(_table(result.lines, result.headlines))
    if result.best is not None:
        for name, value in result.best.items():
            shown = value if isinstance(value, list) else [value]
            console.print(f"{name} ({len(shown)}):" if isinstance(value, list) else f"{name}:")
            for item in shown:
                console.print(f"  {item}")
    for parameters, metrics in result.front:
        told = [name for name in result.headlines or metrics if name in metrics][:4]
        named = ", ".join(f"{name} {five_digits(metrics[name])}" for name in told)
        console.print(f"Pareto front: {dict(parameters)}: {named}")
    for note in result.notes:
        console.print(note)
    counts = result.counts
    console.print(
        f"trials: {counts.measured} measured, {counts.reused} reused, {counts.failed} failed, "
        f"{counts.cancelled} cancelled"
    )
    console.print(result.last_line(), soft_wrap=True)


def _lines(
    best: Proposal | None,
    verified: Measurement | None,
    experiment: Experiment,
    ledger: Ledger,
    campaign: Campaign,
) -> list[Line]:
    objective, baseline = experiment.objective, campaign.baseline
    lines = []
    if baseline is not None:
        lines.append(Line("baseline", baseline, None))
    for measurement in sorted(_candidates(ledger, campaign), key=_plain, reverse=True):
        parameters = dict(measurement.parameters)
        is_best = best is not None and parameters == dict(best.parameters)
        if not (is_best or _plain(measurement)):
            continue
        what = "no fallback" if _plain(measurement) else "best"
        lines.append(Line(what, measurement.metrics, _satisfied(objective, measurement, baseline)))
    if verified is not None:
        satisfied = _satisfied(objective, verified, baseline)
        lines.append(Line("verified", verified.metrics, satisfied))
    return lines


def _notes(
    objective: Objective, verified: Measurement | None, campaign: Campaign
) -> tuple[str, ...]:
    """What the winner gains; where the baseline itself won, the message says so."""
    ranking, baseline = objective.ranking, campaign.baseline
    if objective.fitness is not None:
        ranking = (objective.fitness.metrics[0], 1)
    if ranking is None or verified is None or baseline is None:
        return ()
    note = gain_note(ranking, verified.metrics, baseline)
    if note is None:
        return ()
    checks = judge(objective, baseline, baseline).checks
    broken = "; ".join(str(check) for check in checks if not check.ok)
    return (note, f"the baseline itself fails: {broken}") if broken else (note,)


def _unmeasured(ledger: Ledger, campaign: Campaign) -> tuple[str, ...]:
    """What has to be known of a run whose engine was simulated."""
    known = campaign.identities()
    if not any("simulation" in item.data for item in ledger if item.identity in known):
        return ()
    return ("all numbers are simulated; measure the winner before you rely on it",)


def _plain(measurement: Measurement) -> bool:
    return measurement.parameters.get("fallback") == []


def _candidates(ledger: Ledger, campaign: Campaign) -> Iterable[Measurement]:
    known = campaign.identities()
    return (item for item in ledger if item.kind == "candidate" and item.identity in known)


def _satisfied(
    objective: Objective, measurement: Measurement, baseline: Mapping[str, float] | None
) -> bool | None:
    try:
        return judge(objective, measurement.metrics, baseline).satisfied
    except BaselineMissing:
        return None


def _objective(
    objective: Objective, lines: Sequence[Line], baseline: Mapping[str, float] | None
) -> float | None:
    """The winner's value as measured last; its lines stand at the end."""
    if objective.ranking is None or not lines:
        return None
    winner = lines[-1].metrics
    if objective.fitness is not None:
        return fitness(winner, objective.fitness, baseline)
    return winner.get(objective.ranking[0])


def _headlines(experiment: Experiment) -> tuple[str, ...] | None:
    """What the objective names, then what the trial type wants shown."""
    headlines, objective = experiment.trial.headlines(), experiment.objective
    if headlines is None:
        return None
    named = [name for name, _ in objective.goal().objectives]
    named += [limit.metric for limit in objective.limits]
    return tuple(dict.fromkeys([*named, *headlines]))


def _table(lines: Iterable[Line], headlines: Sequence[str] | None = None) -> Table:
    """Metrics down, measurements across: names of metrics are long, measurements are few."""
    rows = list(lines)
    names = dict.fromkeys(name for line in rows for name in line.metrics if "_se" not in name)
    if headlines is not None:
        names = dict.fromkeys(name for name in headlines if name in names)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for line in rows:
        table.add_column(line.what, justify="right")
    for name in names:
        values = [line.metrics.get(name) for line in rows]
        table.add_row(name, *("" if value is None else five_digits(value) for value in values))
    met = {True: "met", False: "not met", None: ""}
    table.add_row("demand", *(met[line.satisfied] for line in rows))
    return table
