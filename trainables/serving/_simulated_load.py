"""What a benchmark would send, without sending it: lengths, shared beginnings and times.

Lengths come from the benchmark's own code with the seed it would have; only the texts are not
written. Where lengths are counted in texts, the model's tokenizer counts, and without one they are
estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables._program import StageError
from trainables.benchmarks import Benchmark, Load
from trainables.benchmarks._ais_bench_configs import due_times as ais_bench_times
from trainables.benchmarks._ais_bench_options import MAX_OUT_LEN, AisBenchOptions
from trainables.benchmarks._builtin_options import BuiltinOptions
from trainables.benchmarks._builtin_run import due_times as builtin_times
from trainables.benchmarks._builtin_schedule import arrivals
from trainables.benchmarks._summary import Goodput
from trainables.benchmarks._vllm_benchmark_options import VllmBenchmarkOptions
from trainables.benchmarks._workload import Ask, make_workload
from trainables.benchmarks._workload_texts import TextWorkload
from trainables.benchmarks._workload_vocabulary import WorkloadError
from trainables.serving._simulated_prompts import LengthsVocabulary, Prefixes
from trainables.serving._simulated_vllm_bench import vllm_bench_asks, vllm_bench_times
from trainables.simulation import Load as SimulatedLoad
from trainables.simulation import Request


@dataclass(frozen=True)
class Play:
    """A run of a benchmark as the simulator plays it.

    Attributes:
        load: What is sent.
        goodput: Bounds of ``goodput_per_s``.
        notes: In what it differs from the run of the benchmark.
    """

    load: SimulatedLoad
    goodput: Goodput | None = None
    notes: tuple[str, ...] = ()


def play(benchmark: Benchmark, load: Load, seed: int, model: Path) -> Play:
    """What a run of a benchmark sends.

    Args:
        model: Folder of the checkpoint, for its tokenizer.

    Raises:
        StageError: What it sends cannot be known without running it, or its data is missing.
    """
    options = benchmark.options
    makers: Mapping[type[Any], Callable[..., Play]] = {
        BuiltinOptions: _builtin,
        VllmBenchmarkOptions: _vllm_benchmark,
        AisBenchOptions: _ais_bench,
    }
    make = makers.get(type(options))
    if make is None:
        raise StageError(
            "input",
            f"what the benchmark {options.type} sends is not known without running it",
            "simulate with benchmark: {type: builtin}",
        )
    try:
        return make(options, load, seed, LengthsVocabulary(model))
    except (OSError, WorkloadError, ValueError) as error:
        raise StageError("input", f"the workload cannot be made: {error}") from error


def _builtin(options: BuiltinOptions, load: Load, seed: int, vocabulary: LengthsVocabulary) -> Play:
    workload = make_workload(options.workload)
    asks = workload.asks(load.requests or options.requests, seed, vocabulary)
    due = builtin_times(asks, options, load, seed)
    notes = _text_notes(vocabulary)
    if not options.ignore_eos:
        notes.append("answers are as long as asked for, though ignore_eos is false")
    return Play(_load(asks, due, load), options.goodput, tuple(notes))


def _vllm_benchmark(
    options: VllmBenchmarkOptions, load: Load, seed: int, vocabulary: LengthsVocabulary
) -> Play:
    count = load.requests or options.num_prompts
    asks, notes = vllm_bench_asks(options, count, seed, vocabulary)
    due = vllm_bench_times(options, len(asks), load.request_rate, seed)
    notes = [*notes, *_text_notes(vocabulary)]
    if not options.ignore_eos:
        notes.append("answers are as long as asked for, though ignore_eos is false")
    return Play(_load(asks, due, load), options.goodput, tuple(notes))


def _ais_bench(
    options: AisBenchOptions, load: Load, seed: int, vocabulary: LengthsVocabulary
) -> Play:
    count = load.requests or options.num_prompts
    if options.datasets:
        raise WorkloadError(
            f"how long the requests of AISBench's dataset {options.datasets} are is not known "
            "without running it; give benchmark.workload or benchmark.custom_dataset_path"
        )
    if options.custom_dataset_path:
        most = options.max_out_len or MAX_OUT_LEN
        asks = _custom(options.custom_dataset_path, count, most, vocabulary)
    else:
        block = options.own_workload
        assert block is not None
        asks = make_workload(block).asks(count, seed, vocabulary)
    notes = _text_notes(vocabulary)
    due = ais_bench_times(asks, load, seed)
    if due is None and load.request_rate is not None:
        due = arrivals(len(asks), load.request_rate, seed)
        notes.append("AISBench draws arrivals without a seed where the concurrency is limited")
    return Play(_load(asks, due, load), None, tuple(notes))


def _custom(
    path: str, count: int, most_output: int, vocabulary: LengthsVocabulary
) -> Sequence[Ask]:
    """The rows of a custom dataset in their order, which AISBench does not repeat."""
    if not path.endswith(".jsonl"):
        raise WorkloadError(f"{path}: only custom datasets in .jsonl can be simulated")
    block = {"path": path, "output_tokens": most_output, "shuffle": False}
    workload = TextWorkload(TextWorkload.Options.model_validate(block))
    rows = len(workload.read())
    return workload.asks(min(count, rows), 0, vocabulary)


def _text_notes(vocabulary: LengthsVocabulary) -> list[str]:
    if vocabulary.estimates:
        return ["lengths of texts are estimated: the model's folder has no tokenizer.json"]
    if vocabulary.differs:
        said = "the model's folder has no tokenizer.json, so the benchmark only estimates them"
        return [f"real prompts may have other lengths: {said} (form: token_ids is exact)"]
    return []


def _load(asks: Sequence[Ask], due: Sequence[float] | None, load: Load) -> SimulatedLoad:
    prefixes = Prefixes()
    requests = []
    for number, ask in enumerate(asks):
        prefix, block = prefixes.of(ask)
        at = None if due is None else due[number]
        requests.append(Request(number, ask.input_tokens, ask.output_tokens, at, prefix, block))
    return SimulatedLoad(requests, load.concurrency)
