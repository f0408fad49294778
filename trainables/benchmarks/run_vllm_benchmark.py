"""Stage program of the benchmark ``vllm_benchmark``.

Request: ``call`` (a :class:`ToolCall`), ``result`` (the file that ``vllm bench serve`` is told to
write), ``asked`` (returned as it is). Result: ``metrics``, ``data``, ``artifacts``, ``asked``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables._failures import failure_of
from trainables._program import FailureClass, StageError, run_program
from trainables._trial import Json
from trainables.benchmarks._foreign import ResultError, read_object
from trainables.benchmarks._tool_call import (
    ToolCall,
    all_failed,
    failure_note,
    require_listener,
    run_call,
)
from trainables.benchmarks._vllm_benchmark_results import failures, vllm_metrics

_LAST_LINES = 20
_SYMPTOMS: tuple[tuple[FailureClass, str, str], ...] = (
    (
        "input",
        r"error: (?:unrecognized arguments|argument [^\n:]+:|ambiguous option)[^\n]*",
        "see benchmark.args: this version of vllm bench serve does not take it so",
    ),
    (
        "input",
        r"[^\n]*No module named \W?vllm[^\n]*|[^\n]*No package metadata was found for vllm[^\n]*",
        "name a vLLM that works in benchmark.command, such as [/opt/vllm/bin/vllm]",
    ),
    (
        "input",
        r"(?:\w+Error)[^\n]*(?:Repo id|tokenizer|not a valid model)[^\n]*",
        "vLLM cannot read the model's tokenizer",
    ),
    (
        "input",
        r"(?:FileNotFoundError|ModuleNotFoundError|ImportError|ArgumentTypeError): [^\n]*",
        "see benchmark.dataset_path, and what its dataset needs",
    ),
)


def run_vllm_benchmark(request: Mapping[str, Any]) -> dict[str, Json]:
    """Carry out a request document. Raises ``StageError``."""
    call = ToolCall.model_validate(request["call"])
    file = Path(request["result"])
    Path(call.folder).mkdir(parents=True, exist_ok=True)
    # A file that an earlier attempt left must not be taken for the result of this one.
    file.unlink(missing_ok=True)
    output = run_call(call, _explained)
    try:
        document = read_object(file)
        failed = failures(document, output)
        if failed:
            require_listener(call)
        if not document.get("completed") and failed:
            raise all_failed(failed)
        metrics = vllm_metrics(document, file)
    except ResultError as error:
        raise StageError("tool", str(error), "see the stage's log") from error
    note = failure_note(failed, metrics["requests"])
    data = {"note": note, "failures": failed}
    artifacts = {"result": str(file)}
    return {"metrics": metrics, "data": data, "artifacts": artifacts, "asked": request["asked"]}


def _explained(code: int, output: str) -> StageError:
    for failure, pattern, suggestion in _SYMPTOMS:
        if found := re.search(pattern, output):
            said = f"vllm bench serve ended with exit code {code}: {found[0].strip()}"
            return StageError(failure, said, suggestion)
    lines = [line for line in output.splitlines() if line.strip()]
    return StageError(*failure_of("vllm bench serve", code, "\n".join(lines[-_LAST_LINES:])))


if __name__ == "__main__":
    run_program(run_vllm_benchmark)
