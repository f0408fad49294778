"""``watch``: a run that is started again after a crash, and not after an end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tuner.cli import _auto_tune
from tuner.cli._options import add_settings
from tuner.experiment import Experiment, load_experiment, parse_duration
from tuner.watch import RestartPolicy, Supervisor, WatchedError

_USAGE = 2
_DEFAULT = RestartPolicy()


def add_commands(commands: Any) -> None:
    watch = commands.add_parser(
        "watch",
        help="run an experiment, or auto-tune, and start it again after a crash",
        epilog="Options of watch stand before EXPERIMENT; what follows belongs to the run.",
    )
    watch.add_argument("--pid_file", type=Path, help="default: watch.pid in the run's folder")
    watch.add_argument("--log", type=Path, help="default: watch.log in the run's folder")
    watch.add_argument(
        "--crashes",
        type=_count,
        default=_DEFAULT.crashes,
        help=f"give up after so many crashes (default: {_DEFAULT.crashes})",
    )
    watch.add_argument(
        "--within", type=_seconds, default=_DEFAULT.within_s, help="in so much time (default: 1H)"
    )
    watch.add_argument(
        "--backoff", type=_seconds, default=_DEFAULT.first_s, help="before the first restart"
    )
    watch.add_argument(
        "--backoff_max", type=_seconds, default=_DEFAULT.most_s, help="before any restart"
    )
    watch.add_argument("experiment", metavar="EXPERIMENT", help="a file, or: auto-tune")
    watch.add_argument("rest", nargs=argparse.REMAINDER, help="--set a.b=V, or flags of auto-tune")
    watch.set_defaults(command=_watch)


def _watch(arguments: argparse.Namespace) -> int:
    policy = RestartPolicy(
        arguments.backoff, arguments.backoff_max, arguments.crashes, arguments.within
    )
    if arguments.experiment == _auto_tune.NAME:
        experiment, repo = _understood(arguments.rest)
        files = repo / "autotune.watchdog.pid", repo / "autotune.watchdog.log"
        command = [_auto_tune.NAME, *arguments.rest]
    else:
        experiment = load_experiment(Path(arguments.experiment), _settings(arguments.rest))
        files = experiment.storage / "watch.pid", experiment.storage / "watch.log"
        command = ["run", arguments.experiment, "--resume", *arguments.rest]
    pid_file, log = arguments.pid_file or files[0], arguments.log or files[1]
    print(f"watch: the run's output goes to {log}", file=sys.stderr)
    supervisor = Supervisor(
        [sys.executable, "-m", "tuner", *command],
        folder=experiment.storage,
        log=log.absolute(),
        pid_file=pid_file.absolute(),
        policy=policy,
        say=lambda line: print(f"watch: {line}", file=sys.stderr, flush=True),
        on_crash=partial(_note_crash, experiment),
        on_loop=partial(_notify, experiment),
    )
    try:
        return supervisor.run()
    except WatchedError as error:
        print(f"error: {error}", file=sys.stderr)
        return _USAGE


def _understood(rest: Sequence[str]) -> tuple[Experiment, Path]:
    """The experiment that flags of ``auto-tune`` stand for, and its repo."""
    prepared = _auto_tune.prepare(_auto_tune.parse_flags(rest))
    return prepared.experiment(), prepared.translation.repo


def _settings(rest: Sequence[str]) -> list[str]:
    parser = argparse.ArgumentParser(prog="python -m tuner watch EXPERIMENT", add_help=False)
    add_settings(parser)
    settings: list[str] = parser.parse_args(rest).settings
    return settings


def _note_crash(experiment: Experiment, said: str) -> None:
    from tuner.views.autotune import say_crashed

    say_crashed(experiment.views, said)


def _notify(experiment: Experiment, said: str) -> None:
    """Tell everybody whom the experiment names that there will be no restart."""
    from tuner._store import now
    from tuner.notify import Notice, Progress, send_notice

    where = str(experiment.storage)
    notice = Notice("crashed", experiment.name, now(), Progress(), message=said, where=where)
    send_notice(experiment, notice, lambda line: print(f"watch: {line}", file=sys.stderr))


def _seconds(text: str) -> float:
    try:
        return float(text) if text.replace(".", "", 1).isdigit() else parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)
