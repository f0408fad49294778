"""Lengths and times of what ``vllm bench serve`` sends, as its options and the seed decide them.

Facts of vLLM 0.32 (``benchmarks/datasets``, ``benchmarks/serve.py``): random lengths are drawn by
numpy's default generator, all inputs before all outputs; arrivals by numpy's old generator, and
scaled to last as long as the rate says.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from trainables._trial import Json
from trainables.benchmarks._vllm_benchmark_options import VllmBenchmarkOptions
from trainables.benchmarks._workload import Ask
from trainables.benchmarks._workload_vocabulary import WorkloadError
from trainables.engines._arguments import argument_name
from trainables.serving._simulated_prompts import Unwritten

_INPUT, _OUTPUT = 1024, 128
_CUSTOM_OUTPUT = 256
_FEWEST, _MOST_INPUT, _MOST_TOTAL = 4, 1024, 2048


class Counter(Protocol):
    """Counts the tokens of a text."""

    def count(self, text: str) -> int: ...

    def special_tokens(self) -> int: ...


def vllm_bench_asks(
    options: VllmBenchmarkOptions, count: int, seed: int, counter: Counter
) -> tuple[Sequence[Ask], list[str]]:
    """Requests, and in what they may differ from those that the tool sends.

    Raises:
        OSError, WorkloadError, ValueError: The dataset cannot be read, or is none whose lengths
            can be known.
    """
    args = {argument_name(key): value for key, value in options.args.items()}
    if options.dataset_name == "random":
        return _random(options, args, count, seed, counter), []
    if options.dataset_name == "prefix_repetition":
        return _repetition(args, count, seed), []
    path = options.dataset_path
    if path is not None and options.dataset_name == "sharegpt":
        return _oversampled(list(_sharegpt(path, args, count, seed, counter)), count, seed), []
    if path is not None and options.dataset_name == "custom":
        notes = [] if args.get("skip-chat-template") else ["prompts are counted without a template"]
        return _oversampled(list(_custom(path, args, count, seed, counter)), count, seed), notes
    raise WorkloadError(
        f"how long the requests of the dataset {options.dataset_name} are is not known without "
        "running it; there are random, sharegpt, custom and prefix_repetition"
    )


def vllm_bench_times(
    options: VllmBenchmarkOptions, count: int, rate: float | None, seed: int
) -> list[float] | None:
    """Seconds after the start at which requests are due; None: at once."""
    if rate is None:
        return None
    args = {argument_name(key): value for key, value in options.args.items()}
    shape = float(args.get("burstiness") or 1.0)
    source = np.random.RandomState(seed)
    gaps = [source.gamma(shape=shape, scale=1.0 / (rate * shape)) for _ in range(count)]
    times = np.cumsum(gaps)
    return [float(at) for at in times * (count / rate / times[-1])]


def _random(
    options: VllmBenchmarkOptions, args: dict[str, Json], count: int, seed: int, counter: Counter
) -> Sequence[Ask]:
    wide = options.random_range_ratio or 0.0
    inner = max(0, (options.random_input_len or _INPUT) - counter.special_tokens())
    answer = options.random_output_len or _OUTPUT
    source = np.random.default_rng(seed)
    inputs = source.integers(
        math.floor(inner * (1 - wide)), math.ceil(inner * (1 + wide)) + 1, size=count
    )
    outputs = source.integers(
        max(1, math.floor(answer * (1 - wide))),
        max(1, math.ceil(answer * (1 + wide))) + 1,
        size=count,
    )
    prefix = int(args.get("random-prefix-len") or 0)
    prompt = Unwritten([(prefix, "prefix")] if prefix else [])
    return [
        Ask(prompt, max(1, prefix + int(tokens)), int(wanted))
        for tokens, wanted in zip(inputs, outputs, strict=True)
    ]


def _repetition(args: dict[str, Json], count: int, seed: int) -> Sequence[Ask]:
    def given(name: str, usual: int) -> int:
        return int(args.get(f"prefix-repetition-{name}") or usual)

    prefix, suffix = given("prefix-len", 256), given("suffix-len", 256)
    kinds, answer = given("num-prefixes", 10), given("output-len", _OUTPUT)
    if count < kinds:
        raise WorkloadError(f"{kinds} prefixes need at least as many requests, not {count}")
    found = [
        Ask(Unwritten([(prefix, f"{kind}")]), prefix + suffix, answer)
        for kind in range(kinds)
        for _ in range(count // kinds)
    ]
    random.Random(seed).shuffle(found)
    return found


def _sharegpt(
    path: str, args: dict[str, Json], count: int, seed: int, counter: Counter
) -> Iterator[Ask]:
    documents = json.loads(Path(path).read_text(encoding="utf-8"))
    rows = [one for one in documents if len(one.get("conversations") or ()) >= 2]
    if not args.get("disable-shuffle"):
        random.Random(seed).shuffle(rows)
    fixed = args.get("sharegpt-output-len")
    found = 0
    for row in rows:
        if found >= count:
            return
        prompt, answer = (turn["value"] for turn in row["conversations"][:2])
        tokens = counter.count(prompt)
        wanted = counter.count(answer) if fixed is None else int(fixed)
        few = tokens < _FEWEST or (fixed is None and wanted < _FEWEST)
        if few or tokens > _MOST_INPUT or tokens + wanted > _MOST_TOTAL:
            continue
        found += 1
        yield Ask(prompt, tokens, max(1, wanted))


def _custom(
    path: str, args: dict[str, Json], count: int, seed: int, counter: Counter
) -> Iterator[Ask]:
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines if line.strip()]
    if not args.get("disable-shuffle"):
        random.Random(seed).shuffle(rows)
    fixed = int(args.get("custom-output-len") or _CUSTOM_OUTPUT)
    for row in rows[:count]:
        wanted = int(row["output_tokens"]) if fixed == -1 else fixed
        yield Ask(row["prompt"], counter.count(row["prompt"]), max(1, wanted))


def _oversampled(found: list[Ask], count: int, seed: int) -> Sequence[Ask]:
    """As many as are wanted, some of them again."""
    if not found:
        raise WorkloadError("no request of the dataset has the wanted lengths")
    source = random.Random(seed)
    return found + [source.choice(found) for _ in range(count - len(found))]
