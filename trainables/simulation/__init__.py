"""A discrete-event simulator of serving engines: pure, seeded, on a virtual clock."""

from trainables.simulation._batch import Batch, Chunk
from trainables.simulation._latency import HostCosts, LatencyModel
from trainables.simulation._machine import Instance
from trainables.simulation._pools import FirstToken, simulate_disaggregated
from trainables.simulation._request import Iterations, Load, Refused, Request, Served, Simulated
from trainables.simulation._settings import SchedulerSettings
from trainables.simulation._simulate import Route, simulate
from trainables.simulation._split import (
    Pool,
    Role,
    Shape,
    Split,
    all_splits,
    decode_rate,
    matched_rate,
    prefill_rate,
)
from trainables.simulation._split_guess import guessed_rates, simulated_rates
from trainables.simulation._split_judge import LatencyLimits, SplitJudge
from trainables.simulation._split_search import Judged, Ranked, best_split
from trainables.simulation._transfer import Transfer

__all__ = [
    "Batch",
    "Chunk",
    "FirstToken",
    "HostCosts",
    "Instance",
    "Iterations",
    "Judged",
    "LatencyLimits",
    "LatencyModel",
    "Load",
    "Pool",
    "Ranked",
    "Refused",
    "Request",
    "Role",
    "Route",
    "SchedulerSettings",
    "Served",
    "Shape",
    "Simulated",
    "Split",
    "SplitJudge",
    "Transfer",
    "all_splits",
    "best_split",
    "decode_rate",
    "guessed_rates",
    "matched_rate",
    "prefill_rate",
    "simulate",
    "simulate_disaggregated",
    "simulated_rates",
]
