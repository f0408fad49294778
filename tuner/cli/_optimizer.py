"""``optimizer``: flags and config.toml of ``msserviceprofiler optimizer``, as an experiment."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tuner.cli._options import add_translated
from tuner.cli._run_commands import carry_out, print_plan
from tuner.compat import (
    TOOL_VARIABLES,
    Problems,
    Tools,
    checked,
    parse_command,
    parse_engine_command,
    parse_truth,
)
from tuner.compat.serviceparam import (
    LOG_VARIABLE,
    Configuration,
    OptimizerRequest,
    OptimizerTranslation,
    SettingsError,
    check_optimizer,
    data_storage_files,
    has_npu,
    parse_level,
    read_settings,
    request_problems,
    simulated,
    simulation_asked,
    translate_settings,
)
from tuner.experiment import Document, ExperimentError, read_document, to_yaml

_PACKAGES = ("tuner", "searchers", "trainables", "cluster")
_TOOLS = ("vllm", "ais_bench")


def add_commands(commands: Any) -> None:
    parser = commands.add_parser(
        "optimizer", help="run a config.toml of `msserviceprofiler optimizer`"
    )
    parser.add_argument("-lb", "--load_breakpoint", action="store_true", help="go on where it was")
    parser.add_argument("-d", "--deploy_policy", choices=("single", "multiple"), default="single")
    parser.add_argument("--backup", nargs="?", const="True", default="False", metavar="True|False")
    parser.add_argument("-b", "--benchmark_policy", default="ais_bench", metavar="BENCHMARK")
    parser.add_argument("-e", "--engine", default="mindie", help="mindie or vllm")
    parser.add_argument("--pd", choices=("competition", "disaggregation"), default="competition")
    parser.add_argument("-c", "--config", type=Path, help="TOML file that counts most")
    parser.add_argument(
        "--native",
        action="store_true",
        help="search the load in each trial, and maximise throughput within the SLO",
    )
    parser.add_argument("--search", metavar="TYPE", help="strategy (default: particle_swarm)")
    parser.add_argument("--device", choices=("npu", "cpu"), help="default: npu where there is one")
    for tool in _TOOLS:
        said = f"how {tool} is called (default: ${TOOL_VARIABLES[tool]}, or as found in PATH)"
        parser.add_argument(f"--{tool}", metavar="COMMAND", help=said)
    add_translated(parser)
    parser.set_defaults(command=_optimizer)


def _optimizer(arguments: argparse.Namespace) -> int:
    configuration, translation = _translated(arguments)
    document = Document("config.toml", translation.data, {})
    for assignment in arguments.settings:
        document.set(assignment)
    resume = arguments.load_breakpoint and _load_breakpoint(document, translation)
    if arguments.print_experiment:
        comments = "".join(f"# {note}\n" for note in translation.notes)
        print(comments + to_yaml(document.data), end="")
        return 0
    for note in translation.notes:
        print(f"note: {note}", file=sys.stderr)
    experiment = check_optimizer(
        document,
        configuration,
        arguments.engine,
        arguments.benchmark_policy,
        disaggregated=arguments.pd == "disaggregation",
    )
    if arguments.dry_run:
        print_plan(experiment)
        return 0
    _set_level(os.environ)
    return carry_out(experiment, resume=resume, as_json=arguments.json)


def _translated(arguments: argparse.Namespace) -> tuple[Configuration, OptimizerTranslation]:
    """The settings and the experiment they stand for. All faults of them and of the flags."""
    environment = os.environ
    problems = request_problems(
        arguments.engine,
        arguments.benchmark_policy,
        arguments.deploy_policy,
        arguments.pd,
    )
    backup = checked("--backup", partial(parse_truth, arguments.backup), False, problems)
    checked(LOG_VARIABLE, partial(parse_level, environment), None, problems)
    tools = _tools(arguments, environment, problems)
    try:
        configuration = read_settings(arguments.config, environment)
    except SettingsError as error:
        raise error.joined(problems) from error
    if problems:
        raise configuration.error(problems)
    request = OptimizerRequest(
        engine=arguments.engine,
        benchmark=arguments.benchmark_policy,
        disaggregated=arguments.pd == "disaggregation",
        everywhere=arguments.deploy_policy == "multiple",
        native=arguments.native,
        search=arguments.search,
        backup=backup,
        device=arguments.device or ("npu" if has_npu() else "cpu"),
        tools=tools,
        environment=environment,
    )
    translation = translate_settings(configuration, request)
    if simulation_asked(environment):
        translation = simulated(translation, configuration, request)
    if translation.problems:
        raise configuration.error(translation.problems)
    return configuration, translation


def _tools(
    arguments: argparse.Namespace, environment: Mapping[str, str], problems: Problems
) -> Tools:
    """The commands that flags name, else variables."""
    commands: dict[str, list[str] | None] = {}
    for tool in _TOOLS:
        flag, variable = getattr(arguments, tool), TOOL_VARIABLES[tool]
        place, text = (f"--{tool}", flag) if flag is not None else (variable, None)
        text = environment.get(variable) or None if text is None else text
        if text is not None:
            parse = parse_engine_command if tool == "vllm" else parse_command
            commands[tool] = checked(place, partial(parse, text), None, problems)
    return Tools(**commands)


def _set_level(environment: Mapping[str, str]) -> None:
    level = parse_level(environment)
    if level is None:
        return
    logging.basicConfig()
    for package in _PACKAGES:
        logging.getLogger(package).setLevel(level.upper())


def _load_breakpoint(document: Document, translation: OptimizerTranslation) -> bool:
    """Let the search know what the store holds; whether an earlier session is gone on with.

    That session goes on with what it knew: the table of its own is among what there is now.
    """
    search = document.data["search"]
    before = _earlier(document)
    if before is not None:
        known = before["search"].get("known", [])
    else:
        known = [str(file) for file in data_storage_files(translation.store)]
    if known:
        search["known"] = known
    return before is not None


def _earlier(document: Document) -> dict[str, Any] | None:
    """What lies in the run's folder, if it is a session of the same question."""
    data = document.data
    try:
        folder = Path(str(data["storage"])) / str(data["name"])
        before = read_document(folder / "experiment.yaml").data
        return before if _question(before) == _question(data) else None
    except (ExperimentError, KeyError, TypeError, AttributeError):
        return None


def _question(data: Mapping[str, Any]) -> list[Any]:
    search = {key: value for key, value in data["search"].items() if key != "known"}
    return [data["trial"], search, data["objective"]]
