"""What one trial does on its node: quantize, deploy, check, benchmark, evaluate; real or simulated."""

from trainables._program import FAILURE_CLASSES, FailureClass, StageError, run_program

__all__ = ["FAILURE_CLASSES", "FailureClass", "StageError", "run_program"]
