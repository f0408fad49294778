"""A discrete-event simulator of serving engines: pure, seeded, on a virtual clock."""

from trainables.simulation._batch import Batch, Chunk
from trainables.simulation._latency import HostCosts, LatencyModel
from trainables.simulation._machine import Instance
from trainables.simulation._request import Iterations, Load, Refused, Request, Served, Simulated
from trainables.simulation._settings import SchedulerSettings
from trainables.simulation._simulate import Route, simulate

__all__ = [
    "Batch",
    "Chunk",
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
    "simulate",
]
