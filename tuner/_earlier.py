"""Trials that ``auto_tune.py``, or an earlier run of ours, wrote down, as measurements of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from searchers import Json, Proposal
from trainables import Measurement
from tuner._foreign import ForeignLedger
from tuner._ledger import IMPORTED, Ledger
from tuner.compat.autotune import EarlierTrial, TuneResults, read_tune_results
from tuner.experiment import Experiment, ExperimentError, Problem
from tuner.views.autotune import params_of, trial_key


@dataclass(frozen=True)
class Earlier:
    """What a results file spares a run.

    Attributes:
        file: Where it stands.
        runs: Evaluations that a trial needs.
        changed: When a script of the trial was changed last, local time; an older failure may
            have been its fault.
    """

    file: Path
    results: TuneResults
    runs: int = 1
    changed: datetime | None = None

    def find(self, key: str) -> EarlierTrial | None:
        """The trial of a key, unless it has to be carried out again."""
        trial = self.results.trials.get(key)
        if trial is None:
            return None
        if trial.status == "ok":
            return trial if _ok_runs(trial, self.runs) >= self.runs else None
        stale = self.changed is not None and (trial.at is None or trial.at < self.changed)
        return None if stale else trial


def earlier_trials(experiment: Experiment) -> Earlier | None:
    """What the results file of the experiment holds; None where it is not to be reused.

    Raises ``ExperimentError`` when it cannot be read.
    """
    for index, block in enumerate(experiment.views):
        if block["type"] == "auto_tune" and block.get("reuse"):
            file = Path(block["results"])
            runs, changed = _runs(experiment), _changed(experiment)
            try:
                return Earlier(file, read_tune_results(file), runs, changed)
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or error
                said = f"{file} cannot be read: {why}; repair it, or say reuse: false"
                problem = Problem(f"views[{index}].results", said)
                raise ExperimentError(experiment.name, [problem]) from error
    return None


class EarlierLedger(ForeignLedger):
    """A ledger that also finds what a results file says of a candidate.

    A measurement found there joins the ledger, marked as imported, and takes part in every
    comparison. A failure found there is told as one that satisfies nothing, and stays out of the
    ledger. A file's word counts only for what the ledger knows nothing of: of what this run has
    measured itself, only a measurement that asks the very same question is reused.
    """

    def __init__(
        self,
        ledger: Ledger,
        earlier: Earlier,
        experiment: Experiment,
        identify: Callable[[Proposal], str],
    ) -> None:
        super().__init__(ledger, experiment, identify)
        self._earlier = earlier
        self._own = {
            trial_key(self._params(item.parameters))
            for item in ledger
            if item.kind == "candidate" and item.run_id != IMPORTED
        }

    def forget(self, identity: str) -> None:
        super().forget(identity)
        self._asked.pop(identity, None)

    def _elsewhere(self, identity: str, proposal: Proposal) -> Measurement | None:
        key = trial_key(self._params(proposal.parameters))
        trial = None if key in self._own else self._earlier.find(key)
        if trial is None:
            return None
        measurement = self._recorded(identity, proposal, trial)
        if trial.status == "ok":
            self._ledger.append(measurement)
        return measurement

    def _params(self, parameters: Mapping[str, Json]) -> dict[str, str]:
        return params_of(parameters, self._experiment)

    def _recorded(self, identity: str, proposal: Proposal, trial: EarlierTrial) -> Measurement:
        metrics, data = dict(trial.metrics), dict[str, Json]()
        if trial.status == "ok":
            metrics["ok_runs"] = float(_ok_runs(trial, self._earlier.runs))
            data = {"params": self._params(proposal.parameters)}
        else:
            data = {"note": f"{trial.status} before, and not tried again: {self._earlier.file}"}
        at = trial.at
        started = None if at is None else at.astimezone(UTC).isoformat(timespec="seconds")
        file = self._earlier.file
        return self._measurement(identity, proposal, file, metrics, data=data, started=started)


def _ok_runs(trial: EarlierTrial, wanted: int) -> int:
    """Evaluations that a trial's means are of; a record that does not say is taken to have all."""
    runs = trial.record.get("eval_ok_n")
    return runs if isinstance(runs, int) else wanted


def _runs(experiment: Experiment) -> int:
    evaluate: Any = getattr(experiment.trial.options, "evaluate", None)
    return int(getattr(evaluate, "runs", 1))


def _changed(experiment: Experiment) -> datetime | None:
    """When the youngest of the scripts that the trial's commands name was changed."""
    options: Any = experiment.trial.options
    times = []
    for block in (getattr(options, "start", None), getattr(options, "evaluate", None)):
        if block is None:
            continue
        folder = block.cwd or Path.cwd()
        files = [folder / word for word in block.command[1:] if not word.startswith("-")]
        times += [file.stat().st_mtime for file in files if file.is_file()]
    return datetime.fromtimestamp(int(max(times))).astimezone() if times else None
