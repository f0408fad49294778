"""Stage program: evaluate one dataset with AISBench against a served model.

The request is a :class:`Call`. The result::

    {"values": {"accuracy": "62.50"}, "items": 1319, "results": {file: {"values", "items"}, ...},
     "seconds": 81.2, "log": file}

Numbers are texts, exactly as AISBench wrote them. Anything that keeps a number from being about
the model's own answers ends the program as a failure.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from pydantic import ValidationError

from trainables._failures import failure_of
from trainables._program import StageError, run_program
from trainables.evaluation._aisbench_command import Call, configured
from trainables.evaluation._aisbench_results import (
    failure,
    plain,
    read_numbers,
    telling_line,
)

_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
_OUR_CHECKOUT = str(Path(__file__).resolve().parents[2])
_END_S = 5.0
_LAST_LINES = 20


def run_aisbench(request: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out a request document. Raises ``StageError``."""
    try:
        call = Call.model_validate(request)
    except ValidationError as error:
        raise StageError("input", f"the request is wrong: {error}") from error
    started = time.monotonic()
    Path(call.folder).mkdir(parents=True, exist_ok=True)
    with configured(call) as argv:
        print(shlex.join(argv), flush=True)
        code, output = _run(argv, call)
    if code is None:
        raise StageError(
            "timeout",
            f"ais_bench did not finish {call.dataset} within {call.timeout:g} s",
            f"raise settings.timeout or batch_size, or see {call.log}",
        )
    if code != 0:
        raise _ended_badly(call, code, output)
    numbers = read_numbers(output, call.abbr, call.metric_keys)
    print(*(f"{key}: {value}" for key, value in numbers.values.items()), sep="\n", flush=True)
    seconds = round(time.monotonic() - started, 3)
    return {**numbers.document(), "seconds": seconds, "log": call.log}


def _run(argv: Sequence[str], call: Call) -> tuple[int | None, str]:
    """Exit status, None when it took too long, and all that was printed.

    Its output goes to files: a pipe that nobody reads would stop it, and a child that survives it
    would keep the pipe open.
    """
    log = Path(call.log)
    log.parent.mkdir(parents=True, exist_ok=True)
    parts = {name: log.with_name(f"{log.name}.{name.lower()}") for name in ("STDOUT", "STDERR")}
    try:
        with parts["STDOUT"].open("wb") as out, parts["STDERR"].open("wb") as err:
            process = subprocess.Popen(
                argv,
                cwd=call.folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        code = _wait(process, call.timeout)
    except OSError as error:
        said = f"{argv[0]} cannot be started: {error.strerror}"
        raise StageError("input", said, "name AISBench's program in evaluation.command") from error
    finally:
        texts = {name: _text(file) for name, file in parts.items()}
        _write_log(log, argv, texts)
        for file in parts.values():
            file.unlink(missing_ok=True)
    return code, "\n".join(texts.values())


def _environment() -> dict[str, str]:
    """This program's own, without our packages, which are not for AISBench's interpreter.

    Models and datasets lie on disk; without a network, libraries would try for minutes.
    """
    environment = dict(os.environ)
    if environment.get("PYTHONPATH") == _OUR_CHECKOUT:
        del environment["PYTHONPATH"]
    for name in _OFFLINE:
        environment.setdefault(name, "1")
    return environment


def _wait(process: subprocess.Popen[bytes], timeout: float) -> int | None:
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


def _write_log(log: Path, argv: Sequence[str], texts: Mapping[str, str]) -> None:
    """Attempts at one trial follow each other in its log."""
    sections = {"COMMAND": shlex.join(argv), **texts}
    with log.open("a", encoding="utf-8") as stream:
        for name, text in sections.items():
            stream.write(f"[{name}]\n{text.rstrip()}\n\n")


def _ended_badly(call: Call, code: int, output: str) -> StageError:
    lines = [line.strip() for line in plain(output).splitlines()]
    unmatched = any(line.strip("| ") == call.config_name.split("/")[0] for line in lines)
    if "UTILS-MATCH-" in output and unmatched:
        return StageError(
            "input",
            f"AISBench has none, or several, of the dataset configuration {call.config_name!r}",
            "see ais_bench --datasets NAME --search, or name your folder in settings.config_dir",
        )
    if code > 0 and (reason := telling_line(output)):
        what = f"ais_bench ended with exit code {code}"
        return failure(what, reason, otherwise=f"see {call.log}")
    excerpt = "\n".join([line for line in lines if line][-_LAST_LINES:])
    return StageError(*failure_of("ais_bench", code, excerpt))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    run_program(run_aisbench)
