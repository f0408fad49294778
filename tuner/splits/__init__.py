"""Prefill/decode splits judged by simulation."""

from tuner.splits._judge import LatencyLimits, SplitJudge
from tuner.splits._rates import guessed_rates, simulated_rates

__all__ = ["LatencyLimits", "SplitJudge", "guessed_rates", "simulated_rates"]
