"""How many trials and rounds standing high needs, beside the sequential original.

Run ``python -m benchmarks.standing_high_rounds``. Each row is the mean and maximum over 60 random
truths: every outlier strategy has a smallest sufficient fallback of its own. The original's
iterations are those of the sequential search with its repeats; it gives up after the 30th. Ours is
simulated with 1 and 4 trials at once that take equally long and end in random order; trials that
are cancelled before they end are no evaluations. The second
table compares how 4 probes are allotted: spread over the strategies, as ours does, or concentrated
on one strategy until its threshold is known, the others being checked just below it afterwards.
Prints Markdown; exits 1 if an end level differs from the original's or a bound is broken.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Sequence
from statistics import fmean

from searchers import Done, Outcome, Proposal, Strategy, make_strategy

LAYERS = (32, 64, 94)
STRATEGIES = (1, 2, 3, 4)
WIDTHS = (1, 4)
RUNS = 60
CAP = 30

Thresholds = Sequence[int]
"""The smallest sufficient fallback of each strategy; above the layers: none is."""


def independent(layers: int, strategies: int) -> Iterable[Thresholds]:
    """Thresholds that have nothing to do with each other."""
    chance = random.Random(f"independent/{layers}/{strategies}")
    for _ in range(RUNS):
        yield [chance.randint(1, layers) for _ in range(strategies)]


def alike(layers: int, strategies: int) -> Iterable[Thresholds]:
    """Thresholds that differ by a tenth of the layers from one the strategies have in common."""
    chance = random.Random(f"alike/{layers}/{strategies}")
    for _ in range(RUNS):
        common = chance.uniform(1, layers)
        drawn = [round(chance.gauss(common, layers / 10)) for _ in range(strategies)]
        yield [min(max(threshold, 0), layers + 1) for threshold in drawn]


def original(layers: int, thresholds: Thresholds) -> list[tuple[int, int]]:
    """The sequential search with its repeats, written down independently of ours."""
    asked: list[tuple[int, int]] = []

    def evaluate(strategy: int, level: int) -> bool:
        asked.append((strategy, level))
        return level >= thresholds[strategy]

    if evaluate(0, 0):
        return asked
    low, high = 1, layers
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if evaluate(0, middle) else (middle + 1, high)
    best, turn, step = (0, low), 0, 1
    while best[1] >= step:
        level = best[1] - step
        for _ in thresholds:
            if evaluate(turn, level):
                best, step = (turn, level), max(min(2 * step, level), 1)
                break
            turn = (turn + 1) % len(thresholds)
        else:
            if step == 1:
                break
            step = 1
    evaluate(*best)
    return asked


def end_level(asked: Sequence[tuple[int, int]], thresholds: Thresholds) -> int | None:
    strategy, level = asked[-1]
    return level if level >= thresholds[strategy] else None


class Search:
    """Ours under simulation, against one truth."""

    def __init__(self, layers: int, thresholds: Thresholds, width: int) -> None:
        options = {
            "anti_outlier_strategies": [[{"type": f"{index}"}] for index in range(len(thresholds))],
            "candidates": [f"model.layers.{index}" for index in range(layers)],
        }
        self.strategy: Strategy = make_strategy(
            "standing_high", options, space=None, seed=0, width=width
        )
        self.thresholds = thresholds
        self.flying: dict[int, Proposal] = {}
        self.started = self.measured = self.rounds = 0

    def run(self, chance: random.Random) -> None:
        """To the end, in rounds of trials that end together, in random order."""
        self._fill()
        while self.flying:
            self.rounds += 1
            together = sorted(self.flying)
            chance.shuffle(together)
            for number in together:
                if number in self.flying:
                    self._finish(number)
                    self._fill()

    def found(self) -> int | None:
        done = self.strategy.ask()
        assert isinstance(done, Done)
        return None if done.best is None else len(done.best.parameters["fallback"])

    def _fill(self) -> None:
        while len(self.flying) < self.strategy.width:
            step = self.strategy.ask()
            if not isinstance(step, Proposal):
                return
            self.flying[step.number] = step
            self.started += 1

    def _finish(self, number: int) -> None:
        proposal = self.flying.pop(number)
        self.measured += 1
        strategy = int(proposal.parameters["anti_outlier"][0]["type"])
        enough = len(proposal.parameters["fallback"]) >= self.thresholds[strategy]
        self.strategy.tell(proposal, Outcome("measured", satisfied=enough))
        for useless in self.strategy.obsolete():
            self.strategy.tell(self.flying.pop(useless), Outcome("cancelled"))


def concentrated(layers: int, thresholds: Thresholds, width: int) -> tuple[int | None, int]:
    """(end level, rounds) of the other way to allot probes: one strategy after the other."""
    low = [-1] * len(thresholds)
    top = [layers, *[layers - 1] * (len(thresholds) - 1)]
    ceiling, lead, rounds = layers + 1, 0, 0

    def open_levels(strategy: int) -> list[int]:
        return list(range(low[strategy] + 1, min(ceiling, top[strategy] + 1)))

    while any(map(open_levels, range(len(thresholds)))):
        rounds += 1
        levels = open_levels(lead)
        parts = width if low[lead] >= 0 else width - 1
        cuts = {-(-index * (len(levels) + 1) // (parts + 1)) - 1 for index in range(1, parts + 1)}
        probes = [(lead, levels[cut]) for cut in sorted(cuts) if 0 <= cut < len(levels)]
        if low[lead] < 0 and levels and (lead, 0) not in probes:
            probes = [(lead, 0), *probes]
        others = [each for each in range(len(thresholds)) if each != lead and open_levels(each)]
        checks = [(each, open_levels(each)[-1]) for each in others]
        for strategy, level in (probes + checks)[:width]:
            if level < thresholds[strategy]:
                low[strategy] = max(low[strategy], level)
            elif level < ceiling:
                ceiling, lead = level, strategy
    return (ceiling if ceiling <= layers else None), rounds


def spread(values: Sequence[int]) -> str:
    return f"{fmean(values):.1f} / {max(values)}"


def compare_with_original() -> tuple[list[str], list[str]]:
    """Rows of the table of costs, and what is wrong."""
    rows, wrong = [], []
    for layers in LAYERS:
        for strategies in STRATEGIES:
            iterations: list[int] = []
            searches: dict[int, list[Search]] = {width: [] for width in WIDTHS}
            for thresholds in independent(layers, strategies):
                asked = original(layers, thresholds)
                iterations.append(len(asked))
                for width in WIDTHS:
                    search = Search(layers, thresholds, width)
                    most = search.strategy.most()
                    search.run(random.Random(f"{thresholds}"))
                    searches[width].append(search)
                    said = f"{layers} layers, {thresholds}, width {width}"
                    if search.found() != end_level(asked, thresholds):
                        wrong.append(f"{said}: ends at {search.found()}, the original elsewhere")
                    if most is not None and search.started > most:
                        wrong.append(f"{said}: {search.started} trials, most() was {most}")
                if searches[1][-1].measured != len(set(asked)):
                    wrong.append(f"{layers} layers, {thresholds}: alone not as the original")
            capped = sum(count >= CAP for count in iterations)
            ours = [
                f"{spread([each.measured for each in searches[width]])} | "
                f"{spread([each.rounds for each in searches[width]])}"
                for width in WIDTHS
            ]
            rows.append(
                f"| {layers} | {strategies} | {spread(iterations)} | {100 * capped // RUNS} % "
                f"| {' | '.join(ours)} |"
            )
    return rows, wrong


def compare_allotments() -> tuple[list[str], list[str]]:
    """Rows of the table of allotments, and what is wrong."""
    rows, wrong = [], []
    for kind in (independent, alike):
        for width in (2, 4, 8):
            for strategies in STRATEGIES[1:]:
                spreading, concentrating = [], []
                for thresholds in kind(64, strategies):
                    search = Search(64, thresholds, width)
                    search.run(random.Random(f"{thresholds}"))
                    level, rounds = concentrated(64, thresholds, width)
                    spreading.append(search.rounds)
                    concentrating.append(rounds)
                    if search.found() != level:
                        wrong.append(f"{kind.__name__} {thresholds}: {search.found()} or {level}?")
                rows.append(
                    f"| {kind.__name__} | {width} | {strategies} | {spread(spreading)} "
                    f"| {spread(concentrating)} |"
                )
    return rows, wrong


def main() -> int:
    costs, wrong_costs = compare_with_original()
    print("Mean / maximum. N layers, S outlier strategies.\n")
    print(
        "| N | S | original: iterations | stopped by its cap | alone: evaluations | rounds", end=" "
    )
    print("| 4 at once: evaluations | rounds |")
    print("|---|---|---|---|---|---|---|---|", *costs, sep="\n")
    allotments, wrong_allotments = compare_allotments()
    print("\n| thresholds | at once | S | rounds, spread | rounds, concentrated |")
    print("|---|---|---|---|---|", *allotments, sep="\n")
    for fault in wrong_costs + wrong_allotments:
        print(fault, file=sys.stderr)
    return 1 if wrong_costs or wrong_allotments else 0


if __name__ == "__main__":
    sys.exit(main())
