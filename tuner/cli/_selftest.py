"""What can be known of a script experiment before its first trial."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cluster import PortUnavailableError, lease_ports
from searchers import Done, Outcome, Proposal
from tuner._earlier import EarlierLedger, earlier_trials
from tuner._identity import Identifier
from tuner._judge import judge
from tuner._ledger import Ledger
from tuner.cli._notify import try_channels
from tuner.experiment import Experiment
from tuner.views.autotune import params_of, trial_key

_FAILED = 2


def selftest(experiment: Experiment, *, notify: bool) -> int:
    """Check all that trials need, say each result in a line, run nothing; the exit code.

    That the experiment could be made from the flags is checked already: patterns, channels, values.
    """
    code = 0
    for name, check in _checks(experiment):
        fault = check()
        print(f"{name}: {'ok' if fault is None else fault}")
        code = code if fault is None else _FAILED
    count = len(experiment.notify)
    print(f"notification channels: {count} understood" if count else "notification channels: none")
    if notify:
        if not count:
            print("nobody to notify: give webhook_url, or smtp_host and smtp_to")
            return _FAILED
        code = _FAILED if try_channels(experiment) else code
    return code


def print_trials(experiment: Experiment) -> int:
    """Print the key of every trial in order, as if nothing better were found than is known."""
    trials = list(_trials(experiment))
    known = sum(told for _, told in trials)
    print(f"[dry_run] trials={len(trials)} known={known} to measure={len(trials) - known}")
    for number, (key, told) in enumerate(trials, 1):
        print(f"{number} {'known' if told else 'new'} {key}")
    return 0


def _trials(experiment: Experiment) -> Iterator[tuple[str, bool]]:
    """Key of each trial, and whether it is known already."""
    identify = Identifier(experiment.trial, experiment.trial_type)
    ledger = _Reading(experiment.storage / "ledger.jsonl")
    known: Any = ledger
    if (earlier := earlier_trials(experiment)) is not None:
        known = EarlierLedger(ledger, earlier, experiment, identify)
    strategy = experiment.search.strategy()
    best = 0.0
    while isinstance(step := strategy.ask(), Proposal):
        identity = known.identify(step) if known is not ledger else identify(step)
        measurement = known.find(identity)
        if measurement is None:
            outcome = Outcome("measured", satisfied=True, objective=best)
        else:
            verdict = judge(experiment.objective, measurement.metrics, None)
            value = verdict.objective
            outcome = Outcome("measured", satisfied=verdict.satisfied, objective=value)
            if verdict.satisfied and value is not None:
                best = max(best, value)
        yield trial_key(params_of(step.parameters, experiment)), measurement is not None
        strategy.tell(step, outcome)
    assert isinstance(step, Done)


class _Reading(Ledger):
    """A ledger that nothing is written to."""

    def append(self, measurement: Any) -> None:
        self._measurements[measurement.identity] = measurement

    def _set_aside(self, torn: bytes, keep: int) -> None:
        """What is torn stays where it is."""


def _checks(experiment: Experiment) -> Iterator[tuple[str, Callable[[], str | None]]]:
    options: Any = experiment.trial.options
    start, evaluate = options.start, options.evaluate
    yield "start command", partial(_callable, start.command, start.cwd)
    folder = evaluate.cwd or start.cwd
    yield "evaluation command", partial(_callable, evaluate.command, folder)
    yield "port", partial(_port, options.port)
    yield "storage", partial(_writable, experiment.storage)
    for block in experiment.views:
        for name in ("results", "best", "status"):
            if name in block:
                file = Path(block[name])
                yield f"{name} file", partial(_file, file)
        if "server_logs" in block:
            yield "server logs", partial(_writable, Path(block["server_logs"]))


def _callable(command: list[str], cwd: Path | None) -> str | None:
    """Why a command cannot be started; None when it can, as far as its files tell."""
    program, *rest = command
    if shutil.which(program) is None:
        return f"there is no program {program!r} in PATH"
    script = next(iter(rest), "-")
    if not script.startswith(("-", "$")) and ("/" in script or "." in script):
        file = (cwd or Path.cwd()) / script
        if not file.is_file():
            return f"there is no file {file}"
        if not os.access(file, os.R_OK):
            return f"{file} cannot be read"
    return None


def _port(port: int | None) -> str | None:
    try:
        with lease_ports(ports=() if port is None else (port,)):
            return None
    except (PortUnavailableError, PermissionError) as error:
        return str(error)


def _writable(folder: Path) -> str | None:
    """Why nothing could be written into a folder that may not exist yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        return f"{there} is a file"
    try:
        with tempfile.TemporaryFile(dir=there) as stream:
            stream.write(b"0" * 4096)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return f"{there} cannot be written to: {error.strerror}"
    return None


def _file(file: Path) -> str | None:
    if file.exists() and not os.access(file, os.W_OK):
        return f"{file} cannot be written to"
    return _writable(file.parent)
