"""How far simulation is from a real vLLM on this machine's CPU.

Serves a small model with some schedulers and loads, records every iteration, trains a latency model
on them, and predicts OTHER schedulers and loads, which are measured as well::

    make tools
    python -m benchmarks.simulation_error_cpu [--folder recordings]

Recording takes about a quarter of an hour; what is in the folder already is not recorded again.
Nothing is fitted to the runs that are predicted: what the simulator is told of them is the engine's
settings, its number of KV blocks, and when which request is due. The host's costs are those of the
training runs: admission and delivery of requests that were alone, the mean pause between
iterations.

Prints Markdown: what was measured and what was simulated, beside it how much two real runs of the
same requests differ; the same with the durations of each run itself instead of predicted ones,
which shows what is the scheduler's; errors of single iterations; and all errors by the number of
iterations that were recorded for training. Durations on a machine that others use too are as noisy
as it is (load averages are in the table); single iterations are therefore predicted in seconds of
CPU as well, by a model that was trained on those.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks._cpu_recordings import COMPLETE, TESTS, TRAINING, Run, read_runs, record
from trainables.latency import IterationRecord
from trainables.latency._xgboost_model import LearnedLatency
from trainables.latency._xgboost_rows import rows_of
from trainables.latency._xgboost_training import train
from trainables.simulation import (
    Batch,
    HostCosts,
    Instance,
    LatencyModel,
    Load,
    Request,
    SchedulerSettings,
    simulate,
)

SIZES = (50, 100, 200, 400, 800, 1600)
_SPACING_S = 0.0005
"""Between requests that are sent at once: the engine is told of them one by one."""
METRICS = ("ttft mean", "ttft p90", "tpot mean", "tpot p90", "tokens/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("results/simulation_error_cpu"))
    folder = parser.parse_args().folder.absolute()
    for configuration in (*TRAINING, *TESTS):
        if not (folder / configuration.name / COMPLETE).exists():
            record(configuration, folder / configuration.name)
    known = [run for one in TRAINING for run in read_runs(one.name, folder / one.name)]
    asked = [run for one in TESTS for run in read_runs(one.name, folder / one.name)]
    host = host_costs(known)
    print(_said(known, asked, host))
    whole = trained(known, None)
    print(_errors(asked, whole, host))
    print(_scheduling(asked, whole, host))
    print(_iterations(known, asked))
    print(_curve(known, asked, host))


def trained(runs: Sequence[Run], size: int | None) -> LatencyModel:
    """A model of the first iterations of each run, ``size`` in all; None: of all of them."""
    return LearnedLatency(train(rows_of(_first(runs, size), 10**9), seed=0).fit)


def in_cpu(runs: Sequence[Run]) -> list[Run]:
    """The same runs, whose iterations took as long as they used the CPU."""
    return [
        replace(
            run,
            iterations=[
                replace(a, seconds=b) for a, b in zip(run.iterations, run.cpu, strict=True)
            ],
        )
        for run in runs
    ]


def _first(runs: Sequence[Run], size: int | None) -> list[Sequence[IterationRecord]]:
    whole = sum(len(run.iterations) for run in runs)
    share = 1.0 if size is None else size / whole
    return [run.iterations[: max(1, round(share * len(run.iterations)))] for run in runs]


def host_costs(runs: Iterable[Run]) -> HostCosts:
    """What the host needed in runs."""
    runs = list(runs)
    outside = [seconds for run in runs if run.traffic.concurrency == 1 for seconds in _outside(run)]
    gaps = [gap for run in runs for gap in run.gaps if gap is not None]
    half = statistics.median(outside) / 2
    return HostCosts(half, _SPACING_S, statistics.fmean(gaps), half)


def _outside(run: Run) -> list[float]:
    """Of each request of a run without concurrency, seconds of its TTFT without iterations.

    Requests are told apart by the pauses of the engine; the first ones are warm-ups.
    """
    starts = [index for index, gap in enumerate(run.gaps) if gap is None]
    found = []
    pairs = zip(reversed(run.requests), reversed(starts), strict=False)
    for request, start in pairs:
        end, missing = start, request["input_tokens"]
        while missing > 0:
            missing -= run.iterations[end].batch.prefill_tokens
            end += 1
        last = run.iterations[end - 1]
        computed = last.at + last.seconds - run.iterations[start].at
        found.append(request["first"] - request["sent"] - computed)
    return found


@dataclass(frozen=True)
class Seen:
    """What became of the requests of a run; arrays have one element per request."""

    ttft: NDArray[np.float64]
    tpot: NDArray[np.float64]
    tokens_per_s: float

    def numbers(self) -> tuple[float, ...]:
        """In the order of ``METRICS``."""
        return (
            float(self.ttft.mean()),
            float(np.percentile(self.ttft, 90)),
            float(self.tpot.mean()),
            float(np.percentile(self.tpot, 90)),
            self.tokens_per_s,
        )


def measured(run: Run) -> Seen:
    """What the client saw."""
    good = [one for one in run.requests if not one["error"]]
    several = [one for one in good if one["output_tokens"] > 1]
    span = max(one["end"] for one in good) - min(one["sent"] for one in good)
    return Seen(
        np.array([one["first"] - one["sent"] for one in good]),
        np.array([(o["end"] - o["first"]) / (o["output_tokens"] - 1) for o in several]),
        sum(one["output_tokens"] for one in good) / span,
    )


def simulated(run: Run, latency: LatencyModel, host: HostCosts) -> tuple[Seen, int]:
    """The same requests on the same scheduler, simulated; and the number of iterations."""
    traffic = run.traffic
    requests = [
        Request(
            number,
            one["input_tokens"],
            one["output_tokens"],
            one["scheduled"] if traffic.request_rate else None,
        )
        for number, one in enumerate(run.requests)
    ]
    instance = Instance("vllm", settings_of(run), latency, host)
    found = simulate([instance], Load(requests, traffic.concurrency))
    served = found.served
    span = max(one.end for one in served) - min(one.sent for one in served)
    seen = Seen(
        np.array([one.ttft for one in served]),
        np.array([one.tpot for one in served if one.tpot is not None]),
        sum(one.request.output_tokens for one in served) / span,
    )
    return seen, len(found.instances["vllm"].end)


def settings_of(run: Run) -> SchedulerSettings:
    """The scheduler of a run, as its engine told it when it started."""
    names = {one.name for one in fields(SchedulerSettings)}
    told = {k: v for k, v in run.settings.items() if k in names and v is not None}
    return SchedulerSettings(**told)


def counted(run: Run) -> list[IterationRecord]:
    """Iterations of the requests that count, without those of warm-ups.

    The engine had nothing to do before the first of them.
    """
    last = run.iterations[-1]
    begin = last.at + last.seconds - run.metrics["duration_s"]
    starts = [index for index, gap in enumerate(run.gaps) if gap is None]
    first = min(starts, key=lambda index: abs(run.iterations[index].at - begin))
    return list(run.iterations[first:])


class Replayed(LatencyModel):
    """Durations of a recording, for batches that are in it; another model for the others.

    Attributes:
        asked, unknown: Batches so far, and those of them that are not in the recording.
    """

    def __init__(self, records: Iterable[IterationRecord], otherwise: LatencyModel) -> None:
        self._otherwise = otherwise
        seconds: dict[Batch, list[float]] = {}
        for one in records:
            seconds.setdefault(_in_any_order(one.batch), []).append(one.seconds)
        self._seconds = {batch: statistics.fmean(each) for batch, each in seconds.items()}
        self.asked = self.unknown = 0

    def seconds(self, batch: Batch) -> float:
        self.asked += 1
        if (known := self._seconds.get(_in_any_order(batch))) is not None:
            return known
        self.unknown += 1
        return self._otherwise.seconds(batch)


def _in_any_order(batch: Batch) -> Batch:
    return replace(batch, prefills=tuple(sorted(batch.prefills)))


def _pairs(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Runs of the same requests on the same engine."""
    found = []
    for index, run in enumerate(runs):
        for other in runs[index + 1 :]:
            if (other.configuration, other.traffic) == (run.configuration, run.traffic):
                found.append((run, other))
    return found


def end_to_end(runs: Sequence[Run], latency: LatencyModel, host: HostCosts) -> NDArray[np.float64]:
    """Relative errors against the mean of two real runs, shape (pairs, metrics)."""
    rows = []
    for first, second in _pairs(runs):
        real = np.mean([measured(first).numbers(), measured(second).numbers()], axis=0)
        rows.append(np.array(simulated(first, latency, host)[0].numbers()) / real - 1)
    return np.array(rows)


def repeat_errors(runs: Sequence[Run]) -> NDArray[np.float64]:
    """Relative differences of iterations of two runs that computed the same batch."""
    found = []
    for first, second in _pairs(runs):
        again = {_in_any_order(one.batch): one.seconds for one in counted(second)}
        for one in counted(first):
            if (seconds := again.get(_in_any_order(one.batch))) is not None:
                found.append(seconds / one.seconds - 1)
    return np.array(found)


def sum_errors(runs: Iterable[Run], latency: LatencyModel) -> NDArray[np.float64]:
    """Of each run, the relative error of the sum of its iterations."""
    found = []
    for run in runs:
        predicted = sum(latency.seconds(one.batch) for one in run.iterations)
        found.append(predicted / sum(one.seconds for one in run.iterations) - 1)
    return np.array(found)


def iteration_errors(runs: Iterable[Run], latency: LatencyModel) -> NDArray[np.float64]:
    """Relative errors of all iterations of runs."""
    every = [one for run in runs for one in run.iterations]
    predicted = np.array([latency.seconds(one.batch) for one in every])
    errors: NDArray[np.float64] = predicted / np.array([one.seconds for one in every]) - 1
    return errors


def _scheduling(runs: Sequence[Run], latency: LatencyModel, host: HostCosts) -> str:
    """Errors with the durations of each run itself: what is left is not the latency model's."""
    lines = [
        f"| engine | load | batches that were real ones | {' | '.join(METRICS)} |",
        f"|---|---|---|{'---|' * len(METRICS)}",
    ]
    for run in runs:
        replayed = Replayed(counted(run), latency)
        seen, _ = simulated(run, replayed, host)
        errors = np.array(seen.numbers()) / np.array(measured(run).numbers()) - 1
        share = 1 - replayed.unknown / replayed.asked
        head = f"{run.configuration} | {run.traffic.name} | {share:.0%}"
        lines.append(f"| {head} | {' | '.join(f'{one:+.1%}' for one in errors)} |")
    return "\n".join([*lines, ""])


def _said(known: Sequence[Run], asked: Sequence[Run], host: HostCosts) -> str:
    counts = [sum(len(run.iterations) for run in runs) for runs in (known, asked)]
    loads = [load for run in (*known, *asked) for load in run.load_average]
    costs = host.admission + host.delivery
    return (
        f"{counts[0]} iterations for training, {counts[1]} to be predicted; load average of the "
        f"machine {min(loads):.1f} to {max(loads):.1f}; of the host, measured in training: "
        f"admission and delivery {1000 * costs:.1f} ms, between iterations "
        f"{1000 * host.iteration:.2f} ms\n"
    )


def _errors(runs: Sequence[Run], latency: LatencyModel, host: HostCosts) -> str:
    lines = [
        f"| engine | load | load average | iterations real / simulated | {' | '.join(METRICS)} |",
        f"|---|---|---|---|{'---|' * len(METRICS)}",
    ]
    for first, second in _pairs(runs):
        one, two = (np.array(measured(run).numbers()) for run in (first, second))
        seen, iterations = simulated(first, latency, host)
        real = (one + two) / 2
        cells = [
            f"{mean:.4g} → {guess:.4g} ({guess / mean - 1:+.0%}; ±{abs(a - b) / 2 / mean:.0%})"
            for mean, guess, a, b in zip(real, seen.numbers(), one, two, strict=True)
        ]
        average = statistics.fmean((*first.load_average, *second.load_average))
        numbers = f"{len(counted(first))}, {len(counted(second))} / {iterations}"
        head = f"{first.configuration} | {first.traffic.name} | {average:.1f} | {numbers}"
        lines.append(f"| {head} | {' | '.join(cells)} |")
    note = "measured → simulated (error; ± half of what two real runs differ); seconds"
    return "\n".join([*lines, "", note, ""])


def _iterations(known: Sequence[Run], asked: Sequence[Run]) -> str:
    lines = [
        "Absolute errors of single iterations, and what two runs of one batch differ\n",
        "| engine | iterations | seconds of | median | P90 | sums over each run "
        "| batches run twice | median | P90 |",
        f"|{'---|' * 9}",
    ]
    clocks = {"the clock": (known, asked), "CPU": (in_cpu(known), in_cpu(asked))}
    for clock, (training, tests) in clocks.items():
        latency = trained(training, None)
        for name in dict.fromkeys(run.configuration for run in tests):
            mine = [run for run in tests if run.configuration == name]
            sums = ", ".join(f"{one:+.1%}" for one in sum_errors(mine, latency))
            cells = [name, str(sum(len(run.iterations) for run in mine)), clock]
            cells += _middle(iteration_errors(mine, latency))
            twice = repeat_errors(mine)
            cells += [sums, str(len(twice)), *_middle(twice)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _middle(errors: NDArray[np.float64]) -> list[str]:
    """Median and P90 of absolute errors."""
    return (
        [f"{np.percentile(np.abs(errors), q):.1%}" for q in (50, 90)] if len(errors) else 2 * [""]
    )


def _curve(known: Sequence[Run], asked: Sequence[Run], host: HostCosts) -> str:
    shown = [METRICS.index(name) for name in ("ttft mean", "tpot mean", "tokens/s")]
    names = " | ".join(METRICS[index] for index in shown)
    lines = [
        "Single iterations (absolute errors: median, P90) and their sums over a run (mean absolute "
        "error), in seconds of CPU and of the clock; what clients saw (mean absolute error)\n",
        f"| recorded | CPU median | P90 | sums | clock median | P90 | sums | {names} |",
        f"|---|---|---|---|---|---|---|{'---|' * len(shown)}",
    ]
    whole = sum(len(run.iterations) for run in known)
    for size in (*(size for size in SIZES if size < whole), None):
        cells = [str(size or whole)]
        for training, tests in ((in_cpu(known), in_cpu(asked)), (known, asked)):
            latency = trained(training, size)
            sums = np.abs(sum_errors(tests, latency)).mean()
            cells += [*_middle(iteration_errors(tests, latency)), f"{sums:.1%}"]
        seen = np.abs(end_to_end(asked, latency, host)).mean(axis=0)
        cells += [f"{seen[index]:.1%}" for index in shown]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
