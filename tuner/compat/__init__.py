"""The command lines and plan files of other tools, as experiments of ours."""

from tuner.compat._hardware import VISIBLE, machine_cpus
from tuner.compat._options import (
    LOG_LEVELS,
    LOG_VARIABLE,
    REPOSITORY_VARIABLE,
    TOOL_VARIABLES,
    Problems,
    Tools,
    TuneRequest,
    checked,
    choose_device,
    parse_command,
    parse_engine_command,
    parse_log_level,
    parse_timeout,
    parse_truth,
    path_problems,
)
from tuner.compat._places import check_translated, place_in_plan
from tuner.compat._reading import Plan, load_plan, read_plan
from tuner.compat._translate import Translation, translate

__all__ = [
    "LOG_LEVELS",
    "LOG_VARIABLE",
    "REPOSITORY_VARIABLE",
    "TOOL_VARIABLES",
    "VISIBLE",
    "Plan",
    "Problems",
    "Tools",
    "Translation",
    "TuneRequest",
    "check_translated",
    "checked",
    "choose_device",
    "load_plan",
    "machine_cpus",
    "parse_command",
    "parse_engine_command",
    "parse_log_level",
    "parse_timeout",
    "parse_truth",
    "path_problems",
    "place_in_plan",
    "read_plan",
    "translate",
]
