"""Requests, a router and instances: the whole of a simulation."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, TypeAlias

from trainables.simulation._machine import Instance, Machine
from trainables.simulation._request import Load, Refused, Request, Served, Simulated

Route: TypeAlias = Literal["least_loaded", "round_robin"]


class Client:
    """Sends a load: each request when it is due and there is a place for it."""

    def __init__(self, load: Load) -> None:
        self._requests = load.requests
        self._next = 0
        count = len(load.requests) if load.concurrency is None else load.concurrency
        self._places = [0.0] * min(count, len(load.requests))
        self.waits_for_answers = load.concurrency is not None

    def due(self) -> float:
        """When it sends the next request unless a place becomes free earlier; inf: never."""
        if self._next >= len(self._requests) or not self._places:
            return math.inf
        return max(self._places[0], self._requests[self._next].arrival or 0.0)

    def send(self) -> Request:
        """The next request, at its time."""
        heapq.heappop(self._places)
        self._next += 1
        return self._requests[self._next - 1]

    def answered(self, at: float) -> None:
        """A request has ended; its place is free."""
        if self.waits_for_answers:
            heapq.heappush(self._places, at)


class Router:
    """Chooses the instance of a request."""

    def __init__(self, machines: Sequence[Machine], route: Route) -> None:
        self._machines = machines
        self._route = route
        self._turn = 0

    def choose(self) -> Machine:
        """The least loaded one, of equals the one whose turn it is."""
        machines, turn = self._machines, self._turn
        self._turn = (turn + 1) % len(machines)
        if self._route == "round_robin" or len(machines) == 1:
            return machines[turn]
        return min(
            (machines[(turn + number) % len(machines)] for number in range(len(machines))),
            key=lambda machine: machine.load,
        )


def simulate(
    instances: Sequence[Instance],
    load: Load,
    *,
    route: Route = "least_loaded",
    stop: Callable[[Served], bool] | None = None,
) -> Simulated:
    """Serve a load by instances of equal standing behind a router.

    Deterministic: equal arguments give equal results.

    Args:
        instances: Who serves.
        load: What is asked.
        route: How the router chooses.
        stop: Told every answered request, in the order in which they end; True ends the
            simulation there.

    Raises:
        ValueError: There is no instance, two have one name, or arrivals decrease.
    """
    check(instances, load)
    machines = [Machine(one) for one in instances]
    client, router = Client(load), Router(machines, route)
    served: list[Served] = []
    refused: list[Refused] = []
    independent = not client.waits_for_answers and stop is None
    while True:
        due = client.due()
        if independent:
            served += _caught_up(machines, due)
        times = [machine.next_time() for machine in machines]
        now = min(times)
        if due == now == math.inf:
            break
        if due <= now:
            request, machine = client.send(), router.choose()
            if (reason := machine.refusal(request)) is not None:
                refused.append(Refused(request, due, reason))
                client.answered(due)
            else:
                machine.submit(request, due)
            continue
        chosen = times.index(now)
        horizon = due
        if len(times) > 1:
            horizon = min(due, *times[:chosen], *times[chosen + 1 :])
        ended = machines[chosen].step(horizon)
        served += ended
        for one in ended:
            client.answered(one.end)
        if stop and any(stop(one) for one in ended):
            break
    return Simulated(
        sorted(served, key=lambda one: one.request.number),
        refused,
        {machine.instance.name: machine.iterations() for machine in machines},
        {one.name: one.settings.num_blocks for one in instances},
    )


def _caught_up(machines: Sequence[Machine], until: float) -> list[Served]:
    """Every instance up to a time before which nothing happens that concerns it."""
    served: list[Served] = []
    for machine in machines:
        while machine.next_time() < until:
            served += machine.step(until)
    return served


def check(instances: Sequence[Instance], load: Load) -> None:
    """Raises ``ValueError`` for what cannot be simulated."""
    if not instances:
        raise ValueError("there is no instance")
    names = [one.name for one in instances]
    if len(set(names)) < len(names):
        raise ValueError(f"instances need names of their own, there are {', '.join(names)}")
    arrivals = [request.arrival or 0.0 for request in load.requests]
    if any(later < earlier for earlier, later in pairwise(arrivals)):
        raise ValueError("requests have to be in the order of their arrival")
