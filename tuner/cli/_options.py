"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def configs() -> Path:
    """The folder of example experiments: of the checkout, or as installed by pip."""
    checkout = Path(__file__).resolve().parent.parent.parent / "configs"
    return checkout if checkout.is_dir() else Path(sys.prefix) / "share/npu-tuner/configs"


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """The experiment file and changes to it."""
    parser.add_argument(
        "experiment",
        nargs="?",
        type=Path,
        default=configs() / "quickstart.yaml",
        help="experiment file (default: configs/quickstart.yaml)",
    )
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Changes to an experiment."""
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="a.b.c=VALUE",
        help="change a value of the experiment; may be repeated",
    )


def add_translated(parser: argparse.ArgumentParser) -> None:
    """What a command that translates to an experiment does with it."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--print-experiment", action="store_true", help="print it, start nothing")
    what.add_argument("--dry-run", action="store_true", help="say what would run, start nothing")
    add_settings(parser)
    add_json(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Output for programs."""
    parser.add_argument("--json", action="store_true", help="last line of stdout: one JSON object")
