"""The two commands of a trial, with their variables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster import ProcessTree, child_environment
from trainables._program import StageError
from trainables._trial import Json, TrialFailure, TrialRun
from trainables.engines._engine import Deployment, Launch
from trainables.engines._foreign import ForeignEngine, ForeignOptions
from trainables.engines._proof import base_url
from trainables.engines._substitution import in_list, variables
from trainables.script._options import ScriptTrialOptions
from trainables.script._preset import rouge_preset

_RUN_VARIABLES = ("EVAL_RUN", "EVAL_FOLDER")


class StartCommand(ForeignEngine):
    """The start command, seen as an engine of which only its health path is known."""

    def __init__(self, options: ScriptTrialOptions, *, to_keep: bool = False) -> None:
        """``to_keep``: without what only makes tuning faster."""
        first, last = options.ready.statuses
        known = ForeignOptions(
            type="script",
            host=options.host,
            port=options.port,
            health_check_endpoint=options.ready.path,
            ready_statuses=f"{first}-{last}",
            models_path=None,
            completions_path=None,
            startup_timeout=options.ready.timeout,
        )
        super().__init__(known)
        self._trial = options
        self._own = {} if to_keep else _unless_set(options)

    def launch(self, deployment: Deployment) -> Launch:
        start = self._trial.start
        given = {
            **self._trial.constants,
            **start.env,
            **deployment.env,
            **told(self._trial, deployment),
        }
        env, unset = variables(self._own, given)
        return Launch(_argv(start.command, given), env, unset, start.cwd)

    def identity(self) -> Json:
        return {"command": self._trial.start.command}


def told(options: ScriptTrialOptions, deployment: Deployment) -> dict[str, Json]:
    """What the deployment decides, for both commands."""
    where = {"HOST": deployment.host, "BASE_URL": base_url(deployment)}
    return {options.port_env: deployment.port, **where}


def decided(options: ScriptTrialOptions) -> frozenset[str]:
    """Variables that no parameter or constant may have the name of."""
    return frozenset({options.port_env, "HOST", "BASE_URL", *_RUN_VARIABLES})


def evaluation(
    options: ScriptTrialOptions, deployment: Deployment, number: int, folder: Path
) -> tuple[Launch, Mapping[str, Json]]:
    """How a run of the evaluation is started, and what ``$NAME`` stands for in it."""
    evaluate = options.evaluate
    given = {
        **options.constants,
        **evaluate.env,
        **deployment.env,
        **told(options, deployment),
        **dict(zip(_RUN_VARIABLES, (number, str(folder)), strict=True)),
    }
    env, unset = variables({}, given)
    cwd = evaluate.cwd or options.start.cwd
    return Launch(_argv(evaluate.command, given), env, unset, cwd), given


def spawn(trial: TrialRun, launch: Launch, log: Path, *, stage: str, key: str) -> ProcessTree:
    """Start a command of the trial. ``key`` is the block of the experiment that it is from."""
    label = f"{trial.label}-{stage}"
    environment = child_environment(trial.spec.run_id, label, launch.env)
    for name in launch.unset:
        environment.pop(name, None)
    cwd = launch.cwd or trial.folder
    try:
        return ProcessTree.start(
            launch.argv,
            env=environment,
            cwd=cwd,
            log=log,
            run_id=trial.spec.run_id,
            label=label,
        )
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
        raise TrialFailure(
            "input",
            stage,
            f"{launch.argv[0]} cannot be started in {cwd}: {error.strerror}",
            suggestion=f"check {key}.command and {key}.cwd on the node of the trial",
        ) from error


def _argv(command: Sequence[str], given: Mapping[str, Json]) -> tuple[str, ...]:
    try:
        return tuple(in_list(command, given))
    except ValueError as error:
        raise StageError("input", str(error)) from None


def _unless_set(options: ScriptTrialOptions) -> dict[str, str]:
    if options.preset != "rouge":
        return {}
    known = rouge_preset().unless_set
    return {name: value for name, value in known.items() if name not in os.environ}
