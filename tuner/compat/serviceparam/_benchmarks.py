"""The ``trial.benchmark`` block of an optimizer's settings, and the latencies that count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from searchers import Json
from trainables.benchmarks import LATENCIES, latency_name
from tuner.compat.serviceparam._config import AisBench, MetricAlgorithm, Settings, VllmBenchmark
from tuner.compat.serviceparam._engines import placeholder
from tuner.compat.serviceparam._parameters import Remarks
from tuner.compat.serviceparam._words import parse_others

Tool: TypeAlias = AisBench | VllmBenchmark
_STATISTICS = {"average": "mean", "slo_p90": "p90"}
_OF_ENGINE = ("host", "port", "model", "served_model_name")
_NEEDLESS = (
    "percentile-metrics",
    "metric-percentiles",
    "save-result",
    "result-dir",
    "result-filename",
    "disable-tqdm",
)
_OPTIONS: Mapping[str, Callable[[Json], Json]] = {
    "backend": str,
    "endpoint": str,
    "dataset-path": str,
    "random-input-len": int,
    "random-output-len": int,
    "random-range-ratio": float,
    "num-warmups": int,
    "temperature": float,
    "ignore-eos": bool,
    "save-detailed": bool,
}
"""Arguments of the tool that are options of our block."""
_SHIPPED = {"host": "127.0.0.1", "port": "port", "model": "model_path"}


def ais_bench(
    settings: Settings, remarks: Remarks, *, command: list[str] | None
) -> dict[str, Json]:
    """AISBench in its performance mode."""
    given, place = settings.ais_bench.command, "ais_bench.command"
    block: dict[str, Json] = {"type": "ais_bench"}
    if command is not None:
        block["command"] = command
    for key, wanted in (("models", "a model task of AISBench"), ("datasets", "a dataset task")):
        block[key] = placeholder(getattr(given, key), key, f"{place}.{key}", wanted, remarks)
    if given.mode not in ("", "perf"):
        said = "only perf measures throughput and latency"
        remarks.problem(f"{place}.mode", f"{given.mode!r}: {said}")
    block["num_prompts"] = _prompts(given.num_prompts, place, remarks)
    return block


def vllm_benchmark(
    settings: Settings, engine: str, remarks: Remarks, *, command: list[str] | None
) -> dict[str, Json]:
    """``vllm bench serve``; which service it measures is the trial's business."""
    given, place = settings.vllm_benchmark.command, "vllm_benchmark.command"
    block: dict[str, Json] = {"type": "vllm_benchmark"}
    if command is not None:
        block["command"] = command
    name = f"{place}.dataset_name"
    block["dataset_name"] = placeholder(
        given.dataset_name, "dataset_name", name, "such as sharegpt or random", remarks
    )
    if given.dataset_path and given.dataset_path != "dataset_path":
        block["dataset_path"] = given.dataset_path
    if given.backend != "vllm":
        block["backend"] = placeholder(
            given.backend, "backend", f"{place}.backend", "such as openai-chat", remarks
        )
    block["num_prompts"] = _prompts(given.num_prompts, place, remarks)
    _add_others(block, given.others, f"{place}.others", remarks)
    if engine == "vllm":
        _compare(settings, remarks)
    return block


def _add_others(block: dict[str, Json], others: str, place: str, remarks: Remarks) -> None:
    """Further arguments: those that are options of ours as such, the rest as they are.

    What nobody wrote is as ``vllm bench serve`` has it.
    """
    block |= {"ignore_eos": False, "temperature": None}
    try:
        args = parse_others(others)
    except ValueError as error:
        remarks.problem(place, str(error))
        return
    for name in [name for name in args if name in _NEEDLESS]:
        del args[name]
        remarks.note(place, f"--{name} is not needed: the result is complete and kept")
    for name, kind in _OPTIONS.items():
        if name not in args:
            continue
        value = args.pop(name)
        try:
            block[name.replace("-", "_")] = kind(value)
        except (TypeError, ValueError):
            remarks.problem(place, f"--{name} has to be a number, not {value!r}")
    if args:
        block["args"] = args


def counted_latencies(tool: Tool, table: str, remarks: Remarks) -> dict[str, str]:
    """Metrics for TTFT and TPOT in the fitness: means unless ``performance_config`` says else."""
    config, place = tool.performance_config, f"{table}.performance_config"
    found = {
        "ttft_metric": _metric(config.time_to_first_token, f"{place}.time_to_first_token", remarks),
        "tpot_metric": _metric(
            config.time_per_output_token, f"{place}.time_per_output_token", remarks
        ),
    }
    means = {"ttft_metric": "ttft_mean_s", "tpot_metric": "tpot_mean_s"}
    if table == "vllm_benchmark" and found != means:
        said = "counts here; the original reads nothing but means from this tool"
        remarks.note(place, said)
    return found


def _metric(chosen: MetricAlgorithm, place: str, remarks: Remarks) -> str:
    latency = chosen.metric.strip().lower()
    if latency not in LATENCIES:
        known = ", ".join(name.upper() for name in LATENCIES)
        remarks.problem(f"{place}.metric", f"{chosen.metric!r} is no latency; there are {known}")
    if chosen.algorithm == "n":
        said = "n is a number of requests, no latency; write average, max, min, p75, p90 or p99"
        remarks.problem(f"{place}.algorithm", said)
    return latency_name(latency, _STATISTICS.get(chosen.algorithm, chosen.algorithm))


def _prompts(count: int, place: str, remarks: Remarks) -> int:
    if count < 1:
        remarks.problem(
            f"{place}.num_prompts", "is not set; give the number of requests, 1 or more"
        )
    return count


def _compare(settings: Settings, remarks: Remarks) -> None:
    """Where both commands name the service differently, the engine's word counts."""
    ours: Mapping[str, str] = settings.vllm.command.model_dump()
    theirs: Mapping[str, str] = settings.vllm_benchmark.command.model_dump()
    for key in _OF_ENGINE:
        if theirs[key] and theirs[key] not in (ours[key], _SHIPPED.get(key, "model_name")):
            said = f"is {theirs[key]!r}, but {ours[key]!r} in vllm.command, which counts"
            remarks.note(f"vllm_benchmark.command.{key}", said)
