"""The best split of eight instances into prefill and decode, found and checked.

    python -m benchmarks.pd_split [--requests 2000] [--stability 500 1000 4000]

For each model profiled in ``vllm_profiles`` (``../shared/data``, or ``$TUNER_DATA``): eight
instances set as its recorded run was, each iteration as long as its operator tables say, serve the
conversation trace (its first requests, the arrivals closer together). The request rate is to be the
highest at which the 90th percentiles keep TTFT <= 2 s and TPOT <= 50 ms.

1. ``best``: rates of single instances, rate matching, whole runs of the splits that may be the
   best; and one of eight instances that do both, at the rate of the best. ``seconds`` is the time
   of all that.
2. ``exhaustive``: the rate of every split, and of eight instances that do both, by whole runs,
   without any guess as to which is best.
3. ``stability``: the best split by other numbers of requests.

KV caches go over one link of 100 Gbit/s for each instance, 2 ms latency, pulled as a whole.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.recorded_runs import DATA, RecordedRun, folders
from searchers import ROLES, Ranked, Role, Shape, all_splits, best_split, matched_rate
from trainables.simulation import Instance, Request, Transfer
from tuner.splits import LatencyLimits, SplitJudge, simulated_rates

TRACE = DATA / "traces" / "vidur_splitwise_conv.csv"
INSTANCES = 8
LIMITS = LatencyLimits(ttft=2.0, tpot=0.05, percentile=90.0)
PRECISION, ALLOWANCE = 0.02, 0.3
_LINK_GB_PER_S, _LATENCY_S = 12.5, 0.002


class Search:
    """Splits of one model over so many instances, on so many requests."""

    def __init__(
        self, folder: Path, requests: Sequence[Request], instances: int = INSTANCES
    ) -> None:
        run = RecordedRun(folder)
        served = run.served
        instance: Instance = run.instances()[0]
        config = run.config
        heads, size = config["num_key_value_heads"], config["head_dim"]
        transfer = Transfer(
            2.0 * config["num_hidden_layers"] * heads * size * 2, _LINK_GB_PER_S, _LATENCY_S
        )
        shape = Shape(f"tp{served.tensor_parallel}", served.tensor_parallel)
        self._table: dict[tuple[str, Role], Instance] = {
            (shape.name, role): instance for role in ROLES
        }
        self._requests, self._transfer, self._instances = requests, transfer, instances
        self.shape = shape
        splits = all_splits([shape], instances * shape.devices)
        self.apart = [split for split in splits if split.disaggregated]
        self.together = [split for split in splits if not split.disaggregated]

    def rates(self) -> dict[tuple[str, Role], float]:
        """Requests per second at which one instance alone keeps the limits."""
        return simulated_rates(
            self._table, self._requests, LIMITS, share=self._instances, transfer=self._transfer
        )

    def judge(self) -> SplitJudge:
        """What says whether a split keeps the limits at a request rate."""
        return SplitJudge(self._table, self._requests, LIMITS, transfer=self._transfer)

    def best(self) -> tuple[list[Ranked], bool]:
        """The best split first; and whether eight instances that do both are better."""
        rates = self.rates()
        judge = self.judge()
        ranking = best_split(
            self.apart,
            judge,
            lambda split: matched_rate(split, rates),
            precision=PRECISION,
            allowance=ALLOWANCE,
        )
        return ranking, judge(self.together[0], ranking[0].bound).kept

    def every(self) -> list[Ranked]:
        """The rate of every split, each searched for from the same rate on."""
        judge = self.judge()
        rate = float(self._instances)
        return [
            one
            for group in (self.apart, self.together)
            for one in best_split(
                group, judge, lambda _: rate, precision=PRECISION, exhaustive=True
            )
        ]


def main() -> None:
    """Search, check, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--stability", type=int, nargs="*", default=[])
    chosen = parser.parse_args()
    if not folders() or not TRACE.is_file():
        print(f"no recordings: {DATA} has none; set TUNER_DATA", file=sys.stderr)
        raise SystemExit(2)
    for folder in folders():
        report = reported(folder, chosen.requests)
        report["stability"] = {count: stable(folder, count) for count in chosen.stability}
        print(json.dumps(report, indent=1), flush=True)


def reported(folder: Path, count: int) -> dict[str, Any]:
    """One model."""
    requests = trace(count)
    began, spent = time.perf_counter(), time.process_time()
    ranking, mixed_is_better = Search(folder, requests).best()
    seconds, processor = time.perf_counter() - began, time.process_time() - spent
    every = Search(folder, requests).every()
    apart = [one for one in every if one.split.disaggregated]
    return {
        "model": folder.name,
        "requests": count,
        "seconds": round(seconds, 2),
        "processor_seconds": round(processor, 2),
        "best": [said(one) for one in ranking],
        "mixed_is_better": mixed_is_better,
        "exhaustive": [said(one) for one in every],
        "is_best": apart[0].split == ranking[0].split,
        "second_best_has": round(apart[1].rate / apart[0].rate, 3),
    }


def stable(folder: Path, count: int) -> dict[str, Any]:
    """The answer on another number of requests."""
    ranking, mixed_is_better = Search(folder, trace(count)).best()
    return {**said(ranking[0]), "mixed_is_better": mixed_is_better}


def trace(count: int) -> list[Request]:
    """The first requests of the conversation trace."""
    with TRACE.open(encoding="utf-8") as file:
        rows = [row for row, _ in zip(csv.DictReader(file), range(count), strict=False)]
    return [
        Request(
            number,
            int(row["num_prefill_tokens"]),
            int(row["num_decode_tokens"]),
            float(row["arrived_at"]),
        )
        for number, row in enumerate(rows)
    ]


def said(one: Ranked) -> dict[str, Any]:
    """A rank, for the report."""
    return {
        "split": str(one.split),
        "requests_per_s": round(one.rate, 2) if one.rate else None,
        "breaks_at": round(one.bound, 2) if one.runs and one.limit else None,
        "by": f"{one.limit} of {one.pool}" if one.limit else None,
        "guess": round(one.guess, 2),
        "runs": one.runs,
    }


if __name__ == "__main__":
    main()
