"""What a trial costs beyond its stages, and how soon the first one begins.

Runs a grid of trials without any stage work through the real command line, on a private Ray, and
reads the times from the run's own event log::

    python -m benchmarks.trial_overhead [--trials 40]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=40)
    trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.time()
        _run(folder, trials)
        events = _events(folder / "overhead" / "events.jsonl")
    begun = {event["number"]: event["ts"] for event in events if event["event"] == "proposed"}
    ended = {event["number"]: event["ts"] for event in events if event["event"] == "measured"}
    spans = [ended[number] - begun[number] for number in sorted(ended)]
    print(f"from start to the first trial proposed: {begun[0] - started:.2f} s")
    print(f"first trial (its actor starts): {spans[0]:.2f} s")
    rest = spans[1:]
    print(
        f"{len(rest)} further trials, proposed to measured: median {statistics.median(rest):.3f} s,"
        f" min {min(rest):.3f} s, max {max(rest):.3f} s"
    )


def _run(folder: Path, trials: int) -> None:
    document = {
        "name": "overhead",
        "trial": {"type": "rehearsal", "optimum": {"x": 0}},
        "search": {
            "type": "grid",
            "space": {"x": {"type": "int", "low": 1, "high": trials}},
        },
        "objective": {"maximize": "score"},
        "budget": {"concurrent": 1},
        "cluster": {"dashboard": False},
        "storage": str(folder),
    }
    file = folder / "overhead.yaml"
    file.write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", "tuner", "run", str(file)]
    subprocess.run(command, check=True, capture_output=True)


def _events(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


if __name__ == "__main__":
    main()
