"""How fast the simulator is, and how much memory it takes.

    python -m benchmarks.simulation_speed [--repeats 5]

A recorded run of 300 requests, and production traces of 8,819 and 19,366 requests served by as
many instances as keep up with them. Each case runs in a process of its own, one after the other;
medians of the repeats.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import resource
import statistics
import time
from typing import Any

from benchmarks.recorded_runs import DATA, RecordedRun, folders
from trainables.simulation import Instance, Load, Request, simulate

_TRACES = {"vidur_splitwise_code": 16, "vidur_splitwise_conv": 16}
"""Trace to the instances that serve it."""


def main() -> None:
    """Measure each case, and print JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    run = folders()[0]
    cases = [(path.name, "run") for path in folders()]
    cases += [(name, str(run)) for name in _TRACES if (DATA / "traces" / f"{name}.csv").is_file()]
    context = multiprocessing.get_context("spawn")
    for name, source in cases:
        with context.Pool(1) as pool:
            print(json.dumps(pool.apply(measured, (name, source, repeats))))


def measured(name: str, source: str, repeats: int) -> dict[str, Any]:
    """One case, in a process of its own."""
    instances, load = _case(name, source)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        result = simulate(instances, load)
        times.append(time.perf_counter() - began)
    seconds = statistics.median(times)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    simulated = max(one.end for one in result.served)
    return {
        "case": name,
        "requests": len(load.requests),
        "instances": len(instances),
        "iterations": sum(len(one.end) for one in result.instances.values()),
        "seconds": round(seconds, 3),
        "requests_per_s": round(len(load.requests) / seconds),
        "times_real_time": round(simulated / seconds),
        "peak_memory_mb": round(after / 1024),
        "of_which_before_mb": round(before / 1024),
    }


def _case(name: str, source: str) -> tuple[list[Instance], Load]:
    if source == "run":
        run = next(RecordedRun(path) for path in folders() if path.name == name)
        return run.instances(), run.load()
    one = RecordedRun(next(path for path in folders() if str(path) == source)).instances()[0]
    names = [f"instance {number}" for number in range(_TRACES[name])]
    with (DATA / "traces" / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    requests = [
        Request(
            number,
            int(row["num_prefill_tokens"]),
            max(1, int(row["num_decode_tokens"])),
            float(row["arrived_at"]),
        )
        for number, row in enumerate(rows)
    ]
    return [Instance(each, one.settings, one.latency) for each in names], Load(requests)


if __name__ == "__main__":
    main()
