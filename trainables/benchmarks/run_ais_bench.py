"""Stage program of the benchmark ``ais_bench``.

Request: ``call`` (a :class:`ToolCall` with the program alone), ``options`` (the block), ``target``
(``served_name``, ``model``), ``asked`` (returned as it is), whose ``load`` and ``seed`` decide the
run. Result: ``metrics``, ``data``, ``artifacts``, ``asked``.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainables._aisbench import (
    MODELS,
    config_files,
    failure,
    output_folder,
    own_config_files,
    plain,
    telling_line,
    unmatched,
)
from trainables._failures import failure_of
from trainables._program import StageError, run_program
from trainables._trial import Json
from trainables.benchmarks._ais_bench_configs import (
    Service,
    due_times,
    write_configs,
    write_workload,
)
from trainables.benchmarks._ais_bench_options import AisBenchOptions
from trainables.benchmarks._ais_bench_results import (
    Performance,
    failures,
    find_performance,
    performance_metrics,
)
from trainables.benchmarks._benchmark import Load
from trainables.benchmarks._foreign import ResultError
from trainables.benchmarks._tool_call import ToolCall, failure_note, require_listener, run_call
from trainables.benchmarks._workload import Ask, make_workload
from trainables.benchmarks._workload_vocabulary import WorkloadError, vocabulary_of
from trainables.engines._arguments import argument_list

_LAST_LINES = 20
_REASONS = re.compile(r"[^\n]*failed reasons: [^\n]*")
"""Why the warm-up failed, which AISBench says long before its last words."""
_SEARCH_S = 120.0


def run_ais_bench(request: Mapping[str, Any]) -> dict[str, Json]:
    """Carry out a request document. Raises ``StageError``."""
    call = ToolCall.model_validate(request["call"])
    options = AisBenchOptions.model_validate(request["options"])
    load = Load(**request["asked"]["load"])
    asked = load.requests or options.num_prompts
    folder = Path(call.folder)
    # Tables that an earlier attempt left must not be taken for those of this one.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    arguments = _arguments(request, call, options, replace(load, requests=asked))
    argv = [*call.argv, *arguments, "--work-dir", str(folder / "output")]
    run = call.model_copy(update={"argv": [*argv, *argument_list(options.args)]})
    output = run_call(run, lambda code, said: _explained(code, said, options))
    try:
        performance = find_performance(output_folder(output))
        failed = failures(performance)
        if failed:
            require_listener(call)
        metrics = performance_metrics(performance)
    except ResultError as error:
        reason = telling_line(output)
        raise failure(f"ais_bench left no measurement: {error}", reason) from error
    return {
        "metrics": _under(load, metrics),
        "data": {"note": _note(failed, metrics["requests"], asked), "failures": failed},
        "artifacts": _artifacts(performance),
        "asked": request["asked"],
    }


def _arguments(
    request: Mapping[str, Any], call: ToolCall, options: AisBenchOptions, load: Load
) -> list[str]:
    """The arguments of the run, whose configurations and dataset are written here."""
    folder, target, seed = Path(call.folder), request["target"], request["asked"]["seed"]
    host, port = call.address
    service = Service(
        path=target["model"], model=target["served_name"], host_ip=host, host_port=port
    )
    workload, due = None, None
    if options.own_workload:
        asks = _asks(options.own_workload, load, seed, Path(target["model"]))
        workload, due = folder / "workload.jsonl", due_times(asks, load, seed)
        write_workload(workload, asks, due)
    return write_configs(
        folder / "config",
        options,
        service,
        load,
        theirs=_located(call, options) if options.models else None,
        workload=workload,
        timed=due is not None,
    )


def _asks(block: dict[str, Json], load: Load, seed: int, model: Path) -> Sequence[Ask]:
    try:
        return make_workload(block).asks(load.requests or 0, seed, vocabulary_of(model))
    except (OSError, WorkloadError) as error:
        raise StageError("input", f"the workload cannot be made: {error}") from error


def _located(call: ToolCall, options: AisBenchOptions) -> Path:
    """The file of the configuration ``models``: in the user's folder, among AISBench's own, or
    where AISBench itself says that it is."""
    name = str(options.models)
    theirs = config_files(options.config_dir, MODELS).get(name.lower(), [])
    own = own_config_files(options.command[0], MODELS).get(name.lower(), [])
    if len(found := [*theirs, *own]) == 1:
        return found[0]
    argv = [*call.argv, "--models", name, "--search"]
    if options.config_dir:
        argv += ["--config-dir", options.config_dir]
    search = call.model_copy(
        update={"argv": argv, "timeout": min(call.timeout, _SEARCH_S)},
    )
    output = run_call(search, lambda code, said: _explained(code, said, options))
    row = re.search(rf"--models\W+{re.escape(name)}\W+?(/\S[^\n]*?\.py)\s", plain(output), re.I)
    if row is None:
        raise StageError(
            "input",
            f"AISBench does not say where its model configuration {name!r} is",
            "put the file into models/ of a folder, and name that in benchmark.config_dir",
        )
    return Path(row[1])


def _under(load: Load, metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics with the load as it was asked for; AISBench always has some limit."""
    found = {name: value for name, value in metrics.items() if name != "concurrency"}
    if load.concurrency is not None:
        found["concurrency"] = float(load.concurrency)
    if load.request_rate is not None:
        found["request_rate"] = load.request_rate
    return found


def _note(failed: Mapping[str, int], requests: float, asked: int) -> str:
    fewer = ""
    if requests < asked:
        fewer = f"the dataset has only {requests:g} of the {asked} requests that were asked for"
    return ". ".join(filter(None, (failure_note(failed, requests), fewer)))


def _artifacts(performance: Performance) -> dict[str, str]:
    files = {
        "performance": performance.table,
        "totals": performance.totals,
        "requests": performance.details,
    }
    return {name: str(file) for name, file in files.items() if file.exists()}


def _explained(code: int, output: str, options: AisBenchOptions) -> StageError:
    for kind, name in (("dataset", options.datasets), ("model", options.models)):
        if name and unmatched(output, name):
            return StageError(
                "input",
                f"AISBench has none, or several, of the {kind} configuration {name!r}",
                f"see ais_bench --{kind}s NAME --search, or name your folder in config_dir",
            )
    words = _REASONS.search(plain(output))
    reason = words[0].strip() if words else telling_line(output)
    if code > 0 and reason:
        return failure(f"ais_bench ended with exit code {code}", reason)
    lines = [line.strip() for line in plain(output).splitlines() if line.strip()]
    return StageError(*failure_of("ais_bench", code, "\n".join(lines[-_LAST_LINES:])))


if __name__ == "__main__":
    run_program(run_ais_bench)
