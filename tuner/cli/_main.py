"""``python -m tuner COMMAND``: parsing, and errors as the user should see them."""

from __future__ import annotations

import argparse
import io
import signal
import sys
from collections.abc import Sequence

from cluster import ClusterError, RunLockedError
from tuner._words import counted
from tuner.cli import (
    _analyze,
    _auto_tune,
    _cluster,
    _import,
    _inspect,
    _notify,
    _optimizer,
    _quantize,
    _replay,
    _report,
    _run_commands,
    _simulate,
    _train,
    _tune,
    _watch,
)
from tuner.experiment import ExperimentError

_COMMANDS = (
    _run_commands,
    _tune,
    _quantize,
    _optimizer,
    _auto_tune,
    _watch,
    _inspect,
    _report,
    _notify,
    _analyze,
    _train,
    _simulate,
    _replay,
    _import,
    _cluster,
)
_USAGE, _FAILED = 2, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code.

    0: satisfied, or done. 1: failed. 2: bad usage or configuration. 3: exhausted. 4: budget
    spent. 130 and 143: interrupted.
    """
    from tuner._interruption import Interrupted
    from tuner._run import RunError

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does where a locale lacks it
    arguments = _parsed(argv)
    try:
        code: int = arguments.command(arguments)
    except ExperimentError as error:
        print(error, file=sys.stderr)
        count = counted(len(error.problems), "problem")
        print(f"{count}; nothing was started", file=sys.stderr)
        return _USAGE
    except (RunError, RunLockedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return _USAGE
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt as error:
        print("interrupted; resume continues where it stopped", file=sys.stderr)
        return 128 + (error.signal if isinstance(error, Interrupted) else signal.SIGINT)
    except BrokenPipeError:
        return _FAILED
    return code


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; a command that says all faults at once also gets those nobody knows."""
    parser = _parser()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown and not getattr(arguments, "collects_unknown", False):
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    arguments.unknown = tuple(unknown)
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tuner",
        description="Finds the quantization and the serving parameters for an LLM.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in _COMMANDS:
        module.add_commands(commands)
    return parser
