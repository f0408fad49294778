"""How many trials, rounds and how much time binary fallback needs, against every possible truth.

Run ``python -m benchmarks.binary_fallback_rounds``. For 64 layers and each smallest sufficient
fallback 0..64, and for "none suffices", the search is simulated with 1, 2 and 4 trials at once.
Rounds are counted with trials that take equally long and end in random order. Makespan is measured
with random durations; one trial takes 1 on average. Prints Markdown; exits 1 if an answer is wrong
or a bound is broken.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from statistics import fmean

from searchers import Done, Outcome, Proposal, Strategy, make_strategy

LAYERS = 64
WIDTHS = (1, 2, 4)
ORDERS = 3
RUNS = 4
LAYER_NAMES = [f"model.layers.{index}" for index in range(LAYERS)]
RANKING = [{"layers": [name], "score": float(-index)} for index, name in enumerate(LAYER_NAMES)]
NONE = LAYERS + 1

Duration = Callable[[random.Random, bool], float]


def lognormal(sigma: float) -> Duration:
    """Durations of mean 1."""
    return lambda chance, satisfied: chance.lognormvariate(-sigma * sigma / 2, sigma)


def fast_fail(chance: random.Random, satisfied: bool) -> float:
    """Evaluation stops at the first dataset that misses its demand: half the time."""
    return chance.lognormvariate(-0.02, 0.2) * (1.0 if satisfied else 0.5)


DURATIONS: dict[str, Duration] = {
    "log-normal, sigma 0.2": lognormal(0.2),
    "log-normal, sigma 0.5": lognormal(0.5),
    "log-normal, sigma 1.0": lognormal(1.0),
    "fast fail, sigma 0.2": fast_fail,
}


class Search:
    """A strategy under simulation, against one truth."""

    def __init__(self, width: int, threshold: int, *, ranked: bool) -> None:
        options = {"candidates": LAYER_NAMES if ranked else []}
        self.strategy: Strategy = make_strategy(
            "binary_fallback", options, space=None, seed=0, width=width
        )
        self.threshold = threshold
        self.flying: dict[int, Proposal] = {}
        self.started = 0
        self.measured = 0

    def fill(self) -> list[Proposal]:
        """Start what can be started."""
        begun = []
        while len(self.flying) < self.strategy.width:
            step = self.strategy.ask()
            if not isinstance(step, Proposal):
                break
            self.flying[step.number] = step
            self.started += 1
            begun.append(step)
        return begun

    def satisfied(self, proposal: Proposal) -> bool:
        return len(proposal.parameters.get("fallback", ())) >= self.threshold

    def finish(self, number: int) -> None:
        """End one trial, and cancel those that have become useless."""
        proposal = self.flying.pop(number)
        self.measured += 1
        if proposal.kind == "analysis":
            outcome = Outcome("measured", data={"ranking": RANKING})
        else:
            outcome = Outcome("measured", satisfied=self.satisfied(proposal))
        self.strategy.tell(proposal, outcome)
        for useless in self.strategy.obsolete():
            self.strategy.tell(self.flying.pop(useless), Outcome("cancelled"))

    def right(self) -> bool:
        """Whether the search is over and its answer is the truth."""
        done = self.strategy.ask()
        if not isinstance(done, Done):
            return False
        if self.threshold == NONE:
            return done.verdict == "exhausted" and done.best is None
        found = done.best and len(done.best.parameters["fallback"])
        return done.verdict == "satisfied" and found == self.threshold


def lockstep(search: Search, chance: random.Random) -> int:
    """Rounds when all trials take equally long; those that end together do so in random order."""
    rounds = 0
    search.fill()
    while search.flying:
        rounds += 1
        together = sorted(search.flying)
        chance.shuffle(together)
        for number in together:
            if number in search.flying:
                search.finish(number)
                search.fill()
    return rounds


def makespan(search: Search, duration: Duration, seed: str, *, whole_rounds: bool) -> float:
    """Time until the answer. ``whole_rounds``: free slots wait until nothing is in flight."""
    now = 0.0
    ends: dict[int, float] = {}
    while True:
        if not (whole_rounds and search.flying):
            for proposal in search.fill():
                level = len(proposal.parameters["fallback"])
                chance = random.Random(f"{seed}/{level}")
                ends[proposal.number] = now + duration(chance, search.satisfied(proposal))
        if not search.flying:
            return now
        number = min(search.flying, key=lambda flying: ends[flying])
        now = ends[number]
        search.finish(number)


def bound(width: int, *, ranked: bool) -> int:
    """Rounds allowed: ceil(log_{width + 1} layers) + 1; alone, full fallback is one more."""
    rounds = 1
    while (width + 1) ** (rounds - 1) < LAYERS:
        rounds += 1
    alone = width == 1
    return rounds + alone + (alone and not ranked)


def spread(values: Sequence[float], form: str = "{:.0f}") -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return f"{low} / {fmean(values):.2f} / {high}"


def count_rounds() -> tuple[list[str], list[str]]:
    """Rows of the table of rounds, and what is wrong."""
    rows, wrong = [], []
    for ranked in (True, False):
        for width in WIDTHS:
            rounds, started, measured = [], [], []
            most = Search(width, 0, ranked=ranked).strategy.most()
            for threshold in range(NONE + 1):
                for order in range(ORDERS):
                    search = Search(width, threshold, ranked=ranked)
                    rounds.append(lockstep(search, random.Random(f"{threshold}/{order}")))
                    started.append(search.started)
                    measured.append(search.measured)
                    if not search.right():
                        wrong.append(f"width {width}, {threshold} layers needed: wrong answer")
            allowed = bound(width, ranked=ranked)
            if max(rounds) > allowed:
                wrong.append(f"width {width}: {max(rounds)} rounds, {allowed} allowed")
            if most is not None and max(started) > most:
                wrong.append(f"width {width}: {max(started)} trials, most() was {most}")
            given = "given" if ranked else "by analysis"
            rows.append(
                f"| {width} | {given} | {spread(rounds)} | {allowed} | {spread(measured)} "
                f"| {spread(started)} | {most or 'unknown'} |"
            )
    return rows, wrong


def measure_makespans() -> tuple[list[str], list[str]]:
    """Rows of the table of makespans, and what is wrong."""
    rows, wrong = [], []
    for name, duration in DURATIONS.items():
        for width in WIDTHS:
            times: dict[bool, list[float]] = {True: [], False: []}
            for whole_rounds in times:
                for threshold in range(NONE + 1):
                    for run in range(RUNS):
                        search = Search(width, threshold, ranked=True)
                        seed = f"{threshold}/{run}"
                        times[whole_rounds].append(
                            makespan(search, duration, seed, whole_rounds=whole_rounds)
                        )
                        if not search.right():
                            wrong.append(f"{name}, width {width}, {threshold}: wrong answer")
            whole, ahead = fmean(times[True]), fmean(times[False])
            saved = 100 * (1 - ahead / whole)
            rows.append(f"| {name} | {width} | {whole:.2f} | {ahead:.2f} | {saved:.0f} % |")
    return rows, wrong


def main() -> int:
    rounds, wrong_rounds = count_rounds()
    print("| at once | ranking | rounds min / mean / max | bound | measured | started | most() |")
    print("|---|---|---|---|---|---|---|", *rounds, sep="\n")
    makespans, wrong_times = measure_makespans()
    print("\n| durations | at once | makespan, whole rounds | makespan, working ahead | saved |")
    print("|---|---|---|---|---|", *makespans, sep="\n")
    for fault in wrong_rounds + wrong_times:
        print(fault, file=sys.stderr)
    return 1 if wrong_rounds or wrong_times else 0


if __name__ == "__main__":
    sys.exit(main())
