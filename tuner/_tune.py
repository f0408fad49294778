"""Ray Tune carries the trials: starting, watching, restoring its experiment."""

# mypy: allow-subclassing-any

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ray import tune
from ray.tune.schedulers import FIFOScheduler

from cluster import Storage
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
_MOST_AT_ONCE = 10_000
_WORKER_DEATHS = 2
"""How often Ray itself starts a trial again whose worker or node died."""


TrialNews: TypeAlias = Literal["restored", "begun", "again"]


@dataclass(frozen=True)
class Job:
    """What Ray Tune is to carry out.

    Attributes:
        key: Names the run in this process; a restored searcher finds its strategy by it.
        folder: Parent of Ray's experiment folders, shared by all nodes.
        strategy: Whose proposals become trials; its width is how many at once.
        to_config: The Ray trial's config of a proposal, JSON; or the outcome of one that no node
            can ever hold.
        to_outcome: What a finished Ray trial means: (proposal, last result, errored).
        has_room: Whether one more trial can begin now.
        on_begin: Called once Ray's loop has begun.
        on_report: Hears every report of every trial.
        on_tick: Called about ten times a second while trials run.
        on_trial: Hears the config of a trial that was in flight when a session ended
            (``restored``), that begins on its nodes (``begun``), or that Ray starts anew after its
            worker or node died (``again``).
        given_up: Identities of trials that are not to wait for nodes any longer.
        storage: Where ``folder`` is.
    """

    key: str
    folder: Path
    strategy: Strategy
    to_config: Callable[[Proposal], dict[str, Any] | Outcome]
    to_outcome: Callable[[Proposal, Mapping[str, Any] | None, bool], Outcome]
    has_room: Callable[[], bool]
    on_begin: Callable[[], None]
    on_report: Callable[[Mapping[str, Any]], None]
    on_tick: Callable[[], None]
    on_trial: Callable[[TrialNews, Mapping[str, Any]], None]
    given_up: Callable[[], Collection[str]]
    storage: Storage


def carry_out(job: Job, *, restore: bool) -> bool:
    """Run the strategy's proposals as Ray trials until it is done or a signal ends the run.

    With ``restore``, the last experiment in the folder is continued if its snapshot is whole;
    otherwise a new one is begun, and what the strategy knows from elsewhere carries the resume.
    Returns whether a snapshot was restored. Raises the strategy's own exception if it failed.
    """
    os.environ.update(_SETTINGS)
    searcher = TuneSearcher.bind(job.key, job.strategy, job.to_config, job.to_outcome, job.has_room)
    loop = _LOOPS[job.key] = _Loop(job)
    try:
        experiment = _newest(job.folder)
        whole = restore and experiment is not None and snapshot_fault(experiment) is None
        with _quiet():
            tuner = job.storage.do(lambda: _tuner(job, searcher, experiment if whole else None))
            _fit(tuner, loop)
    finally:
        _LOOPS.pop(job.key, None)
        TuneSearcher.unbind(job.key)
    if searcher.fault is not None:
        raise searcher.fault
    return bool(whole)


def _tuner(job: Job, searcher: Any, experiment: Path | None) -> Any:
    if experiment is None:
        return _new_tuner(job, searcher)
    return tune.Tuner.restore(str(experiment), Trial, resume_unfinished=True)


def _fit(tuner: Any, loop: _Loop) -> None:
    """Ray's loop. What Ray reads of its own files after it, nobody here wants to know."""
    try:
        tuner.fit()
    except Exception:
        if not loop.left:
            raise


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
            # Bounds what Ray asks for at once. How many there really are the searcher decides.
            max_concurrent_trials=_MOST_AT_ONCE,
            scheduler=_Scheduler(job.key),
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


@dataclass
class _Loop:
    """Where Ray's loop of a job is.

    Attributes:
        steps: Begun ones.
        whole: Those of them that came to their end.
    """

    job: Job
    steps: int = 0
    whole: int = 0

    @property
    def left(self) -> bool:
        """Whether an exception after which this is asked did not come out of the loop."""
        return self.steps == self.whole > 0


_LOOPS: dict[str, _Loop] = {}


class _Hooks(tune.Callback):
    """Passes on what Ray Tune reports; pickles as the job's key, so a restored one finds it."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __reduce__(self) -> tuple[type[_Hooks], tuple[str]]:
        return _Hooks, (self._key,)

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        if loop := _LOOPS.get(self._key):
            loop.steps += 1
            if loop.steps == 1:
                loop.job.on_begin()
        if iteration == 0:
            for trial in trials:
                if not trial.is_finished():
                    self._tell("restored", trial)

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._tell("begun", trial)

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._tell("again", trial)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        if loop := _LOOPS.get(self._key):
            loop.job.on_report(result)

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        if loop := _LOOPS.get(self._key):
            loop.job.on_tick()
            loop.whole += 1

    def _tell(self, news: TrialNews, trial: Any) -> None:
        if loop := _LOOPS.get(self._key):
            loop.job.on_trial(news, trial.config)


class _Scheduler(FIFOScheduler):
    """Lets every trial run, ends those that wait for nodes in vain, and has Ray forget those that
    are over; pickles like the hooks.

    Ray keeps every trial for ever, goes through all of them at every step, and writes all of them
    (15 KB each) into its snapshot every two seconds. Nothing of that is needed here: what was
    measured is in the ledger, and a restored experiment only goes on with what was unfinished.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key
        self._over: list[Any] = []
        self._controller: Any = None

    def __reduce__(self) -> tuple[type[_Scheduler], tuple[str]]:
        return _Scheduler, (self._key,)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
        self._over.append(trial)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._over.append(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None: Ray starts what is pending in its order, without going through all trials."""
        controller = tune_controller._tune_controller
        if self._controller is not controller:
            self._controller = controller
            _spare(controller._checkpoint_manager)
        self._over = [trial for trial in self._over if not _forget(controller, trial)]
        loop = _LOOPS.get(self._key)
        given_up = loop.job.given_up() if loop else ()
        if given_up:
            for trial in list(controller.get_live_trials()):
                waits = trial.status == trial.PENDING
                if waits and trial.config.get("spec", {}).get("identity") in given_up:
                    controller.stop_trial(trial)


def _forget(controller: Any, trial: Any) -> bool:
    """Whether a trial was over for good, and Ray knows it no more."""
    if trial.status != trial.TERMINATED or trial in controller._trial_to_actor:
        return False
    if trial in controller._trials:
        controller._trials.remove(trial)
    controller._trial_metadata.pop(trial.trial_id, None)
    controller._trials_to_cache.discard(trial)
    controller._stopped_trials.discard(trial)
    return True


def _spare(manager: Any) -> None:
    """Let a snapshot that cannot be written now be written later: Ray would end the experiment,
    which can do without."""
    write = manager.sync_up_experiment_state

    def attempt(*arguments: Any, **options: Any) -> None:
        with suppress(OSError):
            write(*arguments, **options)

    manager.sync_up_experiment_state = attempt


class _Silent(tune.CLIReporter):
    """Leaves the terminal to us."""

    def should_report(self, trials: Any, done: bool = False) -> bool:
        return False


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray's own warnings are for Ray's users; ours hear what matters from us."""
    loggers = [logging.getLogger(name) for name in ("ray", "searchers.ray")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
