"""``quantize``: one practice, one model, one run of `msmodelslim quant`, verified.

What the quantize skill of the tuning agents does, with its flags and its error codes. One thing is
done and nothing is repaired: what fails ends the command, and no half-written weights are left.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import uuid
from collections.abc import Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from trainables import Progress, TrialFailure, TrialRun, TrialSpec
from trainables.quantization import Device, PracticeError, parse_practice
from tuner.cli._options import add_json
from tuner.compat import (
    TOOL_VARIABLES,
    Problems,
    checked,
    choose_device,
    parse_command,
    parse_truth,
    path_problems,
)
from tuner.experiment import Document, parse_duration

_TOOL = "msmodelslim"
_DEFAULT_S = 4 * 3600.0
_CODES = {"out_of_memory": "OOM_ERROR", "input": "VALIDATION_ERROR"}
"""Of the skill, by our class of failure; all others are its UNKNOWN_ERROR."""


def add_commands(commands: Any) -> None:
    quantize = commands.add_parser("quantize", help="quantize once, as the quantize skill does")
    quantize.add_argument("--model_path", required=True, type=Path, help="the float checkpoint")
    quantize.add_argument("--save_path", required=True, type=Path, help="new folder for weights")
    quantize.add_argument("--config_path", required=True, type=Path, help="the practice, YAML")
    quantize.add_argument("--model_type", default="default", help="model, as msModelSlim names it")
    quantize.add_argument("--device", default="npu", help="npu, cpu or npu:0,1 (default: npu)")
    quantize.add_argument("--trust_remote_code", nargs="?", const="True", default="False")
    quantize.add_argument("--timeout", help="3D4H, 1D2H30M15S or seconds (default: 4H)")
    said = f"how it is called (default: ${TOOL_VARIABLES[_TOOL]}, or as found in PATH)"
    quantize.add_argument(f"--{_TOOL}", metavar="COMMAND", help=said)
    add_json(quantize)
    quantize.set_defaults(command=_quantize)


def _quantize(arguments: argparse.Namespace) -> int:
    request, timeout = _request(arguments)
    output = Path(request["output"])
    run_id = f"quantize-{uuid.uuid4().hex[:12]}"
    work = output.with_name(f"{output.name}.log")
    trial = TrialRun(TrialSpec(run_id, "quantize", str(work), "quantization", "prepare", {}, 0, {}))
    begun = time.monotonic()
    module = "trainables.quantization.quantize"
    steps = trial.program(
        "quantize", module, request, timeout=timeout, valid=lambda result: output.is_dir()
    )
    try:
        with closing(steps):
            result = _finished(steps)
    except TrialFailure as error:
        return _failed(arguments, error, work)
    seconds = round(time.monotonic() - begun, 1)
    layers = len(result["quantized_layers"]), len(result["fallback_layers"])
    print(f"quantized: {layers[0]} layers, {layers[1]} left in float, {result['bytes']:,} bytes")
    print(f"weights:   {output}")
    print(f"seconds:   {seconds}")
    if arguments.json:
        print(json.dumps({"ok": True, "path": str(output), **result, "seconds": seconds}))
    return 0


def _finished(steps: Generator[Progress, None, dict[str, Any]]) -> dict[str, Any]:
    """What the steps return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: dict[str, Any] = end.value
            return result


def _failed(arguments: argparse.Namespace, error: TrialFailure, work: Path) -> int:
    code = _CODES.get(error.failure, "UNKNOWN_ERROR")
    print(f"error: {code}: {error}", file=sys.stderr)
    if error.excerpt:
        print(error.excerpt, file=sys.stderr)
    hint = f"{error.suggestion}; " if error.suggestion else ""
    print(f"{hint}see {work / 'quantize.log'}", file=sys.stderr)
    if arguments.json:
        document = {"ok": False, "error": str(error), "error_code": code}
        print(json.dumps(document | {"suggestion": error.suggestion}))
    return 1


def _request(arguments: argparse.Namespace) -> tuple[dict[str, Any], float]:
    """The stage's request and the bound in seconds; all faults of the flags at once."""
    problems: Problems = []
    place = Document(arguments.config_path, {}, {})
    device = checked(
        "--device", partial(choose_device, arguments.device, None), Device("npu"), problems
    )
    trusted = checked(
        "--trust_remote_code", partial(parse_truth, arguments.trust_remote_code), False, problems
    )
    timeout = _DEFAULT_S
    if arguments.timeout is not None:
        timeout = checked("--timeout", partial(_seconds, arguments.timeout), timeout, problems)
    text = arguments.msmodelslim or os.environ.get(TOOL_VARIABLES[_TOOL]) or _TOOL
    command = checked(f"--{_TOOL}", partial(parse_command, text), [_TOOL], problems)
    paths = arguments.model_path, arguments.save_path, arguments.config_path
    problems += [
        (flag.replace("--config", "--config_path"), said) for flag, said in path_problems(*paths)
    ]
    practice = _practice(arguments.config_path, problems)
    output = arguments.save_path.expanduser().absolute()
    if output.is_dir() and any(output.iterdir()):
        said = "is not empty; each round has a folder of its own, such as round_2/quantized"
        problems.append(("--save_path", f"{output} {said}"))
    if problems:
        raise place.error(problems)
    quantizer = {"type": _TOOL, "command": command, "model_type": arguments.model_type}
    return {
        "model": str(arguments.model_path.expanduser().absolute()),
        "practice": practice,
        "output": str(output),
        "quantizer": quantizer,
        "device": str(device),
        "threads": None,
        "trust_remote_code": trusted,
    }, timeout


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() else parse_duration(text)


def _practice(file: Path, problems: Problems) -> Any:
    """The practice document; faults are noted."""
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        parse_practice(document)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, PracticeError) as error:
        problems.append(("--config_path", str(error)))
        return None
    return document
