"""Somebody else's program, run by a stage program: bounded in time, in surroundings of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from trainables._program import StageError

SHELL_PROMPT = "$ "
"""Begins a line of a log that is a command, not a word of the tool's."""
_OUR_CHECKOUT = str(Path(__file__).resolve().parents[1])
_END_S = 5.0


def absolute_program(command: list[str]) -> list[str]:
    """A command with the path of its program made absolute: tools run in folders of their own, so
    a relative one would not be found. Names without a slash are searched in ``PATH``."""
    program = command[0]
    if "/" in program or program.startswith("~"):
        program = str(Path(program).expanduser().absolute())
    return [program, *command[1:]]


def tool_environment(defaults: Mapping[str, str]) -> dict[str, str]:
    """This program's own environment, without our packages, which are not for the interpreter of
    a tool; ``defaults`` fill in what it lacks."""
    environment = dict(os.environ)
    paths = environment.pop("PYTHONPATH", "").split(os.pathsep)
    if theirs := [path for path in paths if path and path != _OUR_CHECKOUT]:
        environment["PYTHONPATH"] = os.pathsep.join(theirs)
    return {**defaults, **environment}


def run_tool(
    argv: Sequence[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    timeout: float,
    suggestion: str,
    stdout: IO[bytes] | None = None,
    stderr: IO[bytes] | None = None,
) -> int | None:
    """The exit status; None when it took longer than ``timeout`` seconds and was ended.

    Its output goes to files, by default to where this program's own goes: a pipe that nobody reads
    would stop it, and a child that survives it would keep the pipe open.

    Raises ``StageError`` when it cannot be started; ``suggestion`` says what to do about that.
    """
    try:
        process = subprocess.Popen(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
        )
    except OSError as error:
        said = f"{argv[0]} cannot be started: {error.strerror}"
        raise StageError("input", said, suggestion) from error
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        _end(process)
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it and what it started; what escapes this ends with this program's own tree."""
    with suppress(psutil.NoSuchProcess):
        tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for each in tree:
            with suppress(psutil.NoSuchProcess):
                each.terminate()
        _, alive = psutil.wait_procs(tree, timeout=_END_S)
        for each in alive:
            with suppress(psutil.NoSuchProcess):
                each.kill()
    process.wait()
