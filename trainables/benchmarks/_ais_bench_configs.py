"""The configurations that AISBench runs a benchmark with, in a folder of the run's own.

The user's files and those of the installation are only read. Names are ours, so that they cannot be
taken for others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from trainables._aisbench import DATASETS, SUMMARIZERS, model_source, private_folder
from trainables._trial import Json
from trainables.benchmarks._ais_bench_options import MAX_OUT_LEN, AisBenchOptions
from trainables.benchmarks._benchmark import Load
from trainables.benchmarks._builtin_schedule import arrivals, rescaled
from trainables.benchmarks._workload import Ask
from trainables.engines._arguments import argument_list, argument_name

_MODEL, _DATASET, _SUMMARIZER = "npu_tuner_model", "npu_tuner_dataset", "npu_tuner_summarizer"
_ABBR = "served"
_PER_SECOND = 1000
"""Timestamps of a dataset are milliseconds."""
_SUMMARIZER_SOURCE = """\
from ais_bench.benchmark.calculators import DefaultPerfMetricCalculator
from ais_bench.benchmark.summarizers import DefaultPerfSummarizer

summarizer = dict(
    attr="performance",
    type=DefaultPerfSummarizer,
    calculator=dict(
        type=DefaultPerfMetricCalculator,
        stats_list=["Average", "Min", "Max", "Median", "P75", "P90", "P95", "P99"],
    ),
)
"""
_DATASET_SOURCE = """\
from ais_bench.benchmark.datasets import CustomDataset
from ais_bench.benchmark.openicl.icl_evaluator import AccEvaluator
from ais_bench.benchmark.openicl.icl_inferencer import GenInferencer
from ais_bench.benchmark.openicl.icl_prompt_template import PromptTemplate
from ais_bench.benchmark.openicl.icl_retriever import ZeroRetriever

workload_datasets = [
    dict(
        abbr="workload",
        type=CustomDataset,
        path={path!r},
        reader_cfg=dict(
            input_columns=["question", "max_out_len", "timestamp"], output_column="answer"
        ),
        infer_cfg=dict(
            prompt_template=dict(type=PromptTemplate, template="{{question}}"),
            retriever=dict(type=ZeroRetriever),
            inferencer=dict(type=GenInferencer),
        ),
        eval_cfg=dict(evaluator=dict(type=AccEvaluator), pred_role="BOT"),
    )
]
"""
_OVERRULED_SOURCE = """\
config = __import__("mmengine.config", fromlist=["Config"]).Config.fromfile({file!r})
models = [dict(each, **{overruled!r}) for each in config["models"]]
"""
"""Imported in the common way, a name would only be resolved after the file was read."""


class Service(BaseModel):
    """The service that is measured, as a model's configuration names it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    model: str
    host_ip: str
    host_port: int


def due_times(asks: Sequence[Ask], load: Load, seed: int) -> list[float] | None:
    """When each request is sent, in seconds from the first; None: AISBench decides.

    It paces by itself where the concurrency is limited, as it knows no limit for requests that have
    times of their own; what it draws does not depend on the seed.
    """
    if load.concurrency is not None:
        return None
    recorded = [ask.arrival for ask in asks if ask.arrival is not None]
    if asks and len(recorded) == len(asks):
        return rescaled(recorded, load.request_rate)
    if load.request_rate is None:
        return None
    return arrivals(len(asks), load.request_rate, seed)


def write_workload(file: Path, asks: Sequence[Ask], due: Sequence[float] | None) -> None:
    """The dataset that asks just this."""
    with file.open("w", encoding="utf-8") as stream:
        for index, ask in enumerate(asks):
            row: dict[str, Json] = {
                "question": ask.prompt,
                "answer": "",
                "max_tokens": ask.output_tokens,
            }
            if due is not None:
                row["timestamp"] = due[index] * _PER_SECOND
            stream.write(json.dumps(row) + "\n")


def write_configs(
    folder: Path,
    options: AisBenchOptions,
    service: Service,
    load: Load,
    *,
    theirs: Path | None,
    workload: Path | None,
    timed: bool,
) -> list[str]:
    """Write all configurations below ``folder`` and return the arguments that name them.

    Args:
        folder: The folder of configurations, which is made.
        options: The block.
        service: What is measured.
        load: How it is loaded; its number of requests is known.
        theirs: File of the configuration ``options.models``; None where there is none.
        workload: The dataset that was written; None where AISBench has its own.
        timed: Whether that dataset says when each request is sent.
    """
    own_summary = not any(argument_name(key) == "summarizer" for key in options.args)
    shared = [*(() if workload else DATASETS), *(() if own_summary else SUMMARIZERS)]
    private_folder(folder, options.config_dir, shared)
    _write(folder / "models" / f"{_MODEL}.py", _model(options, service, load, theirs, timed))
    arguments: dict[str, Json] = {"models": _MODEL}
    if workload is not None:
        source = _DATASET_SOURCE.format(path=str(workload))
        _write(folder / "datasets" / f"{_DATASET}.py", source)
        arguments["datasets"] = _DATASET
    elif options.datasets:
        arguments["datasets"] = options.datasets
    else:
        arguments["custom-dataset-path"] = options.custom_dataset_path
    if own_summary:
        _write(folder / "summarizers" / f"{_SUMMARIZER}.py", _SUMMARIZER_SOURCE)
        arguments["summarizer"] = _SUMMARIZER
    arguments |= {"config-dir": str(folder), "mode": "perf", "debug": True}
    arguments |= {"num-prompts": load.requests, "num-warmups": options.num_warmups}
    return argument_list(arguments)


def _model(
    options: AisBenchOptions, service: Service, load: Load, theirs: Path | None, timed: bool
) -> str:
    """Source of the model's configuration."""
    decided: dict[str, Json] = {
        **service.model_dump(),
        "url": "",
        "stream": True,
        "request_rate": 0 if timed or load.request_rate is None else load.request_rate,
        "use_timestamp": timed,
        "batch_size": load.concurrency or load.requests,
    }
    if theirs is not None:
        if options.max_out_len is not None:
            decided["max_out_len"] = options.max_out_len
        return _OVERRULED_SOURCE.format(overruled=decided, file=str(theirs))
    ours: Mapping[str, Json] = {
        "attr": "service",
        "abbr": _ABBR,
        **decided,
        "retry": options.retry,
        "max_out_len": options.max_out_len or MAX_OUT_LEN,
        "trust_remote_code": options.trust_remote_code,
        "generation_kwargs": options.generation(),
    }
    return model_source(options.client, ours)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
