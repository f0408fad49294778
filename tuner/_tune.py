"""Ray Tune carries the trials: starting, watching, restoring its experiment."""

# mypy: allow-subclassing-any

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from searchers import Outcome, Proposal, Strategy
from searchers.ray import TuneSearcher
from trainables.ray import Trial

_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "2",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
}
_MOST_TRIALS = 1_000_000
_WORKER_DEATHS = 2
"""How often Ray itself starts a trial again whose worker or node died."""


@dataclass(frozen=True)
class Job:
    """What Ray Tune is to carry out.

    Attributes:
        key: Names the run in this process; a restored searcher finds its strategy by it.
        folder: Parent of Ray's experiment folders, shared by all nodes.
        strategy: Whose proposals become trials.
        to_config: The Ray trial's config of a proposal; JSON.
        to_outcome: What a finished Ray trial means: (proposal, last result, errored).
        width: Trials at once.
        on_report: Hears every report of every trial.
        on_tick: Called about ten times a second while trials run.
    """

    key: str
    folder: Path
    strategy: Strategy
    to_config: Callable[[Proposal], dict[str, Any]]
    to_outcome: Callable[[Proposal, Mapping[str, Any] | None, bool], Outcome]
    width: int
    on_report: Callable[[Mapping[str, Any]], None]
    on_tick: Callable[[], None]


def carry_out(job: Job, *, restore: bool) -> bool:
    """Run the strategy's proposals as Ray trials until it is done or a signal ends the run.

    With ``restore``, the last experiment in the folder is continued if its snapshot is whole;
    otherwise a new one is begun, and what the strategy knows from elsewhere carries the resume.
    Returns whether a snapshot was restored. Raises the strategy's own exception if it failed.
    """
    os.environ.update(_SETTINGS)
    searcher = TuneSearcher.bind(job.key, job.strategy, job.to_config, job.to_outcome)
    _JOBS[job.key] = job
    try:
        experiment = _newest(job.folder)
        whole = restore and experiment is not None and snapshot_fault(experiment) is None
        if whole:
            tuner = tune.Tuner.restore(str(experiment), Trial, resume_unfinished=True)
        else:
            tuner = _new_tuner(job, searcher)
        with _quiet():
            tuner.fit()
    finally:
        _JOBS.pop(job.key, None)
        TuneSearcher.unbind(job.key)
    if searcher.fault is not None:
        raise searcher.fault
    return bool(whole)


def snapshot_fault(experiment: Path) -> str | None:
    """Why a Ray Tune experiment folder must not be restored; None if it is whole.

    Ray's own restore fails open: of a torn snapshot it makes an empty or partial experiment that
    ends without an error. So everything it will read is read here first, and the searcher's idea
    of what is in flight has to be the same as Ray's.
    """
    states = sorted(experiment.glob("experiment_state-*.json"))
    if not states:
        return "there is no experiment state"
    session = states[-1].stem.removeprefix("experiment_state-")
    try:
        state = json.loads(states[-1].read_text())
        trials = [json.loads(trial) for trial, _ in state["trial_data"]]
        unfinished = {
            trial["trial_id"] for trial in trials if trial["status"] not in ("TERMINATED", "ERROR")
        }
        searcher = json.loads((experiment / f"searcher-state-{session}.pkl").read_text())
        for name in (f"search_gen_state-{session}.json", "tuner.pkl"):
            if not (experiment / name).stat().st_size:
                return f"{name} is empty"
        with (experiment / f"search_gen_state-{session}.json").open("rb") as stream:
            pickle.load(stream)
        live = set(searcher["live"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        return f"{type(error).__name__}: {error}"
    if live != unfinished:
        return f"Ray has {sorted(unfinished)} in flight, the searcher {sorted(live)}"
    return None


def _newest(folder: Path) -> Path | None:
    experiments = [path for path in folder.glob("*/") if (path / "tuner.pkl").exists()]
    return max(experiments, key=lambda path: path.stat().st_mtime, default=None)


def _new_tuner(job: Job, searcher: Any) -> Any:
    job.folder.mkdir(parents=True, exist_ok=True)
    count = sum(1 for _ in job.folder.glob(f"{job.key}-*"))
    return tune.Tuner(
        Trial,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=_MOST_TRIALS,
            max_concurrent_trials=job.width,
            reuse_actors=True,
            trial_dirname_creator=_trial_dirname,
            trial_name_creator=_trial_dirname,
        ),
        run_config=tune.RunConfig(
            name=f"{job.key}-{count}",
            storage_path=str(job.folder),
            failure_config=tune.FailureConfig(max_failures=_WORKER_DEATHS),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=[_Hooks(job.key)],
            progress_reporter=_Silent(),
            verbose=0,
        ),
    )


def _trial_dirname(trial: Any) -> str:
    spec = trial.config.get("spec", {})
    return f"{spec.get('kind', 'trial')}-{spec.get('identity', '')[:8]}-{trial.trial_id}"


_JOBS: dict[str, Job] = {}


class _Hooks(tune.Callback):
    """Passes on what Ray Tune reports; pickles as the job's key, so a restored one finds it."""

    def __init__(self, key: str) -> None:
        self._key = key

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        if job := _JOBS.get(self._key):
            job.on_report(result)

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        if job := _JOBS.get(self._key):
            job.on_tick()


class _Silent(tune.CLIReporter):
    """Leaves the terminal to us."""

    def should_report(self, trials: Any, done: bool = False) -> bool:
        return False


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray's own warnings are for Ray's users; ours hear what matters from us."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
