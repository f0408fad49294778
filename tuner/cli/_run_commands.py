"""``run`` and ``resume``."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console

from searchers import Done
from tuner.cli._options import add_experiment, add_json
from tuner.cli._report import write_after_run
from tuner.experiment import Experiment, format_duration, load_experiment


def add_commands(commands: Any) -> None:
    run = commands.add_parser("run", help="run an experiment")
    add_experiment(run)
    add_json(run)
    run.add_argument("--dry-run", action="store_true", help="say what would run, start nothing")
    run.add_argument(
        "--resume", action="store_true", help="continue an unfinished run of this experiment"
    )
    run.set_defaults(command=_run)
    resume = commands.add_parser("resume", help="continue a run that was interrupted")
    resume.add_argument("folder", type=Path, help="the run's folder, <storage>/<name>")
    resume.add_argument("--set", dest="settings", action="append", default=[], metavar="a.b=V")
    add_json(resume)
    resume.set_defaults(command=_resume)


def _run(arguments: argparse.Namespace) -> int:
    experiment = load_experiment(arguments.experiment, arguments.settings)
    if arguments.dry_run:
        print_plan(experiment)
        return 0
    return carry_out(experiment, resume=arguments.resume, as_json=arguments.json)


def _resume(arguments: argparse.Namespace) -> int:
    from tuner._run import resolve_run_folder
    from tuner._store import RunStore

    folder = resolve_run_folder(arguments.folder.absolute())
    record = RunStore(folder).record()
    if record is not None and Path(record.cwd).is_dir():
        os.chdir(record.cwd)
    experiment = load_experiment(folder / "experiment.yaml", arguments.settings)
    return carry_out(experiment, resume=True, as_json=arguments.json)


def carry_out(experiment: Experiment, *, resume: bool, as_json: bool) -> int:
    """Run an experiment and print what came of it; the exit code."""
    from tuner._report import print_result
    from tuner._run import Session

    result = Session(experiment, resume=resume).run()
    write_after_run(experiment.storage)
    if as_json:
        print_result(result, Console(stderr=True, highlight=False))
        print(json.dumps(result.to_json(), ensure_ascii=False))
    else:
        print_result(result, Console(highlight=False))
    return result.exit_code


def print_plan(experiment: Experiment) -> None:
    """What would run: trials at most, their stages and resources, what the budget allows."""
    strategy = experiment.search.strategy()
    most, trial = _most(experiment), experiment.trial
    extra = int(experiment.objective.needs_baseline) + int(trial.verifies())
    lines = [
        f"experiment   {experiment.name}",
        f"storage      {experiment.storage}",
        f"trial        {experiment.trial_type}: {' -> '.join(trial.stage_names('candidate'))}",
        f"search       {experiment.search.type}: "
        + ("no bound of its own" if most is None else f"at most {most} trials"),
    ]
    if experiment.objective.needs_baseline:
        lines.append(f"baseline     {' -> '.join(trial.stage_names('baseline'))}")
    if trial.verifies():
        lines.append(f"verification {' -> '.join(trial.stage_names('verification'))}")
    budget = experiment.budget
    bounds = [f"{budget.trials} candidates"] if budget.trials else []
    bounds += [format_duration(budget.time)] if budget.time is not None else []
    counts = [count for count in (most, budget.trials) if count is not None]
    lines += [
        f"budget       {', '.join(bounds) or 'unlimited'}",
        f"trials       {f'at most {min(counts) + extra}' if counts else 'unbounded'}",
        f"resources    {_resources(experiment)} per trial on {experiment.cluster.address} Ray",
    ]
    first = strategy.ask()
    if not isinstance(first, Done):
        lines.append(f"first        {getattr(first, 'why', '')}")
    print("\n".join(lines))


def _most(experiment: Experiment) -> int | None:
    """Trials of the search at most; where layers are still to be ranked, as if they were."""
    most, search = experiment.search.strategy().most(), experiment.search
    groups = experiment.trial.fallback_groups()
    if most is not None or search.with_candidates is None or groups is None:
        return most
    most = search.with_candidates(groups).most()
    return None if most is None else most + 1


def _resources(experiment: Experiment) -> str:
    cluster = experiment.cluster
    parts = [
        f"{name} {amount}" if amount == "auto" else f"{name} {amount:g}"
        for name, amount in cluster.resources.items()
    ]
    return ", ".join(parts + [f"label {key}={value}" for key, value in cluster.labels.items()])
