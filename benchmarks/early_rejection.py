"""How often early rejection is wrong, and what it saves.

    python -m benchmarks.early_rejection [--runs 2000] [--seed 0]

An engine that serves ``slots`` requests at once, each for a random time that stretches with the
number under way, is loaded by a closed loop of clients; its latencies are what a queue makes of
them, so neighbours are alike. Every run is carried to its end, and asked on the way whether the
sentinel would have ended it. Wrong is a run that was ended although in the end it keeps its limits
(or reaches the throughput to beat).

The third part lets the search for the operating point give configurations up against an incumbent,
with a tenth of noise on every run; wrong is one whose true operating point would have won, however
narrowly.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from trainables.serving._load import OperatingPoint
from trainables.serving._operating_point import Found, OperatingPointSearch, Probe
from trainables.serving._sentinel import Sentinel
from trainables.serving._slo import Limit

_OUTPUT = 64
"""Tokens of an answer."""


class Tally:
    """Runs that would have turned out well and those that would not, and which were ended."""

    def __init__(self) -> None:
        self._good: list[bool] = []
        self._hopeless: list[tuple[bool, float]] = []

    def add(self, *, good: bool, ended: bool, spent: float) -> None:
        """``spent``: share of the whole run's cost."""
        if good:
            self._good.append(ended)
        else:
            self._hopeless.append((ended, spent))

    def row(self, rule: str) -> tuple[str, ...]:
        wrong, good = sum(self._good), len(self._good)
        caught = statistics.fmean(ended for ended, _ in self._hopeless)
        spent = statistics.fmean(share for _, share in self._hopeless)
        shares = (f"{100 * wrong / good:.2f} %", f"{100 * caught:.0f} %", f"{100 * spent:.0f} %")
        return (rule, f"{wrong} of {good}", *shares)


@dataclass(frozen=True)
class Request:
    end: float
    ttft: float
    tpot: float


def serve(rng: random.Random, *, clients: int, slots: int, count: int) -> list[Request]:
    """A closed loop of ``clients`` on an engine with ``slots``, in the order of completion."""
    free = [0.0] * slots
    ready = [rng.uniform(0, 0.01) for _ in range(clients)]
    heapq.heapify(ready)
    heapq.heapify(free)
    crowd = min(clients, slots)
    done: list[Request] = []
    drift = 1.0
    for _ in range(count):
        asked = heapq.heappop(ready)
        begin = max(asked, heapq.heappop(free))
        drift = 0.9 * drift + 0.1 * rng.lognormvariate(0, 0.3)
        tpot = 0.01 * (1 + 0.03 * crowd) * drift * rng.lognormvariate(0, 0.1)
        prefill = 0.05 * rng.lognormvariate(0, 0.3)
        end = begin + prefill + tpot * (_OUTPUT - 1)
        heapq.heappush(free, end)
        heapq.heappush(ready, end)
        done.append(Request(end, begin + prefill - asked, tpot))
    return sorted(done, key=lambda request: request.end)


def windows(run: list[Request], seconds: float = 1.0) -> Iterator[list[Request]]:
    """The requests that ended in each second."""
    rest = iter(run)
    request = next(rest, None)
    number = 1
    while request is not None:
        ended = []
        while request is not None and request.end <= number * seconds:
            ended.append(request)
            request = next(rest, None)
        yield ended
        number += 1


def ended_after(run: list[Request], sentinel: Sentinel) -> float | None:
    """Share of the requests after which the sentinel ends a run; None when it does not."""
    seen = 0
    for ended in windows(run):
        seen += len(ended)
        sentinel.add(
            completed=len(ended),
            failed=0,
            seconds=1.0,
            output_tokens=_OUTPUT * len(ended),
            latencies={"ttft": [r.ttft for r in ended], "tpot": [r.tpot for r in ended]},
        )
        if seen < len(run) and sentinel.verdict() is not None:
            return seen / len(run)
    return None


def percentile(values: list[float], percent: int) -> float:
    ordered = sorted(values)
    at = percent / 100 * (len(ordered) - 1)
    low = int(at)
    return ordered[low] + (at - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def loaded(rng: random.Random) -> tuple[list[Request], int]:
    """A run, and the number of its clients."""
    clients, slots = rng.choice([4, 16, 32]), rng.choice([4, 8, 16])
    return serve(rng, clients=clients, slots=slots, count=rng.choice([200, 400])), clients


def limits(metric: str, runs: int, seed: int) -> tuple[str, ...]:
    """A limit on a mean or a percentile, set near what the run comes to."""
    latency, _, statistic = metric.removesuffix("_s").partition("_")
    tally = Tally()
    for number in range(runs):
        rng = random.Random(f"{seed}/{metric}/{number}")
        run, clients = loaded(rng)
        values = [getattr(request, latency) for request in run]
        mean = statistic == "mean"
        final = statistics.fmean(values) if mean else percentile(values, int(statistic[1:]))
        limit = final * math.exp(rng.uniform(-1, 1))
        share = ended_after(run, Sentinel((Limit(metric, max=limit),), len(run), clients))
        tally.add(good=final <= limit, ended=share is not None, spent=share or 1.0)
    return tally.row(metric)


def throughput(runs: int, seed: int) -> tuple[str, ...]:
    """A throughput to beat, with the allowance of a tenth that trials give."""
    tally = Tally()
    for number in range(runs):
        rng = random.Random(f"{seed}/throughput/{number}")
        run, clients = loaded(rng)
        reached = _OUTPUT * len(run) / run[-1].end
        needed = reached * math.exp(rng.uniform(-0.7, 0.7))
        goal = ("output_tokens_per_s", 0.9 * needed)
        share = ended_after(run, Sentinel((), len(run), clients, goal))
        tally.add(good=reached >= needed, ended=share is not None, spent=share or 1.0)
    return tally.row("output_tokens_per_s to beat")


def points(runs: int, seed: int) -> tuple[str, ...]:
    """Configurations given up between runs; a short run costs a quarter of a full one."""
    tally = Tally()
    for number in range(runs):
        rng = random.Random(f"{seed}/points/{number}")
        tpot, full_at = rng.uniform(0.002, 0.04), rng.uniform(2, 100)
        true = min(full_at * 0.05 / tpot, 256)
        best = true / max(tpot, tpot * true / full_at)
        needed = best * math.exp(rng.uniform(-0.7, 0.7))
        whole, _ = searched(rng, tpot, full_at, None)
        short, found = searched(rng, tpot, full_at, needed)
        given_up = found.reason == "beaten"
        tally.add(good=best >= needed, ended=given_up, spent=min(short / whole, 1.0))
    return tally.row("operating point to beat")


def searched(
    rng: random.Random, tpot: float, full_at: float, incumbent: float | None
) -> tuple[float, Found]:
    """What a search for the operating point costs, in full runs, and where it ends."""
    limit = Limit("tpot_mean_s", max=0.05)
    search = OperatingPointSearch(OperatingPoint(), (limit,), incumbent=incumbent)
    cost = 0.0
    while isinstance(step := search.next(), Probe):
        value = tpot * max(1.0, step.level / full_at) * rng.lognormvariate(0, 0.1)
        search.tell(step, {"tpot_mean_s": value, "output_tokens_per_s": step.level / value})
        cost += 1.0 if step.full else 0.25
    return cost, step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=2000, help="runs per row (default: 2000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    runs, seed = options.runs, options.seed
    watched = ("ttft_mean_s", "tpot_mean_s", "ttft_p90_s", "tpot_p99_s")
    rows = [limits(metric, runs, seed) for metric in watched]
    rows += [throughput(runs, seed), points(runs, seed)]
    head = ("rule", "wrongly ended", "share", "hopeless ended", "spent on hopeless")
    for row in [head, *rows]:
        print("{:<28} {:>16} {:>8} {:>15} {:>18}".format(*row))


if __name__ == "__main__":
    main()
