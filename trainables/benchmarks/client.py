"""Stage program of the built-in benchmark: a streaming client of OpenAI's protocol.

Request: ``options`` (the block), ``target`` (``base_url``, ``served_name``, ``model``), ``load``,
``seed``, ``folder`` (where its files go), ``asked`` (returned as it is). Result: ``metrics``,
``data``, ``artifacts``, ``environment``, ``asked``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import platform
import random
import resource
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainables._program import FailureClass, StageError, run_program
from trainables._trial import Json
from trainables.benchmarks._benchmark import Load
from trainables.benchmarks._builtin_options import METHOD, BuiltinOptions
from trainables.benchmarks._builtin_run import Course, measure, warm_up
from trainables.benchmarks._builtin_send import Sender
from trainables.benchmarks._builtin_stream import Unreachable
from trainables.benchmarks._builtin_windows import FILE as WINDOWS
from trainables.benchmarks._summary import describe, failure_counts, summarize
from trainables.benchmarks._workload import Ask, make_workload
from trainables.benchmarks._workload_vocabulary import Vocabulary, WorkloadError, vocabulary_of

_RECORDS = "requests.jsonl"
_BUSY, _LAG_S = 0.8, 0.05
"""From here on the client itself may be what was measured."""


def work(request: Mapping[str, Any]) -> dict[str, Json]:
    """Carry one run out; see the module."""
    options = BuiltinOptions.model_validate(request["options"])
    load = Load(**request["load"])
    target, seed = request["target"], int(request["seed"])
    folder = Path(request["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = vocabulary_of(Path(target["model"]))
    asks = _asks(options, load, seed, vocabulary)
    print(f"{len(asks)} requests to {target['base_url']}{options.path}; {load}", flush=True)
    _allow_connections()
    try:
        course = asyncio.run(_run(options, load, target, seed, asks, vocabulary, folder))
    except Unreachable as error:
        raise StageError(
            "network",
            f"nobody listens at {target['base_url']} any more: {error}",
            "see the engine's log for why it ended",
        ) from error
    _write_records(folder / _RECORDS, course, itl=options.save_itl)
    _require_success(course)
    metrics = summarize(course.records, load, options.goodput)
    for name, value in metrics.items():
        print(f"{name:24}{value:12.6g}", flush=True)
    return {
        "metrics": metrics,
        "data": _data(course, vocabulary),
        "artifacts": {
            "requests": str(folder / _RECORDS),
            "windows": str(folder / WINDOWS),
        },
        "environment": {
            "benchmark": f"builtin/{METHOD}",
            "aiohttp": version("aiohttp"),
            "python": platform.python_version(),
        },
        "asked": request["asked"],
    }


def _asks(options: BuiltinOptions, load: Load, seed: int, vocabulary: Vocabulary) -> Sequence[Ask]:
    try:
        workload = make_workload(options.workload)
        return workload.asks(load.requests or options.requests, seed, vocabulary)
    except (OSError, WorkloadError) as error:
        raise StageError("input", f"the workload cannot be made: {error}") from error


async def _run(
    options: BuiltinOptions,
    load: Load,
    target: Mapping[str, str],
    seed: int,
    asks: Sequence[Ask],
    vocabulary: Vocabulary,
    folder: Path,
) -> Course:
    async with Sender(options, target["base_url"], target["served_name"]) as sender:
        first = enumerate(asks[: options.warm_ups])
        strange = [_strange(ask, number, seed, vocabulary) for number, ask in first]
        await warm_up(sender, strange, load.concurrency)
        # A pause of the collector would be measured as one of the service.
        gc.collect()
        gc.freeze()
        gc.disable()
        (folder / WINDOWS).unlink(missing_ok=True)
        with (folder / WINDOWS).open("w", encoding="utf-8") as windows:
            return await measure(sender, asks, options, load, seed, windows)


def _strange(ask: Ask, number: int, seed: int, vocabulary: Vocabulary) -> Ask:
    """A request as long as ``ask`` that leaves nothing of it in the service's caches."""
    source = random.Random(f"{seed}/warm-up/{number}")
    if isinstance(ask.prompt, str):
        return replace(ask, prompt=vocabulary.text(ask.input_tokens, source))
    return replace(ask, prompt=vocabulary.ids(ask.input_tokens, source))


def _require_success(course: Course) -> None:
    """Raise :class:`StageError` when every request failed."""
    if any(record.succeeded for record in course.records):
        return
    kinds = {one.failure.kind for one in course.ended if one.failure}
    classes: dict[str, FailureClass] = {
        "permanent": "input",
        "late": "timeout",
        "broken": "network",
    }
    failure = classes.get(kinds.pop(), "tool") if len(kinds) == 1 else "tool"
    reasons = failure_counts(course.records)
    said = "; ".join(f"{reason} ({count})" for reason, count in reasons.items())
    raise StageError(
        failure,
        f"all {len(course.records)} requests failed: {said}",
        "see the engine's log for what it says about them",
    )


def _data(course: Course, vocabulary: Vocabulary) -> dict[str, Json]:
    good = [one for one in course.ended if one.record.succeeded]
    told = sum(one.told for one in good)
    short = sum(one.record.output_tokens < one.asked for one in good)
    lag = describe(one.lag for one in course.ended)
    waited = describe(one.waited for one in course.ended)
    notes = [
        f"{short} of {len(good)} answers are shorter than asked for" if short else "",
        ""
        if told == len(good)
        else f"the service told no usage of {len(good) - told} requests; their tokens are the "
        "chunks that arrived",
        f"the client itself was the bottleneck: {course.busy:.0%} of a core, requests sent "
        f"{lag['p99']:.3f} s late (p99)"
        if course.busy > _BUSY or lag["p99"] > _LAG_S
        else "",
    ]
    return {
        "note": ". ".join(filter(None, notes)),
        "failures": failure_counts(course.records),
        "short_answers": short,
        "tokens_counted_by": "usage" if told == len(good) else "chunks" if told == 0 else "both",
        "prompts_counted_by": "tokenizer" if vocabulary.exact else "estimate",
        "client": {"busy": round(course.busy, 4), "lag_s": _rounded(lag)},
        "waited_for_place_s": _rounded(waited),
    }


def _rounded(found: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in found.items()}


def _write_records(file: Path, course: Course, *, itl: bool) -> None:
    """One line for each request; times in seconds since the first was sent."""
    begin = min((record.sent for record in course.records), default=0.0)
    with file.open("w", encoding="utf-8") as stream:
        for record in course.records:
            document = asdict(record)
            for name in ("scheduled", "sent", "first", "end"):
                value = document[name]
                document[name] = None if value is None else round(value - begin, 6)
            if itl:
                document["itl"] = [round(gap, 6) for gap in record.itl]
            else:
                del document["itl"]
            stream.write(json.dumps(document) + "\n")


def _allow_connections() -> None:
    """Each request under way needs a file descriptor."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    run_program(work)
