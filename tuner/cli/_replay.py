"""``replay``: strategies against recorded measurements, without a trial."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.replay import Case, Contender, Request, TableTask

_EPILOG = """\
example:
  python -m tuner replay sweep.csv --space tp,quantization,concurrency:log \\
      --objective 'max output_throughput, mean_ttft_ms <= 2000, mean_tpot_ms <= 30' \\
      --search auto,random,tpe --seeds 20 --workers 1,4
docs/replay.md says how to prepare a table and how to read the numbers."""


def add_commands(commands: Any) -> None:
    parser = commands.add_parser(
        "replay",
        help="strategies against recorded measurements",
        description="How many evaluations strategies need to find the best row of a table.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_task_arguments(parser)
    _add_run_arguments(parser)
    parser.set_defaults(command=_replay)


def _add_task_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("tables", nargs="+", type=Path, metavar="TABLE", help="CSV, TSV or JSON lines; a task each")
    add(
        "--space",
        metavar="COLUMNS|YAML|FILE",
        help="columns to search, as tp,concurrency:log (types: enum, categorical, int, float, log, "
        "bool), or a space block; default: what looks like a parameter",
    )
    add(
        "--objective",
        required=True,
        metavar="TEXT|YAML|FILE",
        help="as 'max throughput, ttft <= 2', or an objective block",
    )
    add("--where", action="append", default=[], metavar="COL=VALUE", help="keep only such rows")
    add("--by", default="", metavar="COL,COL", help="a task for each combination of their values")
    add("--repeats", choices=("mean", "first", "random"), default="mean", help="rows alike are")
    add("--failures", metavar="COL", help="which rows failed (default: status or error; or none)")
    add("--duration", metavar="COL", help="time of a trial (default: duration; or none)")
    add(
        "--missing",
        choices=("free", "count", "fail", "nearest"),
        default="free",
        help="points without a row: told as failed and not counted; counted; an error; or "
        "answered by the nearest row (default: free)",
    )


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--search",
        default="auto,random,tpe",
        metavar="A,B,C",
        help="strategies, with options as optuna{sampler: gp} (default: auto,random,tpe)",
    )
    add("--budget", type=_positive, metavar="N", help="evaluations of a run (default: all rows)")
    add("--seeds", type=_positive, default=20, metavar="K", help="runs of each (default: 20)")
    add("--workers", type=_widths, default=(1,), metavar="W,W", help="trials at once (default: 1)")
    add("--within", type=_percent, default=5.0, metavar="PERCENT", help="of the best (default: 5)")
    add("--until-found", action="store_true", help="end a run once it is within; faster")
    add("--processes", type=_positive, default=1, metavar="N", help="runs at once (default: 1)")
    add("--output", type=Path, metavar="FILE", help="write the JSON there instead of stdout")
    add("--quiet", action="store_true", help="nothing for people on stderr")


def _replay(arguments: argparse.Namespace) -> int:
    from cluster import write_atomic
    from tuner.replay import Faults, as_table, read_contenders, read_tasks

    say: Callable[[str], None] = (lambda line: None) if arguments.quiet else _say
    faults = Faults()
    contenders = faults.attempt(lambda: read_contenders(arguments.search))
    tasks = faults.attempt(lambda: read_tasks(arguments.tables, _request(arguments), say))
    faults.check()
    assert contenders and tasks
    document = _carried_out(tasks, contenders, arguments, say)
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    if arguments.output is None:
        print(text)
    else:
        write_atomic(arguments.output, text + "\n")
    say(as_table(document))
    return 0


def _carried_out(
    tasks: Sequence[TableTask],
    contenders: Sequence[Contender],
    arguments: argparse.Namespace,
    say: Callable[[str], None],
) -> dict[str, Any]:
    from tuner.replay import NeverRecorded, Settings, check_contenders, fault, replay, report

    check_contenders(contenders, [task.space for task in tasks])
    settings = Settings(
        budget=arguments.budget,
        seeds=arguments.seeds,
        workers=arguments.workers,
        within=arguments.within,
        missing=arguments.missing,
        until_found=arguments.until_found,
    )

    def ended(case: Case) -> None:
        if case.world == len(tasks) - 1:
            say(f"{contenders[case.contender].label}, {case.workers} at once: done")

    try:
        runs = replay(tasks, contenders, settings, processes=arguments.processes, ended=ended)
    except NeverRecorded as error:
        raise fault("--missing", f"{error}; use free, count or nearest") from error
    return report(tasks, contenders, settings, runs)


def _request(arguments: argparse.Namespace) -> Request:
    from tuner.replay import Request

    return Request(
        objective=arguments.objective,
        space=arguments.space,
        where=arguments.where,
        by=[name.strip() for name in arguments.by.split(",") if name.strip()],
        failures=arguments.failures,
        duration=arguments.duration,
        repeats=arguments.repeats,
        missing=arguments.missing,
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    if not text.strip().isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _percent(text: str) -> float:
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value < 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage from 0 to below 100")
    return value


def _widths(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(map(_positive, text.split(","))))
