"""What msModelSlim's last words say about why it failed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trainables._failures import failure_of
from trainables._program import FailureClass, StageError

_NAMED = re.compile(
    r"^(?:[\w.]+\.)?(?P<name>\w+): Code: (?P<code>\d{3}), Message: (?P<message>.*?)"
    r"(?:^TIP: (?P<tip>[^\n]*)|\Z)",
    re.MULTILINE | re.DOTALL,
)
_RAISED = re.compile(
    r"^(?:[\w.]+\.)?\w*(?:Error|Exception|Interrupt)(?:: [^\n]+(?:\n[^\n]+)*)?$", re.MULTILINE
)
_USAGE = re.compile(r"^msmodelslim.*: error: .*$", re.MULTILINE)
_UNEXPECTED, _TIMEOUT = 500, 303
_KNOWN: tuple[tuple[str, FailureClass, str], ...] = (
    (
        r"has no attribute 'npu'|No module named 'torch_npu'",
        "device",
        "this machine's PyTorch has no NPU; quantize on cpu, or install torch-npu there",
    ),
    (
        r"expected m1 and m2 to have the same dtype",
        "input",
        "some of msModelSlim's processors and savers work on float32 checkpoints only when they "
        "run on a processor; convert the model to float32, or quantize on an npu",
    ),
    (r"No space left on device|Disk quota exceeded", "tool", "free space for the weights"),
)
"""Python errors behind msModelSlim's ``UnexpectedError``."""


def tool_failure(what: str, code: int, output: str) -> StageError:
    """The failure of a run of msModelSlim.

    Its own errors, except those it did not expect, would be the same next time: the practice, the
    model or the environment has to change. All else is judged by the Python error behind it, or by
    the way the program ended.

    Args:
        what: What was run, for the message: ``msmodelslim quant``.
        code: Its exit status, negative for the signal that killed it.
        output: The end of what it printed.
    """
    raised = [said for said in _RAISED.findall(output) if not _NAMED.match(said)]
    for said in raised:
        if failure_of(what, code, said)[0] == "out_of_memory":
            return StageError(*failure_of(what, code, said))
    errors = list(_NAMED.finditer(output))
    named = errors[-1] if errors else None
    if named is not None and int(named["code"]) != _UNEXPECTED:
        number = int(named["code"])
        lines = (line.strip() for line in named["message"].splitlines())
        return StageError(
            "timeout" if number == _TIMEOUT else "input",
            f"{what}: {named['name']} (code {number}): {'; '.join(filter(None, lines))}",
            (named["tip"] or "").strip(),
        )
    if usage := _USAGE.search(output):
        tip = "another version of msmodelslim may have other arguments"
        return StageError("input", f"{what} refuses its arguments: {usage[0]}", tip)
    said = raised[-1] if raised else ""
    for pattern, failure, suggestion in _KNOWN:
        if re.search(pattern, said):
            return StageError(failure, f"{what}: {said.splitlines()[0]}", suggestion)
    failure, message, suggestion = failure_of(what, code, said or output)
    if failure == "tool" and said:
        message = f"{what}: {said.splitlines()[0]}"
    return StageError(failure, message, suggestion)


_CODES: tuple[tuple[str, str], ...] = (
    (r"\(code 201\)|the model cannot be loaded|weight files|safetensors|config\.json|Hugging Face"
     r"|quantized already", "MODEL_LOAD_ERROR"),
    (r"\(code 202\)|spec\.dataset|calibration|\.jsonl?\b", "DATASET_ERROR"),
    (r"the command .* is not there|cannot be started", "MCP_ERROR"),
)  # fmt: skip


def failure_report(failure: Mapping[str, Any]) -> dict[str, Any]:
    """The report ``{ok: false, error, error_code, suggestion}`` that an orchestrator expects.

    Args:
        failure: ``{class, message, suggestion}`` of a ``StageError`` or a failed trial.

    Returns:
        ``error_code`` is ``OOM_ERROR``, ``MODEL_LOAD_ERROR``, ``DATASET_ERROR``, ``MCP_ERROR``
        (the tool could not be called), ``VALIDATION_ERROR`` for all else that has to be put right
        before another attempt, or ``UNKNOWN_ERROR``.
    """
    kind, message = failure["class"], str(failure["message"])
    found = (code for pattern, code in _CODES if re.search(pattern, message))
    if kind == "out_of_memory":
        error_code = "OOM_ERROR"
    elif kind in ("startup", "lost", "network"):
        error_code = "MCP_ERROR"
    elif kind == "input":
        error_code = next(found, "VALIDATION_ERROR")
    else:
        error_code = "UNKNOWN_ERROR"
    suggestion = failure.get("suggestion") or ""
    return {"ok": False, "error": message, "error_code": error_code, "suggestion": suggestion}
