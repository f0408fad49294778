"""``train``: a latency model for the simulator, from profiles of a real engine."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.cli._options import add_json

if TYPE_CHECKING:
    from trainables.latency.imports import Imported

_EPILOG = """\
example:
  python -m tuner train -i profiles -o result/latency_model -t vllm
Read are, in DIR and below it: profiler.db with request.csv, batch.csv with request.csv and
forward.csv, output_csv/pid_*/feature.csv, and files of iterations recorded from a live vLLM.
docs/train.md says how to get them, and how to read the model card."""

_SHOWN = 10
_DELAY = 1.05


def add_commands(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="learn a latency model from profiles of an engine",
        description="Learns how long an engine's iterations take, for `engine: simulated`.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("-i", "--input", type=Path, required=True, metavar="DIR", help="folder of profiles")
    add(
        "-o",
        "--output",
        type=Path,
        default=Path("output"),
        metavar="DIR",
        help="where the model goes (default: output)",
    )
    add(
        "-t",
        "--type",
        choices=("mindie", "vllm"),
        default="mindie",
        help="engine that was profiled (default: mindie)",
    )
    add("--seed", type=int, default=0, metavar="N", help="of the training (default: 0)")
    add_json(parser)
    parser.set_defaults(command=_train)


def _train(arguments: argparse.Namespace) -> int:
    from trainables.latency import LatencyError, train_latency
    from trainables.latency.imports import read_recordings

    folder = arguments.output.expanduser().absolute()
    try:
        imported = read_recordings(arguments.input.expanduser(), arguments.type)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _say_read(imported)
    if not imported.iterations:
        said = f"{arguments.input}: there is no iteration in it that can be used"
        print(f"error: {said}; see --help for what is read", file=sys.stderr)
        return 2
    try:
        card = train_latency(imported, folder, arguments.type, arguments.seed)
    except LatencyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {folder}: cannot be written: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps({"model": str(folder), **card}, ensure_ascii=False, allow_nan=False))
        return 0
    _say_errors(card)
    print(f"latency model in {folder}; use it as `latency: {{type: xgboost, path: {folder}}}`")
    return 0


def _say_read(imported: Imported) -> None:
    """What was read and what was not, for people."""
    for source in imported.sources:
        _say(f"{source.path}: {len(source.records)} iterations ({source.format})")
    for reason, count in imported.dropped.items():
        _say(f"left out: {count} x {reason}")
    for fault in imported.faults[:_SHOWN]:
        _say(fault)
    if (more := len(imported.faults) - _SHOWN) > 0:
        _say(f"and {more} more messages like these")


def _say_errors(card: Mapping[str, Any]) -> None:
    if card["delay"] > _DELAY:
        _say(
            f"iterations took {card['delay']:.2f} times what is typical of the same work, as on a "
            "machine that is busy with something else; predicted is the mean"
        )
    for title, name in (("held-out blocks", "held_out"), ("other recordings", "other_loads")):
        for kind, one in card[name].items():
            _say(
                f"{title}, {kind} ({one['rows']} iterations): median error "
                f"{100 * one['median']:.2f} %, P90 {100 * one['p90']:.2f} %, "
                f"bias {100 * one['bias']:+.2f} %"
            )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
