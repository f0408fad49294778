"""Runs as numbers: a JSON document for programs, a table for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any, NamedTuple

from searchers import Json
from tuner.replay._replay import Case, Runs, Settings
from tuner.replay._simulation import Run, World
from tuner.replay._statistics import (
    evaluations_to,
    expected_at_random,
    interval_of_median,
    mean_of_means,
    over_tasks,
    quantile,
    regrets,
)
from tuner.replay._strategies import Contender

FORMAT = 1
"""Grows when keys of the document change their meaning."""


class _Part(NamedTuple):
    """The runs of a strategy on one task, and what is needed to judge them."""

    world: World
    budget: int
    enough: float
    runs: Sequence[Run]

    def found(self) -> list[int | None]:
        return [evaluations_to(run.truths, self.enough) for run in self.runs]

    def counts(self) -> list[float]:
        """Evaluations to the goal; those that never got there count as one more than the budget."""
        return [float(self.budget + 1 if n is None else n) for n in self.found()]

    def curves(self, length: int) -> list[list[float]]:
        summary = self.world.summary()
        best, scale = summary["best"]["objective"], summary["scale"]
        return [regrets(run.truths, best, scale, length) for run in self.runs]

    def times(self) -> list[float]:
        """When the goal was met on the virtual clock, in the runs that met it."""
        pairs = zip(self.runs, self.found(), strict=True)
        return [run.times[n - 1] for run, n in pairs if n is not None]


def report(
    worlds: Sequence[World], contenders: Sequence[Contender], settings: Settings, runs: Runs
) -> dict[str, Json]:
    """The document that ``replay`` writes; its keys are described in docs/replay.md."""
    results = []
    for index, contender in enumerate(contenders):
        for workers in settings.workers:
            parts = _parts(worlds, settings, runs, index, workers)
            reference = _parts(worlds, settings, runs, 0, workers)
            results.append(
                {
                    "strategy": contender.label,
                    "type": contender.type,
                    "options": dict(contender.options),
                    "workers": workers,
                    **_summed(parts),
                    "against_first": _against(parts, reference, contenders[0].label),
                    "tasks": [_of_task(part) for part in parts],
                }
            )
    return {
        "format": FORMAT,
        "settings": {
            "budget": settings.budget,
            "seeds": settings.seeds,
            "workers": list(settings.workers),
            "within_percent": settings.within,
            "missing": settings.missing,
            "until_found": settings.until_found,
            "never_found_counts_as": "budget + 1",
        },
        "tasks": [_described(world, settings) for world in worlds],
        "results": results,
    }


def as_table(document: dict[str, Any]) -> str:
    """The results for a person to read."""
    within, tasks = document["settings"]["within_percent"], document["tasks"]
    rows = [
        ("strategy", "workers", "median", "95 %", "mean", "p90", "never", "ratio", "regret", "time")
    ]
    for result in document["results"]:
        needed, never = result["evaluations_to_within"], result["never_found"]
        low, high = needed["interval_of_median"]
        rows.append(
            (
                result["strategy"],
                str(result["workers"]),
                f"{needed['median']:.1f}",
                f"{low:.1f}-{high:.1f}",
                f"{needed['mean']:.1f}",
                f"{needed['p90']:.1f}",
                f"{100 * never['share']:.0f} %",
                f"{result['against_first']['ratio']:.2f}",
                f"{result['final_regret']['median']:.1f} %",
                f"{result['makespan']:.4g}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    said = f"evaluations until within {within:g} % of the best that keeps all limits"
    if len(tasks) > 1:
        said += f"; medians over {len(tasks)} tasks of each task's own"
    first = document["results"][0]["strategy"]
    end = f"never: share of runs that did not get there, counted as budget + 1; ratio: to {first}"
    return "\n".join([said, *lines, end])


def _parts(
    worlds: Sequence[World], settings: Settings, runs: Runs, contender: int, workers: int
) -> list[_Part]:
    return [
        _Part(
            world,
            settings.budget_of(world),
            settings.enough(world),
            runs[Case(contender, index, workers)],
        )
        for index, world in enumerate(worlds)
    ]


def _described(world: World, settings: Settings) -> dict[str, Json]:
    summary = world.summary()
    known, near = summary["configurations"], world.near(settings.enough(world))
    chance = None if known is None or not near else expected_at_random(known, near)
    return {
        "task": world.name,
        "budget": settings.budget_of(world),
        **summary,
        "within": near,
        "mean_at_random": chance,
    }


def _of_task(part: _Part) -> dict[str, Json]:
    summed = _summed([part])
    summed["evaluations_to_within"]["per_seed"] = part.found()
    ends = [curve[-1] for curve in part.curves(part.budget)]
    summed["final_regret"]["per_seed"] = ends
    return {"task": part.world.name, **summed, "best_found": _best_found(part)}


def _best_found(part: _Part) -> dict[str, Json] | None:
    """The best point of all seeds; None when no run found one that satisfies."""
    best = max(
        (run.best for run in part.runs if run.best is not None),
        key=lambda found: found[0],
        default=None,
    )
    if best is None:
        return None
    name, sign = part.world.goal.objectives[0]
    return {"parameters": dict(best[1]), name: sign * best[0]}


def _summed(parts: Sequence[_Part]) -> dict[str, Any]:
    """The numbers of a strategy over tasks; with one task these are the task's own."""
    counts = [part.counts() for part in parts]
    runs = [run for part in parts for run in part.runs]
    never = sum(n is None for part in parts for n in part.found())
    length = max(part.budget for part in parts)
    curves = [part.curves(length) for part in parts]
    ends = [[curve[-1] for curve in task] for task in curves]
    times = [median(part.times()) for part in parts if part.times()]
    asked = sum(run.asked for run in runs)
    return {
        "evaluations_to_within": {
            "median": over_tasks(counts, median),
            "mean": mean_of_means(counts),
            "p90": over_tasks(counts, _p90),
            "interval_of_median": list(interval_of_median(counts)),
        },
        "never_found": {"count": never, "share": never / len(runs)},
        "final_regret": {
            "median": over_tasks(ends, median),
            "mean": mean_of_means(ends),
            "p90": over_tasks(ends, _p90),
        },
        "regret_curve": {
            "median": [
                over_tasks([[curve[k] for curve in task] for task in curves], median)
                for k in range(length)
            ],
            "p90": [
                over_tasks([[curve[k] for curve in task] for task in curves], _p90)
                for k in range(length)
            ],
        },
        "makespan": median([run.times[-1] if run.times else 0.0 for run in runs]),
        "time_to_within": median(times) if times else None,
        "duplicates": fmean([run.duplicates for run in runs]),
        "unrecorded": fmean([run.unrecorded for run in runs]),
        "ended": dict(sorted(Counter(run.ended for run in runs).items())),
        "cpu_s_per_ask": sum(run.cpu for run in runs) / asked if asked else 0.0,
    }


def _against(parts: Sequence[_Part], reference: Sequence[_Part], label: str) -> dict[str, Json]:
    """How a strategy compares with the first one, by the medians of each task."""
    pairs = [
        (median(mine.counts()), median(theirs.counts()))
        for mine, theirs in zip(parts, reference, strict=True)
    ]
    return {
        "strategy": label,
        "ratio": median([mine for mine, _ in pairs]) / median([theirs for _, theirs in pairs]),
        "tasks_better": sum(mine < theirs for mine, theirs in pairs),
        "tasks_equal": sum(mine == theirs for mine, theirs in pairs),
        "tasks_worse": sum(mine > theirs for mine, theirs in pairs),
    }


def _p90(values: Sequence[float]) -> float:
    return quantile(values, 0.9)
