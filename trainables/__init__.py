"""What one trial does on its node: quantize, deploy, check, benchmark, evaluate; real or simulated.

The Ray Tune trainable itself is :mod:`trainables.ray`, apart, so that reading this package does
not import Ray.
"""

from trainables._extras import EXTRAS, how_to_install, missing_modules
from trainables._figures import figure
from trainables._measurement import Measurement, MeasurementError
from trainables._program import FAILURE_CLASSES, FailureClass, StageError, run_program
from trainables._pump import CANCEL, TrialPump
from trainables._staging import LOCAL_WEIGHTS
from trainables._trial import Progress, Result, Steps, TrialFailure, TrialRun, TrialSpec
from trainables._types import (
    TrialType,
    VerificationPolicy,
    register_trial_type,
    trial_type,
    trial_types,
)

__all__ = [
    "CANCEL",
    "EXTRAS",
    "FAILURE_CLASSES",
    "LOCAL_WEIGHTS",
    "FailureClass",
    "Measurement",
    "MeasurementError",
    "Progress",
    "Result",
    "StageError",
    "Steps",
    "TrialFailure",
    "TrialPump",
    "TrialRun",
    "TrialSpec",
    "TrialType",
    "VerificationPolicy",
    "figure",
    "how_to_install",
    "missing_modules",
    "register_trial_type",
    "run_program",
    "trial_type",
    "trial_types",
]
