"""The run's numbers beside Ray's own: on every node's metrics port, for the dashboard's charts."""

from __future__ import annotations

import string
import time
from collections.abc import Callable
from urllib.parse import quote

import ray
from ray.util.metrics import Gauge

from tuner._view import RunView

_HOUR = 3600.0


class RunMetrics:
    """Gauges of one session of a run, each with the experiment's name as tag ``experiment``.

    ``tuner_trials`` by ``status``, ``tuner_failures`` by ``class``, ``tuner_width`` (trials that
    may run at once), ``tuner_best_objective`` by ``metric``, ``tuner_slo_attainment`` (share of
    the demands and limits met) ``of`` the best and the last candidate, ``tuner_device_hours`` by
    ``phase`` (starting, producing, measuring, idle) and ``resource``, ``tuner_elapsed_seconds``
    and ``tuner_remaining_seconds``. There are as many series as there are statuses, classes and
    phases, however many trials.

    Ray takes tags in ASCII only: letters beyond it are percent-encoded UTF-8.

    Needs a connected Ray; Prometheus scrapes them where it scrapes Ray (``ray_tuner_...``).
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._trials = self._gauge("trials", "Trials by status", "status")
        self._failures = self._gauge("failures", "Failed attempts by class of failure", "class")
        self._width = self._gauge("width", "Trials that may run at once")
        self._best = self._gauge("best_objective", "Best value of what ranks", "metric")
        self._attained = self._gauge("slo_attainment", "Share of the demands met", "of")
        self._devices = self._gauge(
            "device_hours", "Device hours by what they were used for", "phase", "resource"
        )
        self._elapsed = self._gauge("elapsed_seconds", "Time since the start of the run")
        self._remaining = self._gauge("remaining_seconds", "Estimate of the time to go")
        self._clock = clock
        self._counted = clock()
        self._there = 0.0

    def update(self, view: RunView) -> None:
        """Set all gauges from the view."""
        for status, count in vars(view.counts).items():
            self._trials.set(count, {"status": status})
        self._trials.set(len(view.running), {"status": "running"})
        for failure, count in view.failures.items():
            self._failures.set(count, {"class": failure})
        self._width.set(view.width)
        self._elapsed.set(view.elapsed)
        remaining = view.remaining_seconds()
        if remaining is not None:
            self._remaining.set(remaining)
        self._update_best(view)
        self._update_devices(view)

    def _update_best(self, view: RunView) -> None:
        best, ranking = view.judged_best(), view.objective.ranking
        if ranking is not None and best is not None and best.value is not None:
            self._best.set(best.value, {"metric": _tag(ranking[0])})
        for of, one in (("best", best), ("last", view.last)):
            if one is not None and one.attainment is not None:
                self._attained.set(one.attainment, {"of": of})

    def _update_devices(self, view: RunView) -> None:
        """Idle is what the nodes had, as they came and went, less what trials held."""
        view.count_devices()
        now = self._clock()
        capacity = ray.cluster_resources().get(view.resource, 0.0)
        self._there += capacity * (now - self._counted)
        self._counted = now
        held = sum(view.device_seconds.values())
        idle = ("idle", max(0.0, self._there - held))
        for phase, value in (*view.device_seconds.items(), idle):
            self._devices.set(value / _HOUR, {"phase": phase, "resource": view.resource})

    def _gauge(self, name: str, description: str, *tags: str) -> Gauge:
        gauge = Gauge(f"tuner_{name}", description, ("experiment", *tags))
        gauge.set_default_tags({"experiment": _tag(self._name)})
        return gauge


def _tag(text: str) -> str:
    return quote(text, safe=string.printable)
