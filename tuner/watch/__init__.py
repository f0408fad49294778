"""A run that comes back after a crash."""

from tuner.watch._policy import RestartPolicy, ending
from tuner.watch._supervisor import Supervisor, WatchedError

__all__ = ["RestartPolicy", "Supervisor", "WatchedError", "ending"]
