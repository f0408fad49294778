"""A ranking by ``msmodelslim analyze``, read from what it prints."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainables._program import StageError
from trainables.analysis._groups import block_groups, block_name, fused_groups
from trainables.analysis._options import DISTRIBUTION_METRICS, AnalysisRequest
from trainables.analysis._ranking import Scored
from trainables.models import ModelError, describe_model
from trainables.quantization import (
    Calibration,
    MsModelSlimOptions,
    Practice,
    is_excluded,
    parse_device,
)
from trainables.quantization._msmodelslim_call import engine_dataset, flag, run_msmodelslim
from trainables.quantization._msmodelslim_plan import LinearNames, covered_by, path_problems
from trainables.quantization._msmodelslim_tool import missing_command
from trainables.quantization._verify import tensor_headers

_LINE = re.compile(r"(?:^|\s)\d+\.\s+(?P<name>\S+)\s+\|\s*Score:\s*(?P<score>\S+)\s*$")
_TOTAL = re.compile(r"Total layers analyzed: (\d+)")
_ALL = 1_000_000
"""More groups of equal score than any model has."""
_METRICS = {"mse": "mse_layer_wise"}
_VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"


def msmodelslim_scores(
    asked: AnalysisRequest, practice: Practice, calibration: Calibration
) -> list[Scored]:
    """Units by msModelSlim's score: decoder blocks, or linear layers.

    Candidates are those the practice quantizes. Of fused layers, which share their input and
    hence their score, the worst decides.

    Raises:
        StageError: The tool cannot be called, failed, or ranks none of the candidates.
    """
    options = asked.msmodelslim or MsModelSlimOptions()
    candidates = _candidates(asked, practice)
    kind, options = _on_device(options, asked.device)
    problems = path_problems({"the model folder": asked.model})
    if missing := missing_command(options):
        problems.append(missing)
    if problems:
        raise StageError("input", "; ".join(problems), "see search.analysis.msmodelslim")
    with tempfile.TemporaryDirectory(prefix="analysis-") as folder:
        arguments = {
            "model_type": options.model_type,
            "model_path": str(asked.model.resolve()),
            "device": kind,
            "metrics": _METRICS.get(asked.metric, asked.metric),
            "calib_dataset": engine_dataset(practice, calibration, Path(folder)),
            "topk": str(_ALL),
            "trust_remote_code": flag(asked.trust_remote_code),
        }
        command = [text for key, value in arguments.items() for text in (f"--{key}", value)]
        command = ["analyze", str(asked.scope), *command]
        lines = run_msmodelslim(options, command, threads=asked.threads)
    scores = parse_scores(lines)
    scored = _ranked(asked, candidates, scores)
    if not scored:
        raise StageError(
            "input",
            f"msmodelslim analyze ranks {', '.join(list(scores)[:3])}, ..., none of which the "
            f"practice quantizes and include ({', '.join(asked.include)}) covers",
        )
    return scored


def parse_scores(lines: Iterable[str]) -> dict[str, float]:
    """Name to score from the log of ``msmodelslim analyze``.

    Raises:
        StageError: There is no ranking in it, or less of one than it says.
    """
    found: dict[str, float] = {}
    total = None
    for line in lines:
        if match := _LINE.search(line.rstrip()):
            try:
                found[match["name"].removesuffix(".*")] = float(match["score"])
            except ValueError:
                continue
        elif match := _TOTAL.search(line):
            total = int(match[1])
    if not found or (total is not None and total != len(found)):
        raise StageError(
            "tool",
            f"msmodelslim analyze says it analyzed {'?' if total is None else total} layers, and "
            f"printed the scores of {len(found)}",
            "see the stage's log; another version of msmodelslim may print another form",
        )
    return found


def describes(asked: AnalysisRequest, practice: Practice) -> str:
    """The scheme behind the scores."""
    if asked.metric in DISTRIBUTION_METRICS:
        return practice.metadata.config_id
    return "MXFP4 (msmodelslim)"


def _candidates(asked: AnalysisRequest, practice: Practice) -> list[str]:
    try:
        names = LinearNames.of(tensor_headers(asked.model), describe_model(asked.model).layers)
    except ModelError as error:
        raise StageError("input", f"the model cannot be loaded: {error}") from error
    covered = covered_by(practice, names.layers)
    return [name for name, target in covered.items() if target is not None]


def _ranked(
    asked: AnalysisRequest, candidates: Sequence[str], scores: Mapping[str, float]
) -> list[Scored]:
    """Units of candidates that ``include`` covers, with the scores the tool gave them."""
    if asked.unit == "block":
        units = block_groups(candidates)
        named = {unit: [block_name(unit[0]) or unit[0]] for unit in units}
    else:
        units = fused_groups(candidates) if asked.unit == "fused" else [(n,) for n in candidates]
        named = {unit: list(unit) for unit in units}
    return [
        Scored(tuple(named[unit]), max(scores[name] for name in named[unit] if name in scores))
        for unit in units
        if any(is_excluded(name, asked.include) for name in unit)
        and any(name in scores for name in named[unit])
    ]


def _on_device(options: MsModelSlimOptions, device: str) -> tuple[str, MsModelSlimOptions]:
    """The kind of device for ``--device``, which takes no number, and options that show the tool
    no other device than the one meant."""
    try:
        parsed = parse_device(device)
    except ValueError as error:
        raise StageError("input", f"device: {error}") from error
    if parsed.kind == "cpu" or parsed.indices is None:
        return parsed.kind, options
    visible = os.environ.get(_VISIBLE)
    present = None if not visible else visible.split(",")
    if present is not None and max(parsed.indices) >= len(present):
        message = f"device: {device} names more devices than {_VISIBLE}={visible} shows"
        raise StageError("input", message)
    chosen = [str(i) if present is None else present[i] for i in parsed.indices]
    env: dict[str, Any] = {**options.env, _VISIBLE: ",".join(chosen)}
    return parsed.kind, options.model_copy(update={"env": env})
