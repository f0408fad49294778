"""The command line."""

from tuner.cli._main import main

__all__ = ["main"]
