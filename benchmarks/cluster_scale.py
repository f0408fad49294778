"""What a large cluster and a long search cost the driver.

First 10,000 trials on 1,000 nodes of eight devices in a virtual world: everything the driver does
is real (searcher, campaign, rooms and placements, ledger, event log, status), only Ray and the
trials are played on a virtual clock. Then as many trials without any work as fit into some minutes
through a real Ray on this machine: what a trial costs there, and how the experiment's state grows::

    python -m benchmarks.cluster_scale [--nodes 1000] [--trials 10000] [--ray-seconds 180]
"""

from __future__ import annotations

import argparse
import heapq
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import yaml

from cluster import NODE_ID, Node, Placement
from searchers.ray import TuneSearcher
from trainables import TrialPump, TrialSpec
from tuner import _run, _tune
from tuner._ledger import Ledger
from tuner._run import Session
from tuner._store import RunStore
from tuner.experiment import load_experiment

_NODE = {"CPU": 192.0, "NPU": 8.0}
_SECONDS = (300.0, 1800.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--ray-seconds", type=float, default=180.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.trials:
            virtual(Path(folder), arguments.nodes, arguments.trials)
        if arguments.ray_seconds:
            real(Path(folder), arguments.ray_seconds)


class Connection:
    """A cluster that is only a list of nodes."""

    address, lost, dashboard_url = "virtual", None, None

    def __init__(self, count: int) -> None:
        self._nodes = [
            Node(
                f"{number:056x}",
                f"10.{number // 65536}.{number // 256 % 256}.{number % 256}",
                _NODE,
                {NODE_ID: f"{number:056x}"},
            )
            for number in range(count)
        ]

    def nodes(self) -> list[Node]:
        return list(self._nodes)


class World:
    """Plays Ray and all trials: each takes its devices on the first node that has them."""

    def __init__(self, job: _tune.Job, nodes: Sequence[Node]) -> None:
        self._job = job
        self._searcher = TuneSearcher.bind(
            job.key, job.strategy, job.to_config, job.to_outcome, job.has_room
        )
        self._free = {node.id: int(node.resources["NPU"]) for node in nodes}
        self._ends: list[tuple[float, str]] = []
        self._running: dict[str, tuple[dict[str, Any], str, int]] = {}
        self._now = 0.0
        self._count = 0
        self.state_bytes = 0
        self.seconds: dict[str, list[float]] = {"decide": [], "end": [], "tick": [], "save": []}
        self.memory: list[tuple[int, int]] = []

    def run(self) -> None:
        process = psutil.Process()
        while True:
            while isinstance(config := self._timed("decide", self._ask), dict):
                self._begin(config)
            self._timed("tick", self._job.on_tick)
            if not self._ends:
                break
            self._now, trial = heapq.heappop(self._ends)
            self._carry_out(trial)
            result = {"status": "measured"}
            self._timed("end", partial(self._searcher.on_trial_complete, trial, result))
            if len(self.seconds["end"]) % 1000 == 0:
                self.memory.append((len(self.seconds["end"]), process.memory_info().rss))
                self._timed("save", self._save)
        assert self._searcher.fault is None, self._searcher.fault

    def _timed(self, what: str, work: Any) -> Any:
        begun = time.perf_counter()
        result = work()
        if result is not None or what != "decide":
            self.seconds[what].append(time.perf_counter() - begun)
        return result

    def _save(self) -> None:
        """What Ray does with the searcher every two seconds."""
        with tempfile.NamedTemporaryFile() as file:
            self._searcher.save(file.name)
            self.state_bytes = Path(file.name).stat().st_size

    def _ask(self) -> Any:
        return self._searcher.suggest(f"t{self._count}")

    def _begin(self, config: dict[str, Any]) -> None:
        trial = f"t{self._count}"
        self._count += 1
        devices = int(Placement.from_json(config["placement"]).total["NPU"])
        fitting = [node for node, free in self._free.items() if free >= devices]
        node = min(fitting, key=self._free.__getitem__)
        self._free[node] -= devices
        self._running[trial] = (config, node, devices)
        identity = config["spec"]["identity"]
        low, high = _SECONDS
        heapq.heappush(
            self._ends, (self._now + low + int(identity[:8], 16) % int(high - low), trial)
        )
        self._job.on_trial("begun", config)
        report = {"identity": identity, "node": node, "stage": "measure", "config": config}
        self._job.on_report({"status": "running", "note": "", **report})

    def _carry_out(self, trial: str) -> None:
        """What the trial does on its node; not the driver's time."""
        config, node, devices = self._running.pop(trial)
        self._free[node] += devices
        pump = TrialPump(TrialSpec.from_json(config["spec"]))
        while pump.advance(1.0)["status"] == "running":
            pass


def virtual(folder: Path, nodes: int, trials: int) -> None:
    file = _experiment(folder, "virtual", trials, {"CPU": 4, "NPU": "auto"})
    connection, worlds = Connection(nodes), []

    def carry_out(job: _tune.Job, *, restore: bool) -> bool:
        worlds.append(World(job, connection.nodes()))
        worlds[-1].run()
        return False

    begun = time.perf_counter()
    with _session(connection, carry_out):
        result = Session(load_experiment(file), resume=False).run()
    seconds = time.perf_counter() - begun
    (world,) = worlds
    print(
        f"{nodes} nodes, {result.counts.measured} trials in a virtual world: {seconds:.1f} s",
        end=", ",
    )
    driver = sum(map(sum, world.seconds.values()))
    print(f"of which the driver's {driver:.1f} s, {1000 * driver / trials:.2f} ms a trial")
    for what, title in (
        ("decide", "a proposal and its place"),
        ("end", "an end"),
        ("tick", "a tick"),
    ):
        print(f"  {title:26} {_spread(world.seconds[what])}")
    halves = len(world.seconds["end"]) // 2
    first, last = world.seconds["end"][:halves], world.seconds["end"][halves:]
    print(f"  an end, first / second half: {_ms(first)} / {_ms(last)}")
    print(
        "  driver's memory: "
        + ", ".join(f"{n}: {size / 2**20:.0f} MiB" for n, size in world.memory)
    )
    saves = ", ".join(f"{1000 * one:.0f}" for one in world.seconds["save"])
    size = world.state_bytes / 2**20
    print(f"  saving the searcher, each 1,000 trials: {saves} ms; {size:.1f} MiB at last")
    _files(folder / "virtual")
    _resume(file, connection)


@contextmanager
def _session(connection: Connection, carry_out: Any) -> Iterator[None]:
    @contextmanager
    def connected(*_: object, **__: object) -> Iterator[Connection]:
        yield connection

    capacity = {name: amount * len(connection.nodes()) for name, amount in _NODE.items()}
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(_run, "connect", connected))
        patches.enter_context(mock.patch.object(_tune, "carry_out", carry_out))
        patches.enter_context(mock.patch("ray.cluster_resources", lambda: capacity))
        # What a terminal would be told goes to a log file in a real run.
        null = patches.enter_context(Path("/dev/null").open("w"))
        patches.enter_context(mock.patch.object(sys, "stderr", null))
        yield


def _files(folder: Path) -> None:
    ledger = folder / "ledger.jsonl"
    begun = time.perf_counter()
    known = Ledger(ledger)
    read = time.perf_counter() - begun
    begun = time.perf_counter()
    RunStore(folder).ledger()
    adopted = time.perf_counter() - begun
    print(f"  ledger: {ledger.stat().st_size / 2**20:.1f} MiB, {len(known)} measurements", end=", ")
    print(f"read in {read:.2f} s, with all trials' folders {adopted:.2f} s")
    print(f"  status.json {(folder / 'status.json').stat().st_size / 2**20:.1f} MiB", end=", ")
    print(f"events.jsonl {(folder / 'events.jsonl').stat().st_size / 2**20:.1f} MiB")


def _resume(file: Path, connection: Connection) -> None:
    """The same search again: what a driver does first that was killed just before the end."""
    with _session(connection, lambda job, restore: False):
        begun = time.perf_counter()
        result = Session(load_experiment(file), resume=True).run()
        seconds = time.perf_counter() - begun
    print(f"  resume: {result.counts.reused} measurements replayed in {seconds:.1f} s")


def real(folder: Path, seconds: float) -> None:
    """Trials without work through Ray, until the time of the budget is spent."""
    file = _experiment(
        folder, "real", 1_000_000, {"CPU": 0.5}, budget={"concurrent": 2, "time": seconds}
    )
    command = [sys.executable, "-m", "tuner", "run", str(file)]
    subprocess.run(command, check=False, capture_output=True)
    run = folder / "real"
    lines = (run / "events.jsonl").read_text().splitlines()
    ends = [event["ts"] for event in map(json.loads, lines) if event["event"] == "measured"]
    tenth = max(1, len(ends) // 10)
    parts = [ends[part : part + tenth + 1] for part in range(0, tenth * 10, tenth)]
    costs = [1000 * (part[-1] - part[0]) / max(1, len(part) - 1) for part in parts if len(part) > 1]
    print(f"{len(ends)} trials without work through Ray in {seconds:g} s, two at once")
    print("  ms a trial, by tenths of the run: " + ", ".join(f"{cost:.0f}" for cost in costs))
    states = sorted((run / "ray").glob("*/experiment_state-*.json"))
    searcher = sorted((run / "ray").glob("*/searcher-state-*.pkl"))
    size, count = states[-1].stat().st_size, max(1, len(ends))
    print(
        f"  experiment state {size / 2**20:.2f} MiB, {size / count / 1024:.2f} KiB a trial",
        end="; ",
    )
    print(f"searcher's {searcher[-1].stat().st_size / count / 1024:.2f} KiB a trial")


def _experiment(
    folder: Path,
    name: str,
    trials: int,
    resources: Mapping[str, Any],
    **more: Any,
) -> Path:
    document = {
        "name": name,
        "trial": {"type": "rehearsal", "optimum": {"x": 0.3}},
        "search": {
            "type": "random",
            "trials": trials,
            "space": {
                "x": {"type": "float", "low": 0.0, "high": 1.0},
                "devices": {"type": "enum", "values": [1, 2, 4, 8]},
            },
        },
        "objective": {"maximize": "score"},
        "cluster": {"dashboard": False, "resources": dict(resources)},
        "storage": str(folder),
        **more,
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def _spread(seconds: Sequence[float]) -> str:
    cuts = statistics.quantiles(seconds, n=100)
    worst = 1000 * max(seconds)
    return f"median {1000 * cuts[49]:.2f} ms, P99 {1000 * cuts[98]:.2f} ms, max {worst:.0f} ms"


def _ms(seconds: Sequence[float]) -> str:
    return f"{1000 * statistics.fmean(seconds):.2f} ms"


if __name__ == "__main__":
    main()
