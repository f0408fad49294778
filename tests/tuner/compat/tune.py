"""Calls of ``tune`` in this process, on plans of the three kinds."""

from __future__ import annotations

from pathlib import Path

from tuner.cli import main

PLANS = Path(__file__).parent / "plans"
CPU = ("--device", "cpu")


def plan_text(name: str) -> str:
    return (PLANS / f"{name}.yaml").read_text()


def tune(folder: Path, plan: Path, *arguments: str) -> int:
    """Exit code of ``tune`` for the model in ``folder/model``, by default an empty folder, and
    ``folder/save``."""
    (folder / "model").mkdir(exist_ok=True)
    paths = ["--model_path", str(folder / "model"), "--save_path", str(folder / "save")]
    return main(["tune", *paths, "--config", str(plan), *arguments])
