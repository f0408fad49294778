#!/usr/bin/env python3
"""msModelSlim's command line without torch, for tests: what goes in and comes out, as 26.1 has it.

Started like the real one, by a Python that has numpy, safetensors, wcmatch and yaml::

    python tests/stubs/msmodelslim.py quant --model_path FOLDER --save_path FOLDER ...
    python tests/stubs/msmodelslim.py analyze layer --model_type default --model_path FOLDER ...

It really quantizes float32 checkpoints to W8A8 (nearest integer, no outlier suppression) and writes
both forms of weights; it really ranks layers, by how far outliers stretch their weights. What it
does otherwise is decided by ``stub-msmodelslim.json`` in the model's folder, an object with the
attributes of :class:`Behaviour`; an environment variable ``MSMODELSLIM_STUB_<ATTRIBUTE>`` (JSON, or
plain text) wins over it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import yaml
from msmodelslim_weights import linear_layers, matches, plan_of, save_ascend, save_compressed
from safetensors.numpy import load_file

_BEHAVIOUR = "stub-msmodelslim.json"
_UNSAFE = re.compile(r"[^_A-Za-z0-9/.-]")
_LAB_CALIB = ("mix_calib.jsonl", "qwen3_cot.json")
_CHILD = """import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(3600)"""


@dataclass(frozen=True)
class Behaviour:
    """What the stub does differently from a healthy tool.

    Attributes:
        record: File that gets the arguments and the practice of every call, one JSON a line.
        say: Printed at the start.
        delay: Seconds before it does anything.
        hang: Do nothing, for ever.
        ask: Ask a question on standard input, as ``quant --quant_type`` does.
        stubborn_child: Start a grandchild in a session of its own that ignores TERM.
        fail: ``[name, code, message, tip]`` of an error to end with, as msModelSlim prints it.
        cause: Python error printed in a traceback before ``fail``, or alone.
        exit_code: Status instead of 1 after a failure, instead of 0 after success.
        kill: Number of a signal to die of in the middle of the work.
        write: False: success is reported and nothing written.
        forget: Patterns of tensors that are not written.
        float_too: Patterns of layers left in float although the practice quantizes them.
        integer_too: Patterns of layers quantized although the practice leaves them in float.
        scores: Layer to the score an analysis gives it, instead of the computed one.
    """

    record: str | None = None
    say: str = ""
    delay: float = 0
    hang: bool = False
    ask: bool = False
    stubborn_child: bool = False
    fail: tuple[str, int, str, str] | None = None
    cause: str = ""
    exit_code: int | None = None
    kill: int | None = None
    write: bool = True
    forget: tuple[str, ...] = ()
    float_too: tuple[str, ...] = ()
    integer_too: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)


class ToolError(Exception):
    """An error of msModelSlim's own: class name, code, message, what to do."""

    def __init__(self, name: str, code: int, message: str, tip: str = "") -> None:
        super().__init__(message)
        self.name, self.code, self.tip = name, code, tip

    def __str__(self) -> str:
        tip = f"\nTIP: {self.tip}" if self.tip else ""
        return f"Code: {self.code}, Message: {self.args[0]}{tip}"


def main() -> int:
    asked = _arguments()
    how = _behaviour(Path(asked.model_path))
    for line in ("=" * 65, "                   >>>>>   MindStudio   <<<<<", "=" * 65):
        print(line)
    if how.say:
        print(how.say)
    try:
        _misbehave(how, asked)
        (_quantize if asked.command == "quant" else _analyze)(asked, how)
    except ToolError as error:
        return _die(how, f"msmodelslim.utils.exception.{error.name}: {error}")
    if how.fail or how.cause:
        named = how.fail and ToolError(*how.fail)
        return _die(how, f"msmodelslim.utils.exception.{named.name}: {named}" if named else "")
    return how.exit_code or 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msmodelslim")
    commands = parser.add_subparsers(dest="command", required=True)
    quant = commands.add_parser("quant")
    quant.add_argument("--model_type", default=None)
    quant.add_argument("--save_path", required=True)
    quant.add_argument("--config_path")
    quant.add_argument("--quant_type")
    scopes = commands.add_parser("analyze").add_subparsers(dest="scope", required=True)
    linear, layer = scopes.add_parser("linear"), scopes.add_parser("layer")
    linear.add_argument("--pattern", nargs="*", default=["*"])
    linear.add_argument("--metrics", default="kurtosis", choices=["std", "quantile", "kurtosis"])
    layer.add_argument("--quant_modules", nargs="*", default=["*"])
    layer.add_argument(
        "--metrics", default="mse_layer_wise", choices=["mse_model_wise", "mse_layer_wise"]
    )
    for one in (linear, layer):
        one.add_argument("--model_type", required=True)
        one.add_argument("--calib_dataset", default="mix_calib.jsonl")
        one.add_argument("--topk", type=int, default=15)
    for one in (quant, linear, layer):
        one.add_argument("--model_path", required=True)
        one.add_argument(
            "--device", default="npu", choices=None if one is quant else ["npu", "cpu"]
        )
        one.add_argument("--trust_remote_code", default="False", choices=["True", "False"])
    return parser.parse_args()


def _behaviour(model: Path) -> Behaviour:
    file = model / _BEHAVIOUR
    given = json.loads(file.read_text()) if file.is_file() else {}
    for one in fields(Behaviour):
        text = os.environ.get(f"MSMODELSLIM_STUB_{one.name.upper()}")
        if text is not None:
            try:
                given[one.name] = json.loads(text)
            except ValueError:
                given[one.name] = text
    return Behaviour(**given)


def _misbehave(how: Behaviour, asked: argparse.Namespace) -> None:
    if how.record:
        config = getattr(asked, "config_path", None)
        said = {
            "arguments": sys.argv[1:],
            "practice": yaml.safe_load(Path(config).read_text()) if config else None,
            "environment": dict(os.environ),
        }
        with Path(how.record).open("a") as stream:
            stream.write(json.dumps(said) + "\n")
    if how.stubborn_child:
        child = subprocess.Popen([sys.executable, "-c", _CHILD], start_new_session=True)
        print(f"child {child.pid}", flush=True)
    if how.ask:
        input("The practice is not verified for this model (Enter y to continue...)")
    time.sleep(how.delay)
    while how.hang:
        sys.stdout.flush()
        time.sleep(3600)


def _die(how: Behaviour, said: str) -> int:
    """Print the traceback of a failure."""
    for number, line in enumerate(filter(None, (how.cause, said))):
        if number:
            print("\nThe above exception was the direct cause of the following exception:\n")
        print('Traceback (most recent call last):\n  File "msmodelslim", line 8, in <module>')
        print("    sys.exit(main())\n             ^^^^^^")
        print(line)
    return 1 if how.exit_code is None else how.exit_code


def _log(text: str, who: str = "app.naive_quantization") -> None:
    print(f"2026-11-24 16:02:10,736 - msmodelslim.{who} - INFO - {text}", flush=True)


def _checked_path(path: str) -> Path:
    if _UNSAFE.search(path):
        raise ToolError(
            "SecurityError",
            204,
            "Input path contains invalid characters.",
            "Please make sure the path contains only valid characters [_A-Za-z0-9/.-]",
        )
    if not Path(path).exists():
        said = f"The path {path} doesn't exist or not a file."
        raise ToolError("SecurityError", 204, said, "Please make sure the path exists.")
    return Path(path)


def _check_dataset(name: str) -> None:
    if not (name in _LAB_CALIB and not Path(name).exists()):
        file = _checked_path(name)
        if file.suffix not in (".json", ".jsonl"):
            said = f'The filename {name} doesn\'t endswith "jsonl".'
            raise ToolError("SecurityError", 204, said)


def _quantize(asked: argparse.Namespace, how: Behaviour) -> None:
    kind = asked.device.strip().partition(":")[0].strip()
    if kind not in ("npu", "cpu"):
        said = f"Invalid device type: '{kind}'. Supported device types: 'npu', 'cpu'"
        raise ToolError("SchemaValidateError", 203, said)
    model = _checked_path(asked.model_path)
    practice = yaml.safe_load(_checked_path(asked.config_path).read_text())
    _check_dataset(practice["spec"].get("dataset", "mix_calib.jsonl"))
    if kind == "npu":
        cause = "AttributeError: module 'torch' has no attribute 'npu'"
        print(f"Traceback (most recent call last):\n{cause}\n")
        raise ToolError("UnexpectedError", 500, "Unexpected error.", "Please report this issue.")
    folder = Path(asked.save_path)
    folder.mkdir(parents=True, exist_ok=True)
    named = f"{asked.model_type}_best_practice.yaml"
    (folder / named).write_text(yaml.safe_dump(practice))
    _log("===========QUANTIZE MODEL===========")
    if how.kill is not None:
        sys.stdout.flush()
        os.kill(os.getpid(), how.kill)
        signal.pause()
    weights = load_file(model / "model.safetensors")
    plan = plan_of(practice, weights, how)
    for saver in practice["spec"]["save"] if how.write else ():
        for file in model.iterdir():
            if file.suffix in (".json", ".txt", ".jinja") and file.name != _BEHAVIOUR:
                (folder / file.name).write_bytes(file.read_bytes())
        {"ascendv1_saver": save_ascend, "compressed_tensors": save_compressed}[saver["type"]](
            folder, weights, plan, how
        )
    _log("===========SUCCESS===========")


def _analyze(asked: argparse.Namespace, how: Behaviour) -> None:
    model = _checked_path(asked.model_path)
    _check_dataset(asked.calib_dataset)
    weights = load_file(model / "model.safetensors")
    scores: dict[str, float] = {}
    for name in linear_layers(weights):
        weight = weights[f"{name}.weight"]
        parent, _, leaf = name.rpartition(".")
        siblings = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}
        weight = weights.get(f"{parent}.{siblings.get(leaf, leaf)}.weight", weight)
        scores[name] = float(np.abs(weight).max() / weight.std())
    if asked.scope == "layer":
        blocks: dict[str, float] = {}
        for name, score in scores.items():
            block = re.match(r".*?\.\d+(?=\.)", name)
            if block is not None and matches(name, asked.quant_modules):
                blocks[block[0]] = blocks.get(block[0], 0.0) + score
        scores = blocks
    else:
        scores = {n: s for n, s in scores.items() if matches(n, asked.pattern)}
    scores = {name: how.scores.get(name, score) for name, score in scores.items()}
    _print_scores(scores, asked)


def _print_scores(scores: Mapping[str, float], asked: argparse.Namespace) -> None:
    who = "app.analysis.application"
    kept = sorted(set(scores.values()), reverse=True)[: asked.topk]
    shown = sorted((n for n in scores if scores[n] in kept), key=lambda name: -scores[name])
    _log(f"=== Layer Analysis Results ({asked.metrics} method) ===", who)
    _log(f"Total layers analyzed: {len(scores)}", who)
    _log("-" * 80, who)
    for number, name in enumerate(shown, start=1):
        _log(f"{number:3d}. {name:<50s} | Score: {scores[name]:12.4e}", who)
    _log("-" * 80, who)
    _log(f"Top {len(shown)} most sensitive layers selected for disable_names", who)
    print(f"\ntop {len(shown)}:")
    for name in shown:
        print(f"  - '{name}.*'" if asked.scope == "layer" else f"  - '{name}'")
    _log("===========ANALYSIS COMPLETE===========", who)


if __name__ == "__main__":
    sys.exit(main())
