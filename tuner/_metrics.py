"""The run's numbers beside Ray's own: on every node's metrics port, for the dashboard's charts."""

from __future__ import annotations

from ray.util.metrics import Gauge

from tuner._view import RunView


class RunMetrics:
    """Gauges ``tuner_trials`` (by status), ``tuner_elapsed_seconds``, ``tuner_remaining_seconds``.

    They carry the experiment's name as tag. Needs a connected Ray; Prometheus scrapes them where it
    scrapes Ray (``ray_tuner_...``).
    """

    def __init__(self, name: str) -> None:
        tags = ("experiment",)
        self._trials = Gauge("tuner_trials", "Trials by status", (*tags, "status"))
        self._elapsed = Gauge("tuner_elapsed_seconds", "Time since the start of the run", tags)
        self._remaining = Gauge("tuner_remaining_seconds", "Estimate of the time to go", tags)
        for gauge in (self._trials, self._elapsed, self._remaining):
            gauge.set_default_tags({"experiment": name})

    def update(self, view: RunView) -> None:
        """Set all gauges from the view."""
        for status, count in vars(view.counts).items():
            self._trials.set(count, {"status": status})
        self._trials.set(len(view.running), {"status": "running"})
        self._elapsed.set(view.elapsed)
        remaining = view.remaining_seconds()
        if remaining is not None:
            self._remaining.set(remaining)
