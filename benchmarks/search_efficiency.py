"""How many evaluations each strategy needs: on recorded tables, and on analytic serving surfaces.

Run ``python -m benchmarks.search_efficiency``. A run has found it when it evaluated a configuration
within 5 % of the best one that keeps the SLO; a run that did not counts as its budget plus one.

Recorded: one task for each hardware, model and length of the LLM-Inference-Bench table with at
least 24 configurations of framework x devices x batch size. The SLO is the round latency per token
that the share of configurations nearest to 40 % keeps; a task where that is not 20 to 60 % is left
out. The budget is 30 evaluations. Without the table (``../shared/data`` or ``$TUNER_DATA``) this
half is skipped.

Analytic: the surfaces of :mod:`benchmarks.serving_surfaces`, 60 evaluations.

``auto`` knows what names such as ``Batch Size`` usually mean; ``auto{hints: false}`` does not. The
tables are those that it was developed with, so they flatter it. A run ends when it has found it;
the regret that is left is that of the runs which have not. Prints Markdown; a strategy that is not
installed is left out with a note.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.serving_surfaces import surfaces
from tuner.experiment import ExperimentError, Objective
from tuner.replay import (
    Contender,
    Roles,
    Settings,
    Table,
    TableTask,
    World,
    check_contenders,
    make_space,
    make_task,
    read_contenders,
    read_table,
    replay,
    report,
)
from tuner.replay import Part as Column

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TUNER_DATA", ROOT.parent / "shared" / "data"))
TABLE = DATA / "argonne_llm_inference_bench.csv"
CHOICES = ("Framework", "Num of Hardware", "Batch Size")
SETTING = ("Hardware", "Model", "Input Output Length")
LIMITS = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
"""Seconds per token."""

STRATEGIES = (
    "tpe",
    "random",
    "pso-serviceparam",
    "pso-constriction",
    "gp",
    "auto",
    "auto{hints: false}",
)


def recorded_tasks() -> list[TableTask]:
    tables = read_table(TABLE).split(SETTING)
    tasks = [_task(table) for table in tables if len(table.rows) >= 24]
    return [task for task in tasks if task is not None]


def _task(table: Table) -> TableTask | None:
    """The table with the limit that suits it; None where none does, or it is too small."""
    length = float(str(table.rows[0].cells["Input Output Length"]))
    space = make_space(table, [Column(name) for name in CHOICES])
    tasks = []
    for limit in LIMITS:
        objective = Objective.model_validate(
            {"maximize": "Throughput", "limits": [{"metric": "Latency", "max": limit * length}]}
        )
        task = make_task(table, space, objective, Roles(others=frozenset(SETTING)))
        summary = task.summary()
        tasks.append((abs(summary["feasible"] / summary["configurations"] - 0.4), task))
    off, task = min(tasks, key=lambda pair: pair[0])
    big = len(task.configurations) >= 24
    return replace(task, name=task.name.partition(": ")[2]) if big and off <= 0.2 else None


def installed(worlds: Sequence[World], labels: Sequence[str]) -> list[Contender]:
    """The strategies that can run here; says which cannot."""
    found = []
    for label in labels:
        try:
            contenders = read_contenders(label)
            check_contenders(contenders, [world.space for world in worlds])
            found += contenders
        except ExperimentError as error:
            print(f"{label} is left out: {error}", file=sys.stderr)
    return found


def compare(
    name: str,
    worlds: Sequence[World],
    labels: Sequence[str],
    settings: Settings,
    processes: int,
) -> list[str]:
    """Rows of the table, and a line that says what was searched."""
    contenders = installed(worlds, labels)
    begun = time.monotonic()
    runs = replay(worlds, contenders, settings, processes=processes, ended=_progress)
    document: dict[str, Any] = report(worlds, contenders, settings, runs)
    sizes = [task["configurations"] for task in document["tasks"]]
    expected = median(task["mean_at_random"] for task in document["tasks"])
    print(
        f"\n{name}: {len(worlds)} tasks of {min(sizes)} to {max(sizes)} configurations, "
        f"{settings.seeds} seeds, {settings.budget} evaluations at most; drawing at random needs "
        f"{expected:.1f} on average (median task); {time.monotonic() - begun:.0f} s"
    )
    return [_row(name, result, document["results"]) for result in document["results"]]


def _progress(case: object) -> None:
    print(".", end="", file=sys.stderr, flush=True)


def _row(name: str, result: dict[str, Any], results: Sequence[dict[str, Any]]) -> str:
    needed, against = result["evaluations_to_within"], result["against_first"]
    low, high = needed["interval_of_median"]
    wins = f"{against['tasks_better']} / {against['tasks_equal']} / {against['tasks_worse']}"
    tpe = [one for one in results if one["strategy"] == "tpe"]
    ratio = f"{against['ratio']:.2f}" if tpe else "-"
    return (
        f"| {name} | {result['strategy']} | {result['workers']} | {needed['median']:.1f} "
        f"| {low:.1f} to {high:.1f} | {needed['mean']:.1f} "
        f"| {100 * result['never_found']['share']:.1f} % | {result['final_regret']['mean']:.1f} % "
        f"| {ratio} | {wins} "
        f"| {1000 * result['cpu_s_per_ask']:.1f} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=min(os.cpu_count() or 1, 4))
    parser.add_argument("--search", nargs="+", default=STRATEGIES, metavar="STRATEGY")
    parser.add_argument("--only", choices=("recorded", "analytic"))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    arguments = parser.parse_args()
    settings = Settings(seeds=arguments.seeds, workers=tuple(arguments.workers), until_found=True)
    rows = []
    if arguments.only != "analytic" and TABLE.is_file():
        tasks, limited = recorded_tasks(), replace(settings, budget=30)
        rows += compare("recorded", tasks, arguments.search, limited, arguments.processes)
    elif arguments.only != "analytic":
        print(f"no recorded table: {TABLE} is not there; set TUNER_DATA", file=sys.stderr)
    if arguments.only != "recorded":
        limited = replace(settings, budget=60)
        rows += compare("analytic", surfaces(), arguments.search, limited, arguments.processes)
    print(
        "\n| tasks | strategy | at once | median of medians | 95 % | mean | never found "
        "| regret | ratio to TPE | tasks better / equal / worse | ms per ask |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|"
    )
    print(*rows, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
