"""The serving trial: an engine, its parameters, and the load at which it just meets the SLO."""

from trainables.serving._options import ServedOptions, ServingTimeouts

__all__ = ["ServedOptions", "ServingTimeouts"]
