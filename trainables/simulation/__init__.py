"""A discrete-event simulator of serving engines: pure, seeded, on a virtual clock."""

from trainables.simulation._batch import Batch, Chunk
from trainables.simulation._instant import instant_prefill
from trainables.simulation._latency import HostCosts, LatencyModel
from trainables.simulation._machine import Instance
from trainables.simulation._pools import FirstToken, simulate_disaggregated
from trainables.simulation._request import Iterations, Load, Refused, Request, Served, Simulated
from trainables.simulation._settings import SchedulerSettings
from trainables.simulation._simulate import Route, simulate
from trainables.simulation._transfer import Transfer

__all__ = [
    "Batch",
    "Chunk",
    "FirstToken",
    "HostCosts",
    "Instance",
    "Iterations",
    "LatencyModel",
    "Load",
    "Refused",
    "Request",
    "Route",
    "SchedulerSettings",
    "Served",
    "Simulated",
    "Transfer",
    "instant_prefill",
    "simulate",
    "simulate_disaggregated",
]
