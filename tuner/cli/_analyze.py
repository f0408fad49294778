"""``analyze``: which layers suffer most from the scheme of an experiment."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import Any

from tuner.cli._options import add_experiment, add_json
from tuner.experiment import Objective, Search, load_experiment


def add_commands(commands: Any) -> None:
    analyze = commands.add_parser("analyze", help="rank the layers by sensitivity")
    add_experiment(analyze)
    add_json(analyze)
    analyze.set_defaults(command=_analyze)


def _analyze(arguments: argparse.Namespace) -> int:
    from tuner._once import Once
    from tuner._run import RunError, Session

    experiment = load_experiment(arguments.experiment, arguments.settings)
    if not experiment.trial.stage_names("analysis"):
        raise RunError(f"trial type {experiment.trial_type} has no layers to analyze")
    search = Search("analyze", lambda: Once("analysis", "which layers suffer most"))
    only = replace(experiment, search=search, objective=Objective.model_construct())
    session = Session(only, resume=False)
    result = session.run()
    ranking = session.data_of("analysis")
    if ranking is None:
        print(result.last_line(), file=sys.stderr)
        return result.exit_code
    for line in experiment.trial.show_analysis(ranking, experiment.storage / "analysis"):
        print(line)
    if arguments.json:
        print(json.dumps(ranking))
    return 0
