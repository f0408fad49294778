"""Real evaluations that a search needs when a simulator, good or bad, guides it.

Run ``python -m benchmarks.prior``. Seven engines stand for real ones, and every configuration of
them is known:

* six formulas, the surfaces of :mod:`benchmarks.serving_surfaces`, 1,080 configurations each;
* ``played``: ``engine: simulated`` with a device of given constants, an 8B model under a random
  load, 432 configurations.

A run has found it when it evaluated a configuration within 5 % of the best one that keeps the SLO;
a run that did not counts as its budget plus one. What a simulator plays is free.

Simulators, all sampled as ``search.prior`` samples them:

* none: the search without a prior; it is nearly the same for all seeds.
* exact: the real engine itself.
* off: the same formula or simulator for another machine. Memory, bandwidth, compute and link each
  lie up to 30 % off, and every metric of every point is 15 % off (deviation); another one for each
  seed.
* three times too slow: the real engine, all latencies times three.
* scrambled: the real engine's metrics, dealt out to the points at random.
* reversed: the real engine's metrics, each mirrored in its logarithm: the best seems the worst.

Prints Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from math import exp, log
from statistics import mean, median

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks._virtual_engines import Engine, Formula, Metrics, played
from benchmarks.serving_surfaces import surfaces
from searchers import Json, Outcome, Proposal, Strategy, make_strategy
from tuner._agreement import agreement
from tuner._forecast import sample
from tuner._judge import judge

BUDGET = 40
Play = Callable[[Mapping[str, Json]], Metrics]


def _chance(*parts: object) -> random.Random:
    return random.Random(hashlib.sha256(repr(parts).encode()).digest())


@dataclass(frozen=True)
class Machine:
    """A real engine, all of whose configurations are known."""

    engine: Engine

    def real(self, point: Mapping[str, Json]) -> Metrics:
        return self._known[_key(point)]

    @cached_property
    def everything(self) -> list[tuple[Mapping[str, Json], Metrics]]:
        return [(point, self.engine.measure(point)) for point in self.engine.space.grid()]

    @cached_property
    def _known(self) -> dict[str, Metrics]:
        return {_key(point): metrics for point, metrics in self.everything}

    @cached_property
    def best(self) -> float:
        worth = [self.outcome(point) for point, metrics in self.everything if metrics]
        return max(one.objective or 0.0 for one in worth if one.satisfied)

    def summary(self) -> str:
        worth = [self.outcome(point) for point, metrics in self.everything if metrics]
        good = [one.objective or 0.0 for one in worth if one.satisfied]
        near = sum(one >= 0.95 * self.best for one in good)
        return (
            f"{self.engine.name}: {len(self.everything)} configurations, {len(worth)} start, "
            f"{len(good)} keep the SLO, {near} within 5 % of the best"
        )

    def outcome(self, point: Mapping[str, Json]) -> Outcome:
        metrics = self.real(point)
        if not metrics:
            return Outcome("failed", error="out of memory")
        judged = judge(self.engine.objective, metrics, None)
        return Outcome("measured", metrics, {}, judged.satisfied, judged.objective)

    def exact(self, seed: int) -> Play:
        return self.real

    def off(self, seed: int) -> Play:
        other = self.engine.other(_chance(self.engine.name, seed))

        def play(point: Mapping[str, Json]) -> Metrics:
            noise = _chance(seed, point)
            metrics = other.measure(point)
            return {name: value * exp(noise.gauss(0, 0.15)) for name, value in metrics.items()}

        return play

    def slow(self, seed: int) -> Play:
        def play(point: Mapping[str, Json]) -> Metrics:
            metrics = self.real(point)
            return {name: v / 3 if "per_s" in name else 3 * v for name, v in metrics.items()}

        return play

    def scrambled(self, seed: int) -> Play:
        dealt = [metrics for _, metrics in self.everything]
        _chance("scrambled", seed).shuffle(dealt)
        said = dict(zip(self._known, dealt, strict=True))
        return lambda point: said[_key(point)]

    def reversed(self, seed: int) -> Play:
        ends = {}
        known = [metrics for _, metrics in self.everything if metrics]
        for name in known[0]:
            values = sorted(log(metrics[name]) for metrics in known)
            ends[name] = values[0] + values[-1]

        def play(point: Mapping[str, Json]) -> Metrics:
            return {name: exp(ends[name] - log(v)) for name, v in self.real(point).items()}

        return play


SIMULATORS: Mapping[str, Callable[[Machine, int], Play] | None] = {
    "none": None,
    "exact": Machine.exact,
    "off": Machine.off,
    "three times too slow": Machine.slow,
    "scrambled": Machine.scrambled,
    "reversed": Machine.reversed,
}


@dataclass(frozen=True)
class Run:
    """What one search came to.

    Attributes:
        needed: Evaluations until it was found.
        error, correlation, weight: The simulator beside the measured points, at the end.
    """

    needed: int
    error: float | None = None
    correlation: float | None = None
    weight: float | None = None


def _key(point: Mapping[str, Json]) -> str:
    return json.dumps(point, sort_keys=True)


@cache
def simulated(
    machine: Machine, name: str, seed: int, trials: int
) -> tuple[tuple[Mapping[str, Json], Metrics], ...]:
    """The points that a simulator plays."""
    make, engine = SIMULATORS[name], machine.engine
    if make is None:
        return ()
    return tuple(
        sample(engine.space, engine.objective, make(machine, seed), trials=trials, seed=seed)
    )


def search(machine: Machine, name: str, seed: int, workers: int, trials: int) -> Run:
    space, goal = machine.engine.space, machine.engine.objective.goal()
    strategy = make_strategy("auto", {}, space=space, seed=seed, goal=goal)
    points = simulated(machine, name, seed, trials)
    if points:
        strategy.believe(points)
    measured: list[tuple[Metrics, Metrics]] = []
    said = {_key(point): metrics for point, metrics in points}
    needed = _evaluated(machine, strategy, workers, said, measured)
    if not points:
        return Run(needed)
    found = agreement(goal, measured, strategy.trust())
    return Run(needed, found.error, found.correlation, found.weight)


def _evaluated(
    machine: Machine,
    strategy: Strategy,
    workers: int,
    said: Mapping[str, Metrics],
    measured: list[tuple[Metrics, Metrics]],
) -> int:
    strategy.width = workers
    flying: list[Proposal] = []
    for count in range(1, BUDGET + 1):
        while len(flying) < workers and isinstance(proposal := strategy.ask(), Proposal):
            flying.append(proposal)
        proposal = flying.pop(0)
        outcome = machine.outcome(proposal.parameters)
        strategy.tell(proposal, outcome)
        if outcome.metrics and (simulated := said.get(_key(proposal.parameters))):
            measured.append((simulated, outcome.metrics))
        if outcome.satisfied and (outcome.objective or 0.0) >= 0.95 * machine.best:
            return count
    return BUDGET + 1


def row(name: str, workers: int, runs: list[Run]) -> str:
    def middle(values: list[float | None], form: str) -> str:
        known = [value for value in values if value is not None]
        return form.format(median(known)) if known else "-"

    needed = [run.needed for run in runs]
    return (
        f"| {name} | {workers} | {median(needed):.1f} | {mean(needed):.1f} | {max(needed)} "
        f"| {sum(one > BUDGET for one in needed)} of {len(needed)} "
        f"| {middle([run.error for run in runs], '{:.0%}')} "
        f"| {middle([run.correlation for run in runs], '{:.2f}')} "
        f"| {middle([run.weight for run in runs], '{:.2f}')} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--trials", type=int, default=48, help="simulated points")
    parser.add_argument("--only", nargs="+", choices=SIMULATORS, default=list(SIMULATORS))
    arguments = parser.parse_args()
    machines = [Machine(Formula(surface)) for surface in surfaces()]
    machines.append(Machine(played()))
    for machine in machines:
        print(machine.summary(), file=sys.stderr)
    begun = time.monotonic()
    rows = []
    for workers in arguments.workers:
        for name in arguments.only:
            runs = []
            for machine in machines:
                for seed in range(arguments.seeds):
                    runs.append(search(machine, name, seed, workers, arguments.trials))
                    print(f"{name}: {machine.engine.name}: {runs[-1]}", file=sys.stderr)
            rows.append(row(name, workers, runs))
    print(
        f"{len(machines)} tasks, {arguments.seeds} seeds, {arguments.trials} simulated points, "
        f"{BUDGET} evaluations at most; {time.monotonic() - begun:.0f} s\n\n"
        "| simulator | at once | median | mean | most | never found | its error | rank correlation "
        "| weight at the end |\n|---|---|---|---|---|---|---|---|---|"
    )
    print(*rows, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
