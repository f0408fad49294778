"""``notify``: who hears of an experiment, and whether messages arrive."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from tuner.cli._options import add_experiment
from tuner.experiment import KINDS, ChannelOptions, Experiment, format_duration, load_experiment


def add_commands(commands: Any) -> None:
    notify = commands.add_parser("notify", help="who hears of an experiment; --test: try it")
    add_experiment(notify)
    notify.add_argument("--test", action="store_true", help="send a test message to every channel")
    notify.set_defaults(command=_notify)


def _notify(arguments: argparse.Namespace) -> int:
    experiment = load_experiment(arguments.experiment, arguments.settings)
    if not experiment.notify:
        print(f"{arguments.experiment}: has no notify list; nobody would hear", file=sys.stderr)
        return 2
    return try_channels(experiment) if arguments.test else _show(experiment)


def try_channels(experiment: Experiment) -> int:
    """Send a test message to every channel and print what became of it; the exit code."""
    from tuner.notify import send_test

    deliveries = send_test(experiment)
    for one in deliveries:
        print(f"{one.channel}: {'sent' if one.error is None else f'not sent: {one.error}'}")
    return int(any(one.error is not None for one in deliveries))


def _show(experiment: Experiment) -> int:
    for index, options in enumerate(experiment.notify):
        print(f"notify.{index} ({options.model_dump()['type']}): {_describe(options)}")
    return 0


def _describe(options: ChannelOptions) -> str:
    parts = [", ".join(kind for kind in KINDS if kind in options.takes)]
    if options.fallback:
        parts.append("only what no other channel delivered")
    if options.heartbeat.trials is not None:
        parts.append(f"a heartbeat every {options.heartbeat.trials} trials")
    if options.heartbeat.time is not None:
        parts.append(f"a heartbeat every {format_duration(options.heartbeat.time)}")
    return "; ".join(parts)
