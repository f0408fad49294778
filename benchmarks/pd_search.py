"""How many whole splits the strategy ``pd_split`` measures until it has the best one.

    python -m benchmarks.pd_search [--instances 4 6] [--requests-per-instance 250]

For each model profiled in ``vllm_profiles`` (``../shared/data``, or ``$TUNER_DATA``) and each
number of instances, all splits of :mod:`benchmarks.pd_split` are simulated, and each is found the
rate at which it keeps the limits there; that is the truth. Then ``pd_split`` searches: instances
alone answer with their simulated rate, whole splits with the truth. So that not everything depends
on how good the simulator is at single instances, it also searches with rates of single instances
that are wrong: prefill too fast or too slow by a factor.

``reached``: whole splits measured until one was within 2 % of the best (the precision of the
truth). ``matched``: the same for going through the splits by matched rates without learning,
``random``: for any order, the mean, ``exhaustive``: all. ``measured``, ``delivered``: whole splits
when ``pd_split`` ended by itself, and the rate it delivered as a share of the best.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from benchmarks.pd_split import LIMITS, TRACE, Search, trace
from benchmarks.recorded_runs import DATA, folders
from searchers import (
    Outcome,
    Proposal,
    Role,
    Shape,
    Split,
    best_split,
    make_strategy,
    matched_rate,
)

PRECISION = 0.02
WRONG = (1.0, 0.6, 0.8, 1.25, 1.6)
"""Prefill rate alone, as told, over what it is."""
Rates = Mapping[tuple[str, Role], float]


class Task(NamedTuple):
    """One model over so many instances.

    Attributes:
        truth: Requests per second of each split.
        rates: Of one instance alone.
    """

    name: str
    shape: Shape
    devices: int
    truth: Mapping[str, float]
    rates: Rates
    splits: Sequence[Split]


class Found(NamedTuple):
    reached: float
    measured: float
    delivered: float
    matched: float
    random: float
    exhaustive: float


def make_task(folder: Path, instances: int, requests: int) -> Task:
    """Simulates all splits of a model."""
    search = Search(folder, trace(requests), instances)
    rates = search.rates()
    splits = [*search.apart, *search.together]
    ranked = best_split(
        splits,
        search.judge(),
        lambda split: matched_rate(split, rates),
        precision=PRECISION,
        exhaustive=True,
    )
    truth = {str(one.split): one.rate for one in ranked}
    devices = instances * search.shape.devices
    return Task(f"{folder.name} x {instances}", search.shape, devices, truth, rates, splits)


def searched(task: Task, wrong: float) -> Found:
    """One search, with prefill rates that are wrong by a factor."""
    told = {key: rate * (wrong if key[1] == "prefill" else 1) for key, rate in task.rates.items()}
    shapes = {task.shape.name: {"devices": task.shape.devices}}
    options = {"devices": task.devices, "shapes": shapes, "output_tokens": 2.0}
    strategy = make_strategy("pd_split", options, space=None, seed=0)
    best, measured = max(task.truth.values()), []
    while isinstance(step := strategy.ask(), Proposal):
        if step.kind == "candidate":
            measured.append(task.truth[step.labels["split"]])
        strategy.tell(step, _outcome(task, told, step))
    ranking = sorted(task.splits, key=lambda split: -matched_rate(split, told))
    in_order = [task.truth[str(split)] for split in ranking]
    good = sum(rate >= best * (1 - PRECISION) for rate in task.truth.values())
    return Found(
        _until(measured, best, len(in_order)),
        len(measured),
        max(measured) / best,
        _until(in_order, best, len(in_order)),
        (len(in_order) + 1) / (good + 1),
        len(in_order),
    )


def _outcome(task: Task, told: Rates, proposal: Proposal) -> Outcome:
    if proposal.kind != "candidate":
        role: Role = "prefill" if proposal.kind == "prefill" else "decode"
        return Outcome("measured", {"requests_per_s": told[task.shape.name, role]})
    rate = task.truth[proposal.labels["split"]]
    return Outcome("measured", {"requests_per_s": rate}, satisfied=True, objective=rate)


def _until(rates: Sequence[float], best: float, never: int) -> int:
    """Position, from 1, of the first within precision of the best; one more than all: none is."""
    good = (place for place, rate in enumerate(rates, 1) if rate >= best * (1 - PRECISION))
    return next(good, never + 1)


def main() -> None:
    """Print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, nargs="+", default=[4, 6])
    parser.add_argument("--requests-per-instance", type=int, default=250)
    chosen = parser.parse_args()
    if not folders() or not TRACE.is_file():
        print(f"no recordings: {DATA} has none; set TUNER_DATA", file=sys.stderr)
        raise SystemExit(2)
    tasks = []
    for folder in folders():
        for instances in chosen.instances:
            tasks.append(make_task(folder, instances, instances * chosen.requests_per_instance))
            best = max(tasks[-1].truth, key=lambda split: tasks[-1].truth[split])
            print(f"{tasks[-1].name}: best is {best}, {tasks[-1].truth[best]:.4g} requests/s")
    print(f"TTFT <= {LIMITS.ttft} s, TPOT <= {LIMITS.tpot} s, percentile {LIMITS.percentile}\n")
    print("| task | prefill alone | " + " | ".join(Found._fields) + " |")
    print("|---|---" * 4 + "|")
    every = []
    for task in tasks:
        for wrong in WRONG:
            every.append(searched(task, wrong))
            print(f"| {task.name} | x {wrong:g} | {_row(every[-1])} |")
    print(f"| mean | | {_row(Found(*(mean(column) for column in zip(*every, strict=True))))} |")


def _row(found: Found) -> str:
    return " | ".join(f"{value:.3g}" for value in found)


if __name__ == "__main__":
    main()
