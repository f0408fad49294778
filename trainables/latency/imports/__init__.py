"""Readers that turn profiles of serving engines into iteration records."""

from trainables.latency.imports._folder import Imported, Source, read_recordings
from trainables.latency.imports._members import Framework

__all__ = ["Framework", "Imported", "Source", "read_recordings"]
