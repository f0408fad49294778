"""The view ``auto_tune``: a run as ``auto_tune.py`` would have left it."""

from tuner.views.autotune._record import METRICS, trial_key
from tuner.views.autotune._view import (
    AutoTuneOptions,
    AutoTuneView,
    params_of,
    say_crashed,
)

__all__ = [
    "METRICS",
    "AutoTuneOptions",
    "AutoTuneView",
    "params_of",
    "say_crashed",
    "trial_key",
]
