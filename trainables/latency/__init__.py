"""Latency models: how long an iteration of a model takes on a device, learned or composed."""

from trainables.latency._model import latency_model_type, latency_model_types, make_latency_model
from trainables.latency._records import IterationRecord, read_records, write_records

__all__ = [
    "IterationRecord",
    "latency_model_type",
    "latency_model_types",
    "make_latency_model",
    "read_records",
    "write_records",
]
