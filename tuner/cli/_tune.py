"""``tune``: the flags and plan files of ``msmodelslim tune``, carried out as an experiment."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from trainables.quantization import Device
from tuner.cli._options import add_translated
from tuner.cli._run_commands import carry_out, print_plan
from tuner.compat import (
    LOG_LEVELS,
    LOG_VARIABLE,
    REPOSITORY_VARIABLE,
    TOOL_VARIABLES,
    VISIBLE,
    Problems,
    Tools,
    Translation,
    TuneRequest,
    check_translated,
    checked,
    choose_device,
    parse_command,
    parse_engine_command,
    parse_log_level,
    parse_timeout,
    parse_truth,
    path_problems,
    read_plan,
    translate,
)
from tuner.experiment import Document, Experiment, ExperimentError, read_document, to_yaml

_PACKAGES = ("tuner", "searchers", "trainables", "cluster")


def add_commands(commands: Any) -> None:
    tune = commands.add_parser("tune", help="run a plan of `msmodelslim tune`")
    tune.add_argument("--model_path", required=True, type=Path, help="the float checkpoint")
    tune.add_argument("--save_path", required=True, type=Path, help="folder for all outputs")
    tune.add_argument("-c", "--config", required=True, type=Path, help="the plan, a YAML file")
    tune.add_argument("--device", default="npu", help="npu, cpu or npu:0,1 (default: npu)")
    tune.add_argument("--device_id", nargs="+", metavar="ID", help="cards, as 0 1 2 3")
    tune.add_argument("--model_type", default="default", help="model, as msModelSlim names it")
    tune.add_argument("--timeout", help="3D4H, 1D2H30M15S or seconds (default: no bound)")
    tune.add_argument("--trust_remote_code", nargs="?", const="True", default="False")
    tune.add_argument("--log_level", choices=LOG_LEVELS, help=f"default: ${LOG_VARIABLE}, or info")
    for tool, variable in TOOL_VARIABLES.items():
        said = f"how {tool} is called (default: ${variable}, or as found in PATH)"
        tune.add_argument(f"--{tool}", metavar="COMMAND", help=said)
    add_translated(tune)
    tune.set_defaults(command=_tune)


def _tune(arguments: argparse.Namespace) -> int:
    plan, translation = _translated(arguments)
    document = Document(plan.source, translation.data, {})
    for assignment in arguments.settings:
        document.set(assignment)
    if arguments.print_experiment:
        print(_as_yaml(document.data, translation), end="")
        return 0
    for note in translation.notes:
        print(f"note: {note}", file=sys.stderr)
    experiment = check_translated(document, plan)
    if arguments.dry_run:
        print_plan(experiment)
        return 0
    _make_folder(arguments.save_path, plan)
    _set_up(arguments, experiment, translation)
    return carry_out(experiment, resume=_continues(experiment), as_json=arguments.json)


def _translated(arguments: argparse.Namespace) -> tuple[Document, Translation]:
    """The plan, and the experiment it stands for. All faults of both and of the flags at once."""
    problems: Problems = []
    request = _request(arguments, os.environ, problems)
    problems += path_problems(request.model_path, request.save_path, arguments.config)
    try:
        document = read_document(arguments.config)
    except ExperimentError as error:
        flags = Document(error.source, {}, {}).error(problems)
        raise ExperimentError(error.source, [*error.problems, *flags.problems]) from error
    plan, found = read_plan(document)
    problems += found
    if plan is None:
        raise document.error(problems)
    translation = translate(plan, request)
    if problems := [*problems, *translation.problems]:
        raise document.error(problems)
    return document, translation


def _request(
    arguments: argparse.Namespace, environment: Mapping[str, str], problems: Problems
) -> TuneRequest:
    """What the command line and the environment say; faults are noted, never raised."""
    device = checked(
        "--device",
        partial(choose_device, arguments.device, arguments.device_id),
        Device("npu"),
        problems,
    )
    timeout, trust = arguments.timeout, arguments.trust_remote_code
    if timeout is not None:
        timeout = checked("--timeout", partial(parse_timeout, timeout), None, problems)
    trusted = checked("--trust_remote_code", partial(parse_truth, trust), False, problems)
    if arguments.log_level is None:
        checked(LOG_VARIABLE, partial(parse_log_level, environment), "info", problems)
    return TuneRequest(
        model_path=arguments.model_path.expanduser().absolute(),
        save_path=arguments.save_path.expanduser().absolute(),
        device=device,
        model_type=arguments.model_type,
        timeout=timeout,
        trust_remote_code=trusted,
        tools=_tools(arguments, environment, problems),
        practice_repo=_repository(environment),
        visible=environment.get(VISIBLE),
    )


def _tools(
    arguments: argparse.Namespace, environment: Mapping[str, str], problems: Problems
) -> Tools:
    """The commands that flags name, else variables."""
    commands: dict[str, list[str] | None] = {}
    for tool, variable in TOOL_VARIABLES.items():
        flag = getattr(arguments, tool)
        place, text = (f"--{tool}", flag) if flag is not None else (variable, None)
        text = environment.get(variable) or None if text is None else text
        if text is not None:
            parse = parse_engine_command if tool == "vllm" else parse_command
            commands[tool] = checked(place, partial(parse, text), None, problems)
    return Tools(**commands)


def _repository(environment: Mapping[str, str]) -> str | None:
    folder = environment.get(REPOSITORY_VARIABLE)
    return str(Path(folder).expanduser().absolute()) if folder else None


def _as_yaml(data: Mapping[str, Any], translation: Translation) -> str:
    """The experiment with the notes as comments, and the cards as the variable to set for it."""
    notes = list(translation.notes)
    if translation.cards:
        notes.append(f"start it with {VISIBLE}={','.join(translation.cards)}")
    comments = "".join(f"# {note}\n" for note in notes)
    return comments + to_yaml(dict(data))


def _make_folder(folder: Path, plan: Document) -> None:
    try:
        folder.expanduser().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise plan.error([("--save_path", f"cannot be made: {error}")]) from error


def _set_up(
    arguments: argparse.Namespace, experiment: Experiment, translation: Translation
) -> None:
    """What a private Ray and the tools below it read from this process's environment."""
    if translation.cards and experiment.cluster.address == "local":
        os.environ[VISIBLE] = ",".join(translation.cards)
    if arguments.log_level is None:
        return
    os.environ[LOG_VARIABLE] = "DEBUG" if arguments.log_level == "debug" else "INFO"
    logging.basicConfig()
    for package in _PACKAGES:
        logging.getLogger(package).setLevel(arguments.log_level.upper())


def _continues(experiment: Experiment) -> bool:
    """Whether what lies in the folder is an earlier session of the same question.

    Measurements are reused in any case; a session can only be gone on with as it was.
    """
    try:
        before = read_document(experiment.storage / "experiment.yaml").data
    except ExperimentError:
        return False
    now = experiment.document.data
    return all(before.get(key) == now.get(key) for key in ("trial", "search", "objective"))
