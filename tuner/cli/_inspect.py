"""Commands that only look: ``status``, ``validate``, ``schema``, ``doctor``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from tuner.cli._options import add_experiment, add_json
from tuner.experiment import load_experiment


def add_commands(commands: Any) -> None:
    status = commands.add_parser("status", help="what a run is doing, or came to")
    status.add_argument("folder", type=Path, help="the run's folder, <storage>/<name>")
    status.add_argument("--watch", action="store_true", help="renew it until the run has ended")
    add_json(status)
    status.set_defaults(command=_status)
    validate = commands.add_parser("validate", help="check an experiment file, start nothing")
    add_experiment(validate)
    validate.set_defaults(command=_validate)
    schema = commands.add_parser("schema", help="JSON schema of experiment files, for editors")
    schema.set_defaults(command=_schema)
    doctor = commands.add_parser("doctor", help="what is installed, what is missing for what")
    doctor.add_argument(
        "--cluster", metavar="ADDRESS", help="look at all nodes of a cluster: auto, or host:port"
    )
    doctor.add_argument(
        "--experiment", type=Path, metavar="FILE", help="with --cluster: look at what it needs"
    )
    add_json(doctor)
    doctor.set_defaults(command=_doctor)


def _status(arguments: argparse.Namespace) -> int:
    from tuner._run import resolve_run_folder
    from tuner._status import describe_status, read_status

    folder = resolve_run_folder(arguments.folder.absolute())
    if arguments.watch:
        from tuner._status_watch import watch_status

        console = Console(stderr=arguments.json, highlight=False)
        try:
            status = watch_status(folder, console)
        except KeyboardInterrupt:
            return 0
        if arguments.json:
            print(json.dumps(status))
        return 0
    status = read_status(folder)
    print(json.dumps(status) if arguments.json else describe_status(status))
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    experiment = load_experiment(arguments.experiment, arguments.settings)
    print(f"{arguments.experiment}: valid ({experiment.trial_type}, {experiment.search.type})")
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    from tuner.experiment import experiment_schema

    print(json.dumps(experiment_schema(), indent=2))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    if arguments.cluster is not None:
        return _doctor_cluster(arguments)
    from tuner._doctor import examine, print_findings

    findings = examine()
    if arguments.json:
        print(json.dumps([vars(finding) for finding in findings]))
    else:
        print_findings(findings)
    return 0


def _doctor_cluster(arguments: argparse.Namespace) -> int:
    from tuner._doctor_nodes import examine_cluster, print_cluster

    file = arguments.experiment
    report = examine_cluster(arguments.cluster, None if file is None else load_experiment(file, []))
    if arguments.json:
        print(json.dumps(report.to_json()))
    else:
        print_cluster(report, Console(highlight=False))
    return 0 if report.ok else 1
