"""Stage program: evaluate one dataset with AISBench against a served model.

The request is a :class:`Call`. The result::

    {"values": {"accuracy": "62.50"}, "items": 1319, "results": {file: {"values", "items"}, ...},
     "seconds": 81.2, "log": file}

Numbers are texts, exactly as AISBench wrote them. Anything that keeps a number from being about
the model's own answers ends the program as a failure.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainables._aisbench import OFFLINE, failure, plain, telling_line, unmatched
from trainables._failures import failure_of
from trainables._program import StageError, run_program
from trainables._tool import run_tool, tool_environment
from trainables.evaluation._aisbench_command import Call, configured
from trainables.evaluation._aisbench_results import read_numbers

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
    """Exit status, None when it took too long, and all that was printed."""
    log = Path(call.log)
    log.parent.mkdir(parents=True, exist_ok=True)
    parts = {name: log.with_name(f"{log.name}.{name.lower()}") for name in ("STDOUT", "STDERR")}
    try:
        with parts["STDOUT"].open("wb") as out, parts["STDERR"].open("wb") as err:
            code = run_tool(
                argv,
                cwd=call.folder,
                env=tool_environment(OFFLINE),
                timeout=call.timeout,
                suggestion="name AISBench's program in evaluation.command",
                stdout=out,
                stderr=err,
            )
    finally:
        texts = {name: _text(file) for name, file in parts.items()}
        _write_log(log, argv, texts)
        for file in parts.values():
            file.unlink(missing_ok=True)
    return code, "\n".join(texts.values())


def _write_log(log: Path, argv: Sequence[str], texts: Mapping[str, str]) -> None:
    """Attempts at one trial follow each other in its log."""
    sections = {"COMMAND": shlex.join(argv), **texts}
    with log.open("a", encoding="utf-8") as stream:
        for name, text in sections.items():
            stream.write(f"[{name}]\n{text.rstrip()}\n\n")


def _ended_badly(call: Call, code: int, output: str) -> StageError:
    lines = [line.strip() for line in plain(output).splitlines()]
    if unmatched(output, call.config_name):
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
