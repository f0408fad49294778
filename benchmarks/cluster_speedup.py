"""How much faster a search is on several nodes, and how full it keeps them.

Nodes are real raylets on this machine, each in a network of its own; trials last a fixed time, as
measurements do, and compute nothing. First the same search on 1, 2 and 4 nodes; then trials of 1,
2, 4 and 8 devices side by side on nodes of 8, drawn as a Gantt chart::

    python -m benchmarks.cluster_speedup [--trials 8] [--seconds 30] [--gantt gantt.svg]

Times are from the first word of the first trial on its node to the end of the last one of the
search. The start of Ray is not among them, nor is that of the first trial's worker; the starts of
the others are.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.nodes import nodes
from tuner._gantt import Bar, draw, read_bars, utilisation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--nodes", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--mixed", type=int, default=24, help="trials of different sizes; 0: none")
    parser.add_argument("--gantt", type=Path, default=Path("gantt.svg"))
    arguments = parser.parse_args()
    spans = {}
    for count in arguments.nodes:
        space = {"x": {"type": "int", "low": 1, "high": arguments.trials}}
        found = search(count, 1, space, arguments.trials, arguments.seconds)
        spans[count] = span(found)
        told(f"{count} nodes", found, count)
        if 1 in spans:
            speedup = spans[1] / spans[count]
            print(f"  speed-up {speedup:.2f}, {speedup / count:.2f} of the number of nodes")
    if arguments.mixed:
        space = {
            "x": {"type": "float", "low": 0.0, "high": 1.0},
            "devices": {"type": "enum", "values": [1, 2, 4, 8]},
        }
        found = search(2, 8, space, arguments.mixed, arguments.seconds / 2)
        told("2 nodes of 8, trials of 1, 2, 4 and 8", found, 16)
        sizes = {size: sum(bar.devices == size for bar in found) for size in (1, 2, 4, 8)}
        print(f"  trials by size: {sizes}")
        draw(found, arguments.gantt, title="Trials of 1, 2, 4 and 8 devices on two nodes")
        print(f"  drawn in {arguments.gantt}")


def search(
    count: int, devices: int, space: Mapping[str, Any], trials: int, seconds: float
) -> list[Bar]:
    """The attempts of a search on ``count`` nodes with ``devices`` each."""
    # Nobody competes for CPUs: only devices decide how much runs at once.
    with tempfile.TemporaryDirectory() as name, nodes(cpus=0) as cluster:
        for _ in range(count):
            cluster.add({"CPU": 16, "NPU": devices})
        folder = Path(name)
        document = {
            "name": "speedup",
            "trial": {"type": "rehearsal", "stages": ["measure"], "seconds": seconds},
            "search": {"type": "random", "trials": trials, "space": dict(space)},
            "objective": {"maximize": "score"},
            "cluster": {
                "address": cluster.address,
                "resources": {"CPU": 0.5, "NPU": "auto"},
            },
            "storage": str(folder),
        }
        file = folder / "speedup.yaml"
        file.write_text(yaml.safe_dump(document))
        done = subprocess.run(
            [sys.executable, "-m", "tuner", "run", str(file)],
            env=os.environ | cluster.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        return [
            bar for bar in read_bars(folder / "speedup/events.jsonl") if bar.kind == "candidate"
        ]


def span(found: Sequence[Bar]) -> float:
    return max(bar.ended for bar in found) - min(bar.begun for bar in found)


def told(what: str, found: Sequence[Bar], devices: int) -> None:
    used = utilisation(found, devices)
    print(f"{what}: {len(found)} trials in {span(found):.1f} s, devices used {used:.0%}")


if __name__ == "__main__":
    main()
